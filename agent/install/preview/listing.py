"""Which change each path would see: the plan of an Install beside what is on the host.

Everything is looked at in the places that the plan was made with, so that the answer is about the same directories.
"""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.install.attributes.of_new_directories import FreshDirectories
from agent.install.compare.comparer import Comparer
from agent.install.model.directory import Standing
from agent.install.model.failures import StepFailed
from agent.install.model.steps import PlannedDirectory
from agent.install.plan.rule import rule_of
from agent.install.preview.changes import Change, ChangeKind, FileSystem, ObjectKind, Preview
from agent.install.records.manifest import decode_record, is_as_left
from agent.user_names import group_id, user_id

if TYPE_CHECKING:
    from agent.appspec import Permission
    from agent.install.model.attributes import Attributes
    from agent.install.model.directory import Directory
    from agent.install.model.request import InstallRequest
    from agent.install.model.steps import PlannedFiles
    from agent.install.plan.plan import InstallPlan
    from agent.install.posix.places import Places

_ADJUSTED = "only its mode, group, ACL or time is set"


class ChangeList:
    """Lists the changes that a plan comes to. For one use.

    Args:
        request: what the plan was made for.
        plan: of it.
        places: that were resolved for it.
        for_other_user: somebody else will install, so that the plan gives no owners and groups.
    """

    def __init__(
        self,
        request: InstallRequest,
        plan: InstallPlan,
        places: Places,
        *,
        for_other_user: bool,
    ) -> None:
        self._request = request
        self._plan = plan
        self._places = places
        self._for_other_user = for_other_user
        self._archive = os.fsencode(request.archive)
        self._changes: list[Change] = []
        self._file_systems: dict[int, FileSystem] = {}
        self._devices: dict[bytes, int] = {}
        self._counted: set[tuple[int, int]] = set()
        self._files: set[bytes] = set()

    def preview(self) -> Preview:
        """The whole of it.

        Raises:
            StepFailed, OSError: something can't be looked at.
        """
        fresh = FreshDirectories(self._places)
        previous, index = self._plan.previous.files, self._plan.index
        comparer = Comparer(previous, index, self._places, fresh, for_other_user=self._for_other_user)
        for step in self._plan.steps:
            if isinstance(step, PlannedDirectory):
                self._changes.append(self._of_directory(step))
            else:
                self._add_files(step, comparer)
        self._changes += [self._as_it_is(ChangeKind.RETAIN, path) for path in self._plan.foreign]
        self._changes += [
            self._as_it_is(ChangeKind.STAY, path, "changed by hand") for path in self._plan.edited
        ]
        self._changes += [
            self._as_it_is(ChangeKind.STAY, path, f"deployment group {group_id} has installed it, too")
            for path, group_id in self._plan.shared.items()
        ]
        self._add_removals()
        self._changes.sort(key=lambda change: change.path)
        return Preview(
            rule=rule_of(self._request), changes=self._changes, file_systems=list(self._file_systems.values())
        )

    def _add_files(self, files: PlannedFiles, comparer: Comparer) -> None:
        # Where nothing can be replaced, the directory itself may not be there.
        found, unknown = comparer.recognise(files)
        if unknown:
            comparer.compare(files, found, unknown)
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

    def _of_file(self, files: PlannedFiles, name: bytes, *, is_same: bool) -> Change:
        permission = _permission(files.attributes.get(name))
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
        permission = _permission(step.attributes)
        return Change(
            kind=kind, object=ObjectKind.DIRECTORY, path=directory.path, permission=permission, note=note
        )

    def _kind_and_note(
        self, files: PlannedFiles, name: bytes, permission: Permission | None, *, is_same: bool
    ) -> tuple[ChangeKind, str]:
        real = files.directory.real
        status = self._places.find(real, name) if files.may_replace(name) else None
        if status is None:
            return ChangeKind.ADD, ""
        if is_same:
            return _kind_by_owner(status, permission if self._for_other_user else None)
        if stat.S_ISDIR(status.st_mode):
            return ChangeKind.REPLACE, "a directory of this group gives way"
        fields = self._plan.previous.files.of(real).get(name)
        if fields is None:
            return ChangeKind.REPLACE, "not installed by this group"
        record, dir_fd = decode_record(fields) if fields else None, self._places.of(real)
        if record is not None and not is_as_left(name, status, record, dir_fd=dir_fd):
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
            device = self._devices[directory.real] = self._places.status(directory.real).st_dev
        known = self._file_systems.get(device)
        if known is None:
            free = os.statvfs(self._places.of(directory.real))
            known = self._file_systems[device] = FileSystem(
                path=directory.real,
                free_bytes=free.f_bavail * free.f_frsize,
                free_inodes=free.f_favail if free.f_files else None,
            )
        return known

    def _add_removals(self) -> None:
        going = {removal.path for removal in self._plan.removals}
        self._changes += [self._as_it_is(ChangeKind.REMOVE, path) for path in going]
        for path in self._plan.outdated_directories:
            status = self._status(path)
            if path in self._files or status is None or not stat.S_ISDIR(status.st_mode):
                continue
            if self._is_empty_without(path, going):
                going.add(path)
                kind, note = ChangeKind.REMOVE, ""
            else:
                kind, note = ChangeKind.STAY, "not empty"
            self._changes.append(Change(kind=kind, object=ObjectKind.DIRECTORY, path=path, note=note))

    def _as_it_is(self, kind: ChangeKind, path: bytes, note: str = "") -> Change:
        status = self._status(path)
        # What has gone since the plan was made was a file, most likely.
        mode = stat.S_IFREG if status is None else status.st_mode
        return Change(kind=kind, object=_kind_of(mode), path=path, note=note)

    def _status(self, path: bytes) -> os.stat_result | None:
        """Of what is at a path, which may lead through links; None where nothing is."""
        above, _slash, name = path.rpartition(b"/")
        return self._places.find(self._places.resolve(above).real, name)

    def _is_empty_without(self, real: bytes, going: set[bytes]) -> bool:
        dir_fd = self._places.opened(real)
        try:
            names = map(os.fsencode, os.listdir(dir_fd))
            return all(real.rstrip(b"/") + b"/" + name in going for name in names)
        finally:
            os.close(dir_fd)


def _permission(attributes: Attributes | None) -> Permission | None:
    return None if attributes is None else attributes.permission


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


def _kind_by_owner(status: os.stat_result, permission: Permission | None) -> tuple[ChangeKind, str]:
    """What becomes of a file with the right content, by owner and group that the entry gives; its names exist.

    None = there is nothing to be said: they were compared, or no entry gives any.
    """
    if permission is None:
        return ChangeKind.KEEP, ""
    owner, group = permission.owner, permission.group
    uid = status.st_uid if owner is None else user_id(owner)
    gid = status.st_gid if group is None else group_id(group)
    if (uid, gid) == (status.st_uid, status.st_gid):
        return ChangeKind.KEEP, ""
    if uid != status.st_uid or status.st_mode & (stat.S_IWGRP | stat.S_ISUID | stat.S_ISGID):
        return ChangeKind.REPLACE, ""  # somebody may have it open
    return ChangeKind.KEEP, _ADJUSTED
