"""What an AppSpec says, once it has been read and found valid."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.errors import Problem
    from agent.protocol import FileExistsBehavior

EVERYTHING = "**"
"""The pattern that matches all files and directories below an object."""

DEFAULT_TIMEOUT_S = 3600.0


class ObjectType(Enum):
    """What kind of objects a permissions entry is about."""

    FILE = "file"
    DIRECTORY = "directory"


class AclKind(Enum):
    """Whom an access control list entry is about; the value is how `setfacl` spells it out."""

    USER = "user"
    GROUP = "group"
    MASK = "mask"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMapping:
    """One entry of `files`: what to copy, and where to.

    Attributes:
        source: as written; relative to the deployment archive, also with a leading slash.
        destination: as written; the directory into which it is copied.
        line: of the entry in the AppSpec file.
    """

    source: str
    destination: str
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AclEntry:
    """One entry of an access control list.

    Attributes:
        is_default: it is handed down to what is created in the directory later.
        name: user or group, as written (a name or a number); empty for the mask, and for default entries
            of the owner, the owning group and others.
        permissions: 0 to 7, as in a mode.
    """

    kind: AclKind
    name: str
    permissions: int
    is_default: bool = False

    def __str__(self) -> str:
        """The entry as `setfacl` and the existing agents write it, such as `default:user:bob:r-x`."""
        letters = "".join(
            letter if self.permissions & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1))
        )
        prefix = "default:" if self.is_default else ""
        return f"{prefix}{self.kind.value}:{self.name}:{letters}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SelinuxContext:
    """The SELinux label that objects are to get; None leaves that part to the host's policy."""

    type: str
    user: str | None = None
    range: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """One entry of `permissions`; None means: leave that as it is.

    Attributes:
        object: as written, without blanks around it; a file that Install copies, or a directory above such files.
        pattern: which of the objects below the directory; `*` stays within one path component; an
            empty one matches nothing.
        exceptions: patterns of what to leave out (`except` in the file).
        owner, group: a name, or a number as text.
        mode: one to four octal digits, as written.
        types: the kinds of objects it is about.
        line: of the entry in the AppSpec file.
    """

    object: str
    pattern: str = EVERYTHING
    exceptions: tuple[str, ...] = ()
    owner: str | None = None
    group: str | None = None
    mode: str | None = None
    acls: tuple[AclEntry, ...] = ()
    context: SelinuxContext | None = None
    types: frozenset[ObjectType] = frozenset(ObjectType)
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HookScript:
    """One script of a lifecycle event.

    Attributes:
        location: as written, without blanks around it; relative to the deployment archive, also with a leading slash.
        timeout_s: more than 0.
        runas: user to run it as; None is the agent's own.
        sudo: run it through sudo.
        login: read the login profile of its user before (our addition); never together with sudo.
        args: arguments for the script (our addition).
        environment: variables for this script (our addition).
        line: of the entry in the AppSpec file.
    """

    location: str
    timeout_s: float = DEFAULT_TIMEOUT_S
    runas: str | None = None
    sudo: bool = False
    login: bool = False
    args: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSpec:
    """A whole AppSpec file.

    Attributes:
        path: of the file, as it is named in messages.
        hooks: lifecycle event → its scripts in order; events without scripts have an empty tuple.
        event_places: lifecycle event → line and column of its name in the file.
        file_exists_behavior: None means that the deployment decides.
        environment: variables for every script (our addition).
        warnings: what was ignored, or will hardly do what its author meant.
        lost: what was meant to be carried out and will not be, when nothing else in the file does anything;
            empty for a file that does something, or says nothing. See require_effect.
    """

    path: str
    files: tuple[FileMapping, ...] = ()
    permissions: tuple[Permission, ...] = ()
    hooks: Mapping[str, tuple[HookScript, ...]] = field(default_factory=lambda: MappingProxyType({}))
    event_places: Mapping[str, tuple[int, int]] = field(default_factory=lambda: MappingProxyType({}))
    file_exists_behavior: FileExistsBehavior | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    warnings: tuple[Problem, ...] = ()
    lost: tuple[Problem, ...] = ()
