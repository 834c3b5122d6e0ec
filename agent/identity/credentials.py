"""Credentials: what a request is signed with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.protocol import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """An access key, with its session token when it is a temporary one.

    Attributes:
        expires_at: Unix time in seconds; None = never, or not known.
    """

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret | None = None
    expires_at: float | None = None


def can_be_key(text: str) -> bool:
    """Whether this may be a key, a secret or a token: anything else can't even be put into a header."""
    return text.isascii() and text.isprintable() and bool(text) and " " not in text
