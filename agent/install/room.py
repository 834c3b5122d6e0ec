"""A full disk, in numbers."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.install.destinations import Standing
from agent.install.planned import PlannedDirectory

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent.install.planned import InstallPlan, PlannedFiles
    from agent.install.staged import Staged


def no_room_failure(plan: InstallPlan, path: str, staged: Sequence[Staged] = ()) -> CommandFailure:
    """The failure that says how much the whole Install needs, and how much is free.

    Args:
        plan: what was to be done.
        path: where the system said no; must not be empty.
        staged: what was found out about the planned files, in the order of the plan; without it, all
            of them count, also those that are there already.
    """
    needed_bytes, needed_inodes = _needed(plan, staged)
    message = (
        f"The disk is full at {path}. This Install needs {_size(needed_bytes)} and {needed_inodes} inodes"
    )
    place = path
    while place and not os.path.lexists(place):
        place = os.path.dirname(place)
    with contextlib.suppress(OSError):
        free = os.statvfs(place)
        message += f"; free are {_size(free.f_bavail * free.f_frsize)} and {free.f_favail} inodes"
    message += (
        ", beside the previous revision, which stays until the new one is complete."
        " Everything was put back. Free some space and deploy again."
    )
    return CommandFailure("install-disk-full", message)


def _needed(plan: InstallPlan, staged: Sequence[Staged]) -> tuple[int, int]:
    """Bytes and inodes of all that is new; several names of one file need them once."""
    needed_bytes = needed_inodes = 0
    counted: set[tuple[int, int]] = set()
    found = iter(staged)
    for step in plan.steps:
        if isinstance(step, PlannedDirectory):
            needed_inodes += step.directory.standing is Standing.NEW
            continue
        for name in _names_to_write(step, next(found, None)):
            try:
                status = os.lstat(step.source_directory + b"/" + name)
            except OSError:
                continue
            identity = (status.st_dev, status.st_ino)
            if identity in counted:
                continue
            if status.st_nlink > 1:
                counted.add(identity)
            needed_inodes += 1
            needed_bytes += status.st_size
    return needed_bytes, needed_inodes


def _names_to_write(files: PlannedFiles, staged: Staged | None) -> Iterable[bytes]:
    if staged is None or staged.todo is None:
        return files.names
    return [files.names[position] for position, _inode in staged.todo]


def _size(size_bytes: int) -> str:
    if size_bytes < 10 * 1024 * 1024:
        return f"{size_bytes} bytes"
    return f"{size_bytes / (1024 * 1024):.0f} MiB"
