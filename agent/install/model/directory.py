"""Directories that an Install puts something into."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Standing(Enum):
    """How a directory that the plan needs stands to what is there."""

    NEW = "new"
    """Install will make it."""
    OURS = "ours"
    """The last Install created it, and it holds nothing else by now: this one gives it its attributes."""
    USED_BY_OTHERS = "used by others"
    """Others created it, or have something in it: it stays as it is."""


class Directory(NamedTuple):
    """A directory that files go into.

    Attributes:
        path: as the AppSpec spells it, made absolute.
        real: without links.
        standing: whose it is.
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
