"""What an Install would do to paths and file systems, as people and scripts are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.appspec import Permission
    from agent.install.plan.conflicts import Conflict
    from agent.install.plan.rule import Rule


class ChangeKind(Enum):
    """What would happen to a path. The values are part of the output of `agentctl plan`."""

    ADD = "add"
    REPLACE = "replace"
    KEEP = "keep"
    """It is there already, with the right content; `note` says when its attributes are set."""
    RETAIN = "retain"
    """It is somebody else's, and the rule RETAIN keeps it."""
    REMOVE = "remove"
    """Only the previous revision has it."""
    STAY = "stay"
    """Only the previous revision has it, but it must not go; `note` says why."""


class ObjectKind(Enum):
    """What is, or will be, at a path."""

    FILE = "file"
    LINK = "link"
    DIRECTORY = "directory"
    SPECIAL = "special"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What would happen to one path.

    Attributes:
        path: as the AppSpec spells it; without links where only the previous revision has it.
        source: in the archive, relative to it; None for what doesn't come from there.
        size_bytes: that would be written.
        permission: entry of `permissions` that is about it.
        note: what else a person should know; empty when there is nothing.
    """

    kind: ChangeKind
    object: ObjectKind
    path: bytes
    source: bytes | None = None
    size_bytes: int = 0
    permission: Permission | None = None
    note: str = ""


@dataclass(slots=True, kw_only=True)
class FileSystem:
    """A file system with destinations of this Install.

    Attributes:
        path: a directory on it.
        needed_bytes, needed_inodes: for what is added and replaced, beside what is there now.
        free_inodes: None where the file system has no fixed number.
    """

    path: bytes
    free_bytes: int
    free_inodes: int | None
    needed_bytes: int = 0
    needed_inodes: int = 0

    @property
    def is_too_small(self) -> bool:
        """Whether Install would probably fail for lack of space; holes and shared blocks are not known."""
        return self.needed_bytes > self.free_bytes or (
            self.free_inodes is not None and self.needed_inodes > self.free_inodes
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """An Install that is possible; `changes` are sorted by path."""

    rule: Rule
    changes: list[Change] = field(repr=False)
    file_systems: list[FileSystem]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockedInstall:
    """An Install that is not possible.

    Attributes:
        conflicts: everything in the way, sorted by path.
        message: what Install would say; of many conflicts it names the first few.
    """

    rule: Rule
    conflicts: tuple[Conflict, ...]
    message: str
