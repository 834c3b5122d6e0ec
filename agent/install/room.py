"""A full disk, in numbers."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.install.destinations import Standing
from agent.install.plan import PlannedDirectory

if TYPE_CHECKING:
    from agent.install.plan import InstallPlan


def no_room_failure(plan: InstallPlan, path: str) -> CommandFailure:
    """The failure that says how much the whole Install needs, and how much is free.

    Args:
        plan: what was to be done.
        path: where the system said no; must not be empty.
    """
    needed_bytes = needed_inodes = 0
    for step in plan.steps:
        if isinstance(step, PlannedDirectory):
            needed_inodes += step.directory.standing is Standing.NEW
            continue
        needed_inodes += len(step.names)
        for name in step.names:
            with contextlib.suppress(OSError):
                needed_bytes += os.lstat(step.source_directory + b"/" + name).st_size
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


def _size(size_bytes: int) -> str:
    if size_bytes < 10 * 1024 * 1024:
        return f"{size_bytes} bytes"
    return f"{size_bytes / (1024 * 1024):.0f} MiB"
