"""The `permissions` section → owner, group, mode, ACL and label of each planned object."""

from __future__ import annotations

import grp
import os
import pwd
import re
from typing import TYPE_CHECKING

from agent.appspec import EVERYTHING, AclKind, ObjectType
from agent.install.attributes.of_files import may_give_group
from agent.install.model.attributes import Attributes, NamedEntry
from agent.install.posix.protection import own_name
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agent.appspec import AclEntry, Permission
    from agent.install.model.directory import Directory
    from agent.install.posix.places import Places

log = get_logger()


class PermissionProblem(Exception):
    """An entry of `permissions` can't be applied; the message says which, and why."""


def resolve_attributes(permission: Permission, number: int) -> Attributes:
    """The entry with its users and groups looked up.

    Args:
        permission: the entry.
        number: its place in the section.

    Raises:
        PermissionProblem: one of them does not exist, or only root may give files to them.
    """
    where = f"permissions of {permission.object} (AppSpec line {permission.line})"
    uid = None if permission.owner is None else _user_id(permission.owner, f"owner in {where}")
    gid = None if permission.group is None else _group_id(permission.group, f"group in {where}")
    _check_allowed(permission, uid, gid, where)
    entries = [_named_entry(entry, where) for entry in permission.acls]
    return Attributes(
        number=number,
        permission=permission,
        mode=None if permission.mode is None else int(permission.mode, 8),
        uid=uid,
        gid=gid,
        access_acl=tuple(named for named in entries if not named.entry.is_default),
        default_acl=tuple(named for named in entries if named.entry.is_default),
    )


def _named_entry(entry: AclEntry, where: str) -> NamedEntry:
    if not entry.name:
        return NamedEntry(entry=entry, id=None)
    look_up = _user_id if entry.kind is AclKind.USER else _group_id
    return NamedEntry(entry=entry, id=look_up(entry.name, f"acls of {where}"))


def _user_id(name: str, where: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return _number(name, where, "user")


def _group_id(name: str, where: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return _number(name, where, "group")


def _number(name: str, where: str, kind: str) -> int:
    # The largest value means "leave as it is" to the kernel.
    if name.isascii() and name.isdigit() and int(name) < 0xFFFFFFFF:
        return int(name)
    raise unknown_name(where, kind, name)


def unknown_name(where: str, kind: str, name: str) -> PermissionProblem:
    """There is no such user or group."""
    return PermissionProblem(
        f"{where}: there is no {kind} {name!r} on this host; create it before Install, such as in a BeforeInstall script"
    )


def _check_allowed(permission: Permission, uid: int | None, gid: int | None, where: str) -> None:
    if os.geteuid() == 0:
        return
    if uid is not None and uid != os.geteuid():
        raise PermissionProblem(
            f"{where}: only root may give files to {permission.owner!r}, and the agent runs as {own_name()}; leave the"
            " owner out, or run the agent as root"
        )
    if not may_give_group(gid):
        raise PermissionProblem(
            f"{where}: only root may give files to the group {permission.group!r}, of which the agent's user"
            f" {own_name()} is no member; make it one, or run the agent as root"
        )


def log_unused(unused: Iterable[Attributes]) -> None:
    """Say which entries give nothing to anything. With the existing agents nobody learns of a wrong name or pattern."""
    for attributes in unused:
        permission = attributes.permission
        log.warning(
            "permission_without_effect",
            object=permission.object,
            pattern=permission.pattern,
            appspec_line=permission.line,
            reason="this Install makes nothing that it is about",
        )


class Assignment:
    """Which entry of `permissions` goes for which planned object."""

    def __init__(
        self, resolved: list[Attributes], planned_files: dict[bytes, set[bytes]], places: Places
    ) -> None:
        self._places = places
        self.problems: list[str] = []
        self._for_files: dict[tuple[bytes, bytes], list[Attributes]] = {}
        self._for_trees: dict[bytes, list[_Rule]] = {}
        self._by_directory: dict[bytes, list[tuple[_Rule, bytes]]] = {}
        for attributes in resolved:
            self._enter(attributes, planned_files)

    def of_file(self, directory: Directory, name: bytes) -> Attributes | None:
        """Attributes for a file or link, if any entry is about it."""
        found = list(self._for_files.get((directory.real, name), ()))
        found += self._from_trees(directory.real, name, ObjectType.FILE)
        return self._only_one(found, directory.inner(name))

    def of_directory(self, directory: Directory) -> Attributes | None:
        """Attributes for a directory that Install creates, if any entry is about it."""
        if directory.parent is None:
            return None
        name = directory.real.rpartition(b"/")[2]
        found = list(self._from_trees(directory.parent.real, name, ObjectType.DIRECTORY))
        return self._only_one(found, directory.path)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to assign at all."""
        return not self._for_files and not self._for_trees

    def _enter(self, attributes: Attributes, planned_files: dict[bytes, set[bytes]]) -> None:
        permission = attributes.permission
        path = os.path.abspath(permission.object.encode("utf-8", "surrogateescape"))
        above, name = self._places.resolve(os.path.dirname(path)).real, os.path.basename(path)
        if name not in planned_files.get(above, ()):
            self._for_trees.setdefault(self._places.resolve(path).real, []).append(_Rule(attributes, path))
            return
        if permission.pattern != EVERYTHING or permission.exceptions:
            self.problems.append(
                f"permissions (AppSpec line {permission.line}): {permission.object} is a file, so pattern and except"
                " have no meaning; leave them out, or name the directory as object"
            )
        if ObjectType.FILE in permission.types:
            self._refuse_default_entries(attributes)
            self._for_files.setdefault((above, name), []).append(attributes)

    def _refuse_default_entries(self, attributes: Attributes) -> None:
        """An entry about one file would do nothing of what its default entries say."""
        permission = attributes.permission
        if attributes.default_acl:
            default = attributes.default_acl[0].entry
            self.problems.append(
                f"permissions (AppSpec line {permission.line}): {permission.object} is a file, and the entry {default} of"
                " acls is for new files of a directory; leave it out, or name the directory as object"
            )

    def _from_trees(self, directory: bytes, name: bytes, kind: ObjectType) -> Iterator[Attributes]:
        for rule, below in self._rules_at(directory):
            if kind in rule.attributes.permission.types and rule.matches(below + name):
                yield rule.attributes

    def _rules_at(self, directory: bytes) -> list[tuple[_Rule, bytes]]:
        """Entries whose object is this directory or one above it, with the way from there to it."""
        known = self._by_directory.get(directory)
        if known is None:
            known = [(rule, b"") for rule in self._for_trees.get(directory, ())]
            if directory != b"/":
                above, _slash, name = directory.rpartition(b"/")
                known += [(rule, below + name + b"/") for rule, below in self._rules_at(above or b"/")]
            self._by_directory[directory] = known
        return known

    def _only_one(self, found: list[Attributes], path: bytes) -> Attributes | None:
        if len(found) > 1:
            lines = " and ".join(str(attributes.permission.line) for attributes in found)
            self.problems.append(
                f"permissions: {os.fsdecode(path)} is matched by the entries in AppSpec lines {lines};"
                " narrow one of them with pattern, except or type"
            )
        return found[0] if found else None


class _Rule:
    """An entry whose object is a directory."""

    def __init__(self, attributes: Attributes, path: bytes) -> None:
        permission = attributes.permission
        self.attributes = attributes
        self._pattern = None if permission.pattern == EVERYTHING else _compiled(permission.pattern, path)
        self._exceptions = [_compiled(pattern, path) for pattern in permission.exceptions]

    def matches(self, below: bytes) -> bool:
        """Whether this path below the object is meant."""
        if self._pattern is not None and not self._pattern.fullmatch(below):
            return False
        return not any(exception.fullmatch(below) for exception in self._exceptions)


def _compiled(pattern: str, path: bytes) -> re.Pattern[bytes]:
    """`**` is everything; `*` is any text within one component of the path; nothing else is special."""
    text = pattern.encode("utf-8", "surrogateescape")
    text = text.removeprefix(path.rstrip(b"/") + b"/").lstrip(b"/")
    if text == EVERYTHING.encode():
        return re.compile(rb".*", re.DOTALL)
    return re.compile(b"[^/]*".join(re.escape(part) for part in re.split(rb"\*+", text)), re.DOTALL)
