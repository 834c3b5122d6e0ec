"""Directories that an Install puts something into."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Standing(Enum):
    """How a directory that the plan needs stands to what is there."""

    NEW = "new"
    OURS = "ours"
    FOREIGN = "foreign"


class Directory(NamedTuple):
    """A directory that files go into.

    Attributes:
        path: as the AppSpec spells it, made absolute.
        real: without links.
        standing: OURS is one that the last Install created, and that holds nothing else by now.
        replaces: it is NEW, but a file or link of ours gives way to it.
        parent: None for the root directory only.
    """

    path: bytes
    real: bytes
    standing: Standing
    replaces: bool
    parent: Directory | None

    def inner(self, name: bytes) -> bytes:
        """Path of something in it, as the AppSpec would spell it."""
        return self.path.rstrip(b"/") + b"/" + name
