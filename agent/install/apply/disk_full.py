"""A full disk, in numbers."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from agent.errors import HostNotReady
from agent.install.model.directory import Standing
from agent.install.model.steps import PlannedDirectory
from agent.install.posix.mounts import mount_point

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent.install.compare.findings import Findings
    from agent.install.model.steps import PlannedFiles
    from agent.install.plan.plan import InstallPlan


def no_room_failure(
    plan: InstallPlan, path: str, findings: Sequence[Findings] = (), *, is_quota: bool = False
) -> HostNotReady:
    """The failure that says what is short, how much the whole Install needs, and how much is free.

    Args:
        plan: what was to be done, and has been undone.
        path: where the system said no; must not be empty.
        findings: what was found out about the planned files, in the order of the plan; without it, all
            of them count, also those that are there already.
        is_quota: whether the system said that a quota is used up, and not the disk.
    """
    needed_bytes, needed_inodes = _needed(plan, findings)
    needs = f"This Install needs {_size(needed_bytes)} and {needed_inodes} inodes"
    place = path
    while place and not os.path.lexists(place):
        place = os.path.dirname(place)
    mounted, lacks_inodes_only = place, False
    with contextlib.suppress(OSError):
        free = os.statvfs(place)
        free_bytes = free.f_bavail * free.f_frsize
        needs += f"; free are {_size(free_bytes)} and {free.f_favail} inodes"
        lacks_inodes_only = free.f_files > 0 and free.f_favail < needed_inodes and needed_bytes <= free_bytes
        mounted = os.fsdecode(mount_point(os.path.realpath(os.fsencode(place))))
    needs += (
        ", beside the previous revision, which stays until the new one is complete. Everything was put back."
    )
    if is_quota:
        what = f"A disk quota is used up at {path}, of the agent's user, or of a group or project."
        remedy = "Raise the quota, or remove files that count for it,"
    elif lacks_inodes_only:
        what = f"No more files can be made at {path}: the file system mounted at {mounted} has room, but too few inodes."
        remedy = f"Remove files there, whatever their size (`du --inodes -x {mounted}` counts them),"
    else:
        what = f"The disk is full at {path}, on the file system mounted at {mounted}."
        remedy = "Free some space there"
    return HostNotReady("install-disk-full", f"{what} {needs} {remedy} and deploy again.")


def _needed(plan: InstallPlan, findings: Sequence[Findings]) -> tuple[int, int]:
    """Bytes and inodes of all that is new; several names of one file need them once."""
    needed_bytes = needed_inodes = 0
    counted: set[tuple[int, int]] = set()
    found = iter(findings)
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


def _names_to_write(files: PlannedFiles, findings: Findings | None) -> Iterable[bytes]:
    if findings is None or findings.pending is None:
        return files.names
    return [files.names[position] for position, _inode in findings.pending]


def _size(size_bytes: int) -> str:
    if size_bytes < 10 * 1024 * 1024:
        return f"{size_bytes} bytes"
    return f"{size_bytes / (1024 * 1024):.0f} MiB"
