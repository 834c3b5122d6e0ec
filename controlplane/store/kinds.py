"""Who signs requests."""

from __future__ import annotations

from enum import Enum


class IdentityKind(str, Enum):
    """A person (or CI) calls the public API; a host polls for commands. Neither may do the other's work."""

    USER = "user"
    HOST = "host"
