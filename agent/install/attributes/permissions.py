"""The `permissions` section → owner, group, mode, ACL and label of each planned object."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from agent.appspec import EVERYTHING, AclKind, ObjectType
from agent.install.attributes.of_files import may_give_group
from agent.install.model.attributes import Attributes, NamedEntry
from agent.install.posix.protection import own_name
from agent.logs import get_logger
from agent.user_names import group_id, user_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from agent.appspec import AclEntry, Permission
    from agent.install.model.directory import Directory
    from agent.install.posix.places import Places

log = get_logger()


class PermissionProblems(Exception):
    """An entry of `permissions` can't be applied; `problems` has a sentence for each thing that is wrong with it."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def resolve_attributes(permission: Permission, number: int, *, for_other_user: bool = False) -> Attributes:
    """The entry with its users and groups looked up.

    Args:
        permission: the entry.
        number: its place in the section.
        for_other_user: somebody else will install: whom they may give files to is not known, and no owner and group
            are among the attributes.

    Raises:
        PermissionProblems: some of them do not exist, or only root may give files to them.
    """
    where = f"permissions of {permission.object} (AppSpec line {permission.line})"
    names = _Names()
    uid = names.user(permission.owner, f"owner in {where}")
    gid = names.group(permission.group, f"group in {where}")
    if for_other_user:
        uid = gid = None
    entries = [names.entry(entry, f"acls of {where}") for entry in permission.acls]
    problems = [*names.problems, *_not_allowed(permission, uid, gid, where)]
    if problems:
        raise PermissionProblems(problems)
    return Attributes(
        number=number,
        permission=permission,
        mode=None if permission.mode is None else int(permission.mode, 8),
        uid=uid,
        gid=gid,
        access_acl=tuple(named for named in entries if not named.entry.is_default),
        default_acl=tuple(named for named in entries if named.entry.is_default),
    )


class _Names:
    """Looks up names of users and groups, and keeps what is wrong with them; None stays None."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def user(self, name: str | None, where: str) -> int | None:
        return self._known(user_id, name, where, "user")

    def group(self, name: str | None, where: str) -> int | None:
        return self._known(group_id, name, where, "group")

    def entry(self, entry: AclEntry, where: str) -> NamedEntry:
        find = self.user if entry.kind is AclKind.USER else self.group
        return NamedEntry(entry=entry, id=find(entry.name or None, where))

    def _known(
        self, find: Callable[[str], int | None], name: str | None, where: str, kind: str
    ) -> int | None:
        if name is None:
            return None
        found = find(name)
        if found is None:
            self.problems.append(
                f"{where}: there is no {kind} {name!r} on this host; create it before Install, such as in a BeforeInstall script"
            )
        return found


def _not_allowed(permission: Permission, uid: int | None, gid: int | None, where: str) -> Iterator[str]:
    """Whom we may not give files to, in sentences."""
    if os.geteuid() == 0:
        return
    if uid is not None and uid != os.geteuid():
        yield (
            f"{where}: only root may give files to {permission.owner!r}, and the agent runs as {own_name()}; leave the"
            " owner out, or run the agent as root"
        )
    if not may_give_group(gid):
        yield (
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
