"""What the `permissions` section gives to files and directories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.appspec.model import AclEntry, Permission


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """What one entry of `permissions` gives to its objects; None means: as it would be without it.

    Attributes:
        number: of the entry, which tells it apart from the others of its section.
    """

    number: int
    permission: Permission
    mode: int | None
    uid: int | None
    gid: int | None
    access_acl: tuple[NamedEntry, ...]
    default_acl: tuple[NamedEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedEntry:
    """An entry of an AppSpec with its user or group looked up; `id` is None for one without a name."""

    entry: AclEntry
    id: int | None
