"""What the journal says of an Install, but for its work units: directories as they are, and what goes in the end."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from agent.install.journal.entries import (
    NO_DIRECTORY,
    FirstOnDisk,
    Label,
    Leftover,
    LeftoverDirectory,
    LeftoverLabel,
    Losing,
    MountPoint,
    Touched,
    encode,
)
from agent.install.model.directory import Standing
from agent.install.model.failures import StepFailed
from agent.install.posix.acl import ACCESS, DEFAULT, read_acl
from agent.install.posix.births import UNKNOWN, born_ns
from agent.install.posix.mounts import lasting_mount_point
from agent.install.posix.protection import check_changeable
from agent.install.records.manifest import decode_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agent.install.apply.attempt import Attempt
    from agent.install.journal.entries import Entry
    from agent.install.model.directory import Directory
    from agent.install.model.steps import PlannedDirectory
    from agent.install.plan.plan import InstallPlan


def changing_directories(
    attempt: Attempt, outer: Iterable[PlannedDirectory], differing: Iterable[PlannedDirectory]
) -> list[Directory]:
    """Directories that are there and will change, each once.

    Args:
        attempt: whose findings are complete.
        outer: new directories that are made in one of those.
        differing: those that get other attributes.
    """
    directories: list[Directory] = [step.directory.parent for step in outer if step.directory.parent]
    directories += [step.directory for step in differing]
    for files, findings in zip(attempt.files, attempt.findings, strict=True):
        if findings.pending is None or findings.pending or findings.adjusted:
            directories.append(files.directory)
    once: dict[bytes, Directory] = {}
    for directory in directories:
        if directory.standing is not Standing.NEW:
            once.setdefault(directory.real, directory)
    return list(once.values())


def look_at(attempt: Attempt, directory: Directory) -> tuple[int, bytes]:
    """The device of a directory that will change, and what the journal says about it.

    Raises:
        StepFailed: it can't be looked at, or the system forbids that it is changed.
    """
    try:
        device, touched = _touched(attempt, directory)
    except OSError as error:
        raise StepFailed(directory.path, error) from error
    return device, encode(touched)


def begin_lines(
    attempt: Attempt, looked_at: Iterable[tuple[Directory, tuple[int, bytes]]]
) -> Iterator[bytes]:
    """What the journal has to say before anything is staged: which directories will change, and on which disks they lie.

    Args:
        attempt: learns of these disks.
        looked_at: each directory that will change, and what `look_at` says of it.

    Raises:
        StepFailed: one can't be looked at.
    """
    for directory, (device, line) in looked_at:
        try:
            yield from _disk_of(attempt, device, directory.real)
        except OSError as error:
            raise StepFailed(directory.path, error) from error
        yield line
    for real in _losing_directories(attempt.plan):
        try:
            dir_fd = attempt.places.of(real)
            status, born = os.fstat(dir_fd), born_ns(dir_fd)
            yield from _disk_of(attempt, status.st_dev, real)
        except OSError:
            # Whatever is there in the end is not what was planned with.
            yield encode(Losing(real, NO_DIRECTORY, UNKNOWN))
        else:
            yield encode(Losing(real, status.st_ino, born))


def end_entries(plan: InstallPlan) -> Iterator[Entry]:
    """What the journal has to say of labels, and of what goes when the Install has succeeded."""
    known = plan.previous.labels
    labelled = {
        path for path, attributes, _ in plan.attributes() if attributes.permission.context is not None
    }
    yield from (Label(path, path in known, known.get(path)) for path in labelled)
    for removal in plan.removals:
        record = decode_record(removal.record) if removal.record else None
        yield Leftover(removal.directory, removal.name, record)
    yield from (LeftoverDirectory(path) for path in plan.outdated_directories)
    yield from (LeftoverLabel(path) for path in plan.previous.labels if path not in labelled)


def _disk_of(attempt: Attempt, device: int, real: bytes) -> Iterator[bytes]:
    """Where a directory lies that changes now, or loses something in the end; nothing when that disk is known."""
    if device not in attempt.disks:
        attempt.disks.add(device, attempt.places.of(real))
        yield encode(FirstOnDisk(real))
        point = lasting_mount_point(real)
        if point:
            yield encode(MountPoint(point))


def _losing_directories(plan: InstallPlan) -> set[bytes]:
    """Directories from which something of the previous revision goes."""
    emptied = {path.rpartition(b"/")[0] or b"/" for path in plan.outdated_directories}
    return emptied | {removal.directory for removal in plan.removals}


def _touched(attempt: Attempt, directory: Directory) -> tuple[int, Touched]:
    """On which device a directory is that will change, and how it is now."""
    is_ours = directory.standing is Standing.OURS
    # One that is in the state that the manifest tells has no ACLs, since none with ACLs has a state there.
    has_acls = is_ours and directory.real not in attempt.plan.previous.untouched
    access = default = None
    try:
        descriptor = attempt.places.opened(directory.real)
    except PermissionError:
        if has_acls:
            raise
        # It may be possible to write it all the same.
        place = attempt.places.of(directory.real)
        status, born = os.fstat(place), born_ns(place)
    else:
        try:
            # What must not be changed would also stop the undo.
            check_changeable(descriptor)
            status, born = os.fstat(descriptor), born_ns(descriptor)
            if has_acls:
                access, default = read_acl(descriptor, ACCESS), read_acl(descriptor, DEFAULT)
        finally:
            os.close(descriptor)
    inode = (status.st_ino, born)
    times = (status.st_atime_ns, status.st_mtime_ns)
    owner = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    return status.st_dev, Touched(directory.real, *inode, *times, *owner, access, default, is_ours)
