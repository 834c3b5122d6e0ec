"""Which service it is that a host speaks with."""

from __future__ import annotations

from typing import Protocol


class Stack(Protocol):
    """One of the two stacks of the service: address, prefix and signing name belong together."""

    @property
    def url(self) -> str:
        """Where requests go, without a path."""

    @property
    def target_prefix(self) -> str:
        """First part of X-Amz-Target."""

    @property
    def signing_name(self) -> str:
        """Service name in the signature."""
