"""Whether the file systems are there that the last Install has put something on."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.install.model.directory import Standing
from agent.install.posix.mounts import is_mounted, is_volatile
from agent.install.posix.open_directories import NOT_THERE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.deployments.group_files import GroupFiles
    from agent.install.model.directory import Directory
    from agent.install.model.steps import Step
    from agent.install.posix.places import Places
    from agent.install.records.installed import Previous
    from agent.install.records.previous import Records


def mount_points_of(steps: Iterable[Step]) -> tuple[bytes, ...]:
    """Where the file systems are mounted that something is installed on, if they may be absent one day."""
    known: dict[bytes, bytes] = {b"/": b"/"}
    points = set()
    for step in steps:
        with contextlib.suppress(OSError):  # somebody has just removed it; whoever needs it will say so
            points.add(_mount_point(step.directory, known))
    return tuple(sorted(point for point in points if point != b"/" and not is_volatile(point)))


def _mount_point(directory: Directory, known: dict[bytes, bytes]) -> bytes:
    """Where the file system of this directory is mounted; `known` are those of others."""
    point = known.get(directory.real)
    if point is None:
        parent = directory.parent
        if parent is None:
            return b"/"
        point = _mount_point(parent, known)
        if directory.standing is Standing.USED_BY_OTHERS and is_mounted(directory.real):
            point = directory.real
        known[directory.real] = point
    return point


def check_mounted(files: GroupFiles, records: Records, previous: Previous, places: Places) -> None:
    """Check that no file system is missing to which everything went that the last Install put below its mount point.

    Without it, the next revision would go to the disk below, and be hidden as soon as the file system is back.

    Raises:
        CommandFailure: `install-destination-unmounted`.
        OSError: that can't be told.
    """
    for point in records.mount_points:
        if _is_bare(point) and not _holds_any(point, previous, places):
            where = os.fsdecode(point)
            message = (
                f"The last Install of this group put files on the file system that was mounted at {where}. None is mounted"
                " there now, and none of those files are there: the new revision would go to the disk below, and disappear"
                " when the file system is mounted again. Nothing was changed. Mount it (`findmnt --verify` and the journal"
                f" may say why it is not), and deploy again. If it is gone for good, remove {files.cleanup}: then the"
                " last Install counts no longer."
            )
            raise CommandFailure("install-destination-unmounted", message)


def _is_bare(point: bytes) -> bool:
    """Whether there is a directory on which nothing is mounted."""
    try:
        return stat.S_ISDIR(os.lstat(point).st_mode) and not is_mounted(point)
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise
        return False


def _holds_any(point: bytes, previous: Previous, places: Places) -> bool:
    """Whether anything is there that the last Install has made."""
    if any(real.startswith(point + b"/") for real in previous.directories):
        return True
    for real in previous.files.directories():
        is_below = real == point or real.startswith(point + b"/")
        if is_below and any(places.find(real, name) is not None for name in previous.files.of(real)):
            return True
    return False
