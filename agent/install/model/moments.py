"""The moments of an Install that its observer is told of."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TypeAlias


class Moment(Enum):
    """What is about to happen, in the order of an Install; then what only happens when it is undone.

    The path that goes with it is of what is changed by it: at the destination, of the journal or of a record.
    """

    JOURNAL = "journal"
    """The journal is written; nothing has changed before."""
    INSTALL_JSON = "install.json"
    """The new install.json is written beside its place."""
    MKDIR = "mkdir"
    COPY = "copy"
    LINK = "link"
    SWITCH = "switch"
    """The journal is completed; after that, everything new takes its place."""
    RENAME = "rename"
    """A new file, link or directory takes its place."""
    ADJUST = "adjust"
    """A file that stays gets other attributes."""
    ATTRIBUTES = "attributes"
    """A directory of ours gets its attributes."""
    CLEANUP_FILE = "cleanup file"
    """The new cleanup file is written beside its place."""
    LABEL = "label"
    """A path gets an SELinux rule."""
    MANIFEST = "manifest"
    """The new manifest is written beside its place."""
    COMMIT = "commit"
    """The Install takes effect; there is no way back after that."""
    PUBLISH = "publish"
    """The records take their places."""
    PUBLISHED = "published"
    """They have them, and the journal is still there."""
    REMOVE_HIDDEN = "remove hidden"
    """What was replaced, and has a hidden name since, is removed."""
    REMOVE = "remove"
    """A file of the previous revision is removed."""
    RMDIR = "rmdir"
    """A directory of an earlier revision is removed, if it is empty."""

    RESTORE_OLD = "restore old"
    """What was there before gets its name back."""
    HIDE_NEW = "hide new"
    """What is new gets its hidden name back."""
    REMOVE_NEW = "remove new"
    """What was made in a new directory, or that directory, is removed."""
    RESTORE_FILE = "restore file"
    """A file gets the attributes back that it had."""
    DISCARD = "discard"
    """Something with a hidden name is removed."""
    RESTORE_DIRECTORY = "restore directory"
    """A directory gets the times and attributes back that it had."""

    @property
    def is_undoing(self) -> bool:
        """Whether that only happens when an Install is undone."""
        return self in _UNDOING


_UNDOING = frozenset(
    {
        Moment.RESTORE_OLD,
        Moment.HIDE_NEW,
        Moment.REMOVE_NEW,
        Moment.RESTORE_FILE,
        Moment.DISCARD,
        Moment.RESTORE_DIRECTORY,
    }
)

Observer: TypeAlias = Callable[[Moment, bytes], None]
"""Told just before each moment, with a path, in whatever process it comes; what it raises makes that step fail.

A worker notes by it how far an Install has come; tests harm an Install by it at one moment after the other."""


def unobserved(_moment: Moment, _path: bytes) -> None:
    """Nobody watches."""
