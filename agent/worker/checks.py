"""Whether this host can carry out a command at all: refused before the service is told that it begins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.logs import get_logger
from agent.protocol import IN_PLACE_ORDER, INSTALL

if TYPE_CHECKING:
    from agent.settings import Settings
    from agent.specification import DeploymentSpecification

log = get_logger()

# From Install on, the new revision is there: refusing to start and to validate it would leave the host
# half done, which is what these checks are to prevent.
_CHECKED = frozenset(IN_PLACE_ORDER[: IN_PLACE_ORDER.index(INSTALL) + 1])
_PATIENCE_S = 30.0
_MEMINFO = Path("/proc/meminfo")


def check_host(command_name: str, specification: DeploymentSpecification, settings: Settings) -> None:
    """Afterwards the host has what the settings ask for; events after Install are not checked.

    Raises:
        CommandFailure: `host-disk-full`, `host-out-of-inodes`, `host-out-of-memory`, or
            `host-not-ready` when `pre_accept_command` says no.
    """
    if command_name not in _CHECKED:
        return
    for directory in (settings.root_dir, settings.pid_dir):
        _check_disk(directory, settings)
    if settings.min_free_memory:
        _check_memory(settings.min_free_memory)
    if settings.pre_accept_command:
        _ask_administrator(settings.pre_accept_command, command_name, specification)


def _check_disk(directory: Path, settings: Settings) -> None:
    try:
        disk = os.statvfs(directory)
    except OSError:
        # Whatever needs it says so, and why.
        return
    free_bytes = disk.f_bavail * disk.f_frsize
    if free_bytes < settings.min_free_bytes:
        raise CommandFailure(
            "host-disk-full",
            f"Only {_mebibytes(free_bytes)} are free below {directory}, and min_free_bytes asks for "
            f"{_mebibytes(settings.min_free_bytes)}. Nothing has been changed. Free some space there and deploy again.",
        )
    # Some file systems have no fixed number of inodes, and say 0.
    if disk.f_files and disk.f_favail < settings.min_free_inodes:
        raise CommandFailure(
            "host-out-of-inodes",
            f"Only {disk.f_favail} files can still be made below {directory} (see df -i), and min_free_inodes asks for "
            f"{settings.min_free_inodes}. Nothing has been changed. Remove some files there and deploy again.",
        )


def _check_memory(wanted_bytes: int) -> None:
    available = _available_memory()
    if available is not None and available < wanted_bytes:
        raise CommandFailure(
            "host-out-of-memory",
            f"Only {_mebibytes(available)} of memory are available, and min_free_memory asks for "
            f"{_mebibytes(wanted_bytes)}. Nothing has been changed. Find out what uses it, and deploy again.",
        )


def _available_memory() -> int | None:
    """What the kernel thinks can be had without swapping, in bytes; None when it does not say."""
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _ask_administrator(command: str, command_name: str, specification: DeploymentSpecification) -> None:
    # Only hosts that have such a command pay for starting one.
    from agent.worker.configured_command import run_configured  # noqa: PLC0415

    environment = {
        "LIFECYCLE_EVENT": command_name,
        "DEPLOYMENT_ID": specification.deployment_id,
        "DEPLOYMENT_GROUP_ID": specification.deployment_group_id,
        "DEPLOYMENT_GROUP_NAME": specification.deployment_group_name,
        "APPLICATION_NAME": specification.application_name,
    }
    try:
        outcome = run_configured(command, patience_s=_PATIENCE_S, environment=environment)
    except OSError as error:
        problem, output = f"its output can't be kept: {error.strerror or error}", ""
    else:
        problem, output = outcome.problem, outcome.output
    if problem:
        advice = (
            "Its output says why; deploy again when the host is ready."
            if output
            else "It has printed nothing; run it by hand as the agent's user, and deploy again when it says yes."
        )
        raise CommandFailure(
            "host-not-ready",
            f"pre_accept_command `{command}` refused {command_name}: {problem}. Nothing has been changed. {advice}",
            log=output,
        )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
