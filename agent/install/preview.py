"""What an Install would do on this host, path by path, without doing any of it."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from contextlib import closing
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from agent.archive_index import ArchiveIndex
from agent.errors import CommandFailure
from agent.install.conflicts import _claims, _user_name, behavior_of
from agent.install.descriptors import Descriptors
from agent.install.destinations import Standing
from agent.install.plan import PlannedDirectory, plan_install
from agent.install.records import decode_record
from agent.install.removals import is_as_left
from agent.install.staging import Staged, Stager, StepFailed
from agent.protocol import FileExistsBehavior

if TYPE_CHECKING:
    from pathlib import Path

    from agent.appspec import Permission
    from agent.install.attributes import Attributes
    from agent.install.destinations import Directory
    from agent.install.plan import InstallPlan, PlannedFiles
    from agent.install.request import InstallRequest

_ADJUSTED = "only its mode, owner, ACL or time is set"


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
        """Whether Install would probably fail for want of room; holes and shared blocks are not known."""
        return self.needed_bytes > self.free_bytes or (
            self.free_inodes is not None and self.needed_inodes > self.free_inodes
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is done with files that the group has not installed.

    Attributes:
        is_of_appspec: the AppSpec says so; else the deployment, or its default.
        set_by: the same in words.
    """

    behavior: FileExistsBehavior
    is_of_appspec: bool
    set_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """An Install that is possible; `changes` are sorted by path."""

    rule: Rule
    changes: list[Change] = field(repr=False)
    file_systems: list[FileSystem]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockedPath:
    """Something that stands in the way.

    Attributes:
        modified_at: seconds since the epoch.
        installed_by: another deployment group, when one has put it there.
    """

    path: bytes
    reason: str
    owner: str
    modified_at: float
    installed_by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockedInstall:
    """An Install that is not possible.

    Attributes:
        paths: everything in the way. Empty when something is that no rule could solve, such as
            two sources for one path: then only `message` says what.
        message: what Install would say; of many paths it names the first few.
    """

    rule: Rule
    paths: tuple[BlockedPath, ...]
    message: str


def preview_install(request: InstallRequest) -> Preview | BlockedInstall:
    """What `install(request)` would do now; nothing is changed.

    Where an ordinary user asks about an agent that runs as another one, owners are taken for
    possible that only that one may give, and those that the bundle records are not compared.

    Raises:
        CommandFailure: as `plan_install`, but for conflicts.
        PermissionError: this user may not look at something.
    """
    originals: dict[int, Permission] = {}
    if plans_for_other_user(request.instructions_directory):
        request, originals = _without_owners(request)
    try:
        plan = plan_install(request)
        return _Comparison(request, plan, originals).preview()
    except StepFailed as failed:
        raise _refused(failed.path, failed.error) from failed
    except CommandFailure as failure:
        cause = failure.__cause__
        if isinstance(cause, PermissionError):
            raise _refused(os.fsencode(cause.filename or b""), cause) from failure
        if failure.error_id != "install-conflicts":
            raise
        return BlockedInstall(
            rule=_rule(request), paths=tuple(_blocked_paths(request)), message=failure.message
        )


def plans_for_other_user(directory: Path) -> bool:
    """Whether whoever would install with these records is neither root, nor us.

    Args:
        directory: where the records lie. It need not exist: then the nearest one above it counts.
    """
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    return os.geteuid() not in {0, directory.stat().st_uid}


def _refused(path: bytes, error: OSError) -> OSError | CommandFailure:
    if isinstance(error, PermissionError):
        return PermissionError(errno.EACCES, error.strerror, os.fsdecode(path))
    message = (
        f"Install can't be planned, because {os.fsdecode(path)} can't be compared: {error.strerror or error}."
        " Nothing was changed. Mend the cause and plan again."
    )
    return CommandFailure("install-failed", message)


def _rule(request: InstallRequest) -> Rule:
    behavior, set_by = behavior_of(request)
    is_of_appspec = request.appspec.file_exists_behavior is not None
    return Rule(behavior=behavior, is_of_appspec=is_of_appspec, set_by=set_by)


def _without_owners(request: InstallRequest) -> tuple[InstallRequest, dict[int, Permission]]:
    """The request without what only root may give, and whose ids (`id`) lead to the entries as they were.

    Raises:
        CommandFailure: `permissions-invalid`; there is no such user or group.
    """
    problems: list[str] = []
    originals: dict[int, Permission] = {}
    stripped = []
    for permission in request.appspec.permissions:
        for name, find, kind in (
            (permission.owner, pwd.getpwnam, "user"),
            (permission.group, grp.getgrnam, "group"),
        ):
            if name is not None and not name.isdigit():
                try:
                    find(name)
                except KeyError:
                    where = f"permissions (AppSpec line {permission.line})"
                    problems.append(f"{where}: there is no {kind} {name!r} on this host")
        without = replace(permission, owner=None, group=None)
        originals[id(without)] = permission
        stripped.append(without)
    if problems:
        message = f"The permissions section can't be applied, and nothing was changed: {'; '.join(problems)}."
        raise CommandFailure("permissions-invalid", message)
    return replace(request, appspec=replace(request.appspec, permissions=tuple(stripped))), originals


def _blocked_paths(request: InstallRequest) -> list[BlockedPath]:
    """All that is in the way by the rule: just what RETAIN would retain. None, when it is not that alone."""
    rule = _rule(request)
    appspec = replace(request.appspec, permissions=(), file_exists_behavior=FileExistsBehavior.RETAIN)
    try:
        retained = plan_install(replace(request, appspec=appspec)).retained
    except CommandFailure:
        return []
    claims = _claims(request.instructions_directory, request.group_id, set(retained))
    blocked = []
    for path in retained:
        status = os.lstat(path)
        kind = _kind_of(status.st_mode)
        if kind is ObjectKind.DIRECTORY or rule.behavior is FileExistsBehavior.DISALLOW:
            blocked.append(_blocked_path(path, status, kind, claims.get(path)))
    return blocked


def _blocked_path(path: bytes, status: os.stat_result, kind: ObjectKind, group: str | None) -> BlockedPath:
    if kind is ObjectKind.DIRECTORY:
        reason = "a directory where a file must be"
    else:
        reason = f"a {kind.value} that is there already"
    return BlockedPath(
        path=path,
        reason=reason,
        owner=_user_name(status.st_uid),
        modified_at=status.st_mtime,
        installed_by=group,
    )


class _Comparison:
    """A plan beside what is there. For one use."""

    def __init__(self, request: InstallRequest, plan: InstallPlan, originals: dict[int, Permission]) -> None:
        self._request = request
        self._plan = plan
        self._originals = originals
        self._archive = os.fsencode(request.archive)
        self._changes: list[Change] = []
        self._file_systems: dict[int, FileSystem] = {}
        self._devices: dict[bytes, int] = {}
        self._counted: set[tuple[int, int]] = set()
        self._files: set[bytes] = set()

    def preview(self) -> Preview:
        """The whole of it.

        Raises:
            StepFailed: something can't be read.
        """
        index = ArchiveIndex(self._request.archive)
        with closing(Descriptors()) as descriptors:
            stager = Stager(self._plan.previous.files, index, b"", descriptors, lambda _kind, _path: None)
            for step in self._plan.steps:
                if isinstance(step, PlannedDirectory):
                    self._changes.append(self._of_directory(step))
                else:
                    self._add_files(step, stager)
        self._changes += [_as_it_is(ChangeKind.RETAIN, path) for path in self._plan.retained]
        self._changes += [_as_it_is(ChangeKind.STAY, path, "changed by hand") for path in self._plan.kept]
        self._add_removals()
        self._changes.sort(key=lambda change: change.path)
        return Preview(
            rule=_rule(self._request), changes=self._changes, file_systems=list(self._file_systems.values())
        )

    def _add_files(self, files: PlannedFiles, stager: Stager) -> None:
        # Where nothing can be replaced, the directory itself may not be there.
        found = stager.compare(files) if files.replaced else Staged([b""] * len(files.names))
        adjusted = {item.position for item in found.adjusted}
        for position, name in enumerate(files.names):
            try:
                is_same = bool(found.lines[position]) or position in adjusted
                change = self._of_file(files, name, is_same=is_same)
            except OSError as error:
                raise StepFailed(files.prefix + name, error) from error
            if position in adjusted and change.kind is ChangeKind.KEEP:
                change = replace(change, note=_ADJUSTED)
            self._changes.append(change)

    def _permission(self, attributes: Attributes | None) -> Permission | None:
        if attributes is None:
            return None
        return self._originals.get(id(attributes.permission), attributes.permission)

    def _of_file(self, files: PlannedFiles, name: bytes, *, is_same: bool) -> Change:
        permission = self._permission(files.attributes.get(name))
        self._files.add(files.directory.real.rstrip(b"/") + b"/" + name)
        kind, note = self._kind_and_note(files, name, permission, is_same=is_same)
        room = self._file_system(files.directory)
        source = files.source_directory + b"/" + name
        is_link = name in files.links
        size = 0 if kind is ChangeKind.KEEP else self._count(source, room, is_link=is_link)
        return Change(
            kind=kind,
            object=ObjectKind.LINK if is_link else ObjectKind.FILE,
            path=files.prefix + name,
            source=source[len(self._archive) + 1 :],
            size_bytes=size,
            permission=permission,
            note=note,
        )

    def _of_directory(self, step: PlannedDirectory) -> Change:
        kind, note = ChangeKind.KEEP, ""
        directory = step.directory
        if directory.standing is Standing.NEW:
            kind = ChangeKind.ADD
            self._file_system(directory).needed_inodes += 1
        if directory.replaces:
            kind, note = ChangeKind.REPLACE, "a file of this group gives way"
        permission = self._permission(step.attributes)
        return Change(
            kind=kind, object=ObjectKind.DIRECTORY, path=directory.path, permission=permission, note=note
        )

    def _kind_and_note(
        self, files: PlannedFiles, name: bytes, permission: Permission | None, *, is_same: bool
    ) -> tuple[ChangeKind, str]:
        real = files.directory.real
        status = _status(real + b"/" + name) if name in files.replaced else None
        if status is None:
            return ChangeKind.ADD, ""
        if is_same:
            # What was compared was without owners, where this user may not give them.
            is_owner_right = permission is None or not self._originals or _is_owned_as(status, permission)
            return ChangeKind.KEEP, "" if is_owner_right else _ADJUSTED
        if stat.S_ISDIR(status.st_mode):
            return ChangeKind.REPLACE, "a directory of this group gives way"
        fields = self._plan.previous.files.of(real).get(name)
        if fields is None:
            return ChangeKind.REPLACE, "not installed by this group"
        if fields and not is_as_left(real + b"/" + name, status, decode_record(fields)):
            return ChangeKind.REPLACE, "changed by hand since, which will be lost"
        return ChangeKind.REPLACE, ""

    def _count(self, source: bytes, room: FileSystem, *, is_link: bool) -> int:
        """Bytes of content that this file needs; names of one file in the archive need it once."""
        status = os.lstat(source)
        identity = (status.st_dev, status.st_ino)
        if is_link or identity in self._counted:
            room.needed_inodes += is_link
            return 0
        if status.st_nlink > 1:
            self._counted.add(identity)
        room.needed_inodes += 1
        room.needed_bytes += status.st_size
        return status.st_size

    def _file_system(self, directory: Directory) -> FileSystem:
        """The one on which something in this directory will be."""
        while directory.standing is Standing.NEW and directory.parent is not None:
            directory = directory.parent
        device = self._devices.get(directory.real)
        if device is None:
            device = self._devices[directory.real] = os.stat(directory.real).st_dev
        known = self._file_systems.get(device)
        if known is None:
            free = os.statvfs(directory.real)
            known = self._file_systems[device] = FileSystem(
                path=directory.real,
                free_bytes=free.f_bavail * free.f_frsize,
                free_inodes=free.f_favail if free.f_files else None,
            )
        return known

    def _add_removals(self) -> None:
        going = {removal.path for removal in self._plan.removals}
        self._changes += [_as_it_is(ChangeKind.REMOVE, path) for path in going]
        for path in self._plan.leftover_directories:
            if path in self._files or not os.path.isdir(path):
                continue
            if _is_empty_without(path, going):
                going.add(path)
                self._changes.append(_as_it_is(ChangeKind.REMOVE, path))
            else:
                self._changes.append(_as_it_is(ChangeKind.STAY, path, "not empty"))


def _status(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _as_it_is(kind: ChangeKind, path: bytes, note: str = "") -> Change:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        # It has gone since the plan was made.
        mode = stat.S_IFREG
    return Change(kind=kind, object=_kind_of(mode), path=path, note=note)


def _kind_of(mode: int) -> ObjectKind:
    if stat.S_ISDIR(mode):
        return ObjectKind.DIRECTORY
    if stat.S_ISLNK(mode):
        return ObjectKind.LINK
    return ObjectKind.FILE if stat.S_ISREG(mode) else ObjectKind.SPECIAL


def _is_empty_without(directory: bytes, going: set[bytes]) -> bool:
    try:
        return all(directory.rstrip(b"/") + b"/" + name in going for name in os.listdir(directory))
    except OSError:
        return False


def _is_owned_as(status: os.stat_result, permission: Permission) -> bool:
    """Whether owner and group are those that the entry gives; its names are known to exist."""
    owner, group = permission.owner, permission.group
    uid = status.st_uid if owner is None else int(owner) if owner.isdigit() else pwd.getpwnam(owner).pw_uid
    gid = status.st_gid if group is None else int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    return (uid, gid) == (status.st_uid, status.st_gid)
