"""What stands in the way of an Install, said in one message."""

from __future__ import annotations

import os
import pwd
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.logs import get_logger
from agent.protocol import FileExistsBehavior

if TYPE_CHECKING:
    from pathlib import Path

    from agent.install.request import InstallRequest

log = get_logger()

_MOST_LISTED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """One path that can't be installed.

    Attributes:
        status: of what is there; None when that is not the point.
        is_by_rule: another file_exists_behavior would solve it.
    """

    path: bytes
    reason: str
    status: os.stat_result | None = None
    is_by_rule: bool = False


def behavior_of(request: InstallRequest) -> tuple[FileExistsBehavior, str]:
    """The rule for files that are there already, and in words who made it."""
    if request.appspec.file_exists_behavior is not None:
        return request.appspec.file_exists_behavior, "the AppSpec"
    if request.file_exists_behavior is FileExistsBehavior.DISALLOW:
        return request.file_exists_behavior, "the deployment (it is the default)"
    return request.file_exists_behavior, "the deployment"


def conflicts_failure(request: InstallRequest, conflicts: list[Conflict]) -> CommandFailure:
    """The failure that lists all conflicts: path, reason, owner, age, and the rule behind it."""
    owners = _claims(
        request.instructions_directory, request.group_id, {conflict.path for conflict in conflicts}
    )
    described = [_described(conflict, owners.get(conflict.path)) for conflict in conflicts]
    log.warning("install_conflicts", count=len(conflicts), conflicts=described[:1000])
    shown = "; ".join(described[:_MOST_LISTED])
    more = (
        f"; and {len(described) - _MOST_LISTED} more (see the agent's log)"
        if len(described) > _MOST_LISTED
        else ""
    )
    behavior, source = behavior_of(request)
    paths = "One path is" if len(conflicts) == 1 else f"{len(conflicts)} paths are"
    message = f"{paths} in the way of this Install, and nothing was changed: {shown}{more}."
    if any(conflict.is_by_rule for conflict in conflicts):
        message += (
            f" The rule for files that this deployment group did not install is {behavior.value}, set by {source}."
            " Remove or move them, or deploy with file_exists_behavior OVERWRITE or RETAIN."
        )
    else:
        message += " Remove or move what is there, or change the destinations in the AppSpec."
    return CommandFailure("install-conflicts", message)


def _described(conflict: Conflict, group: str | None) -> str:
    text = f"{os.fsdecode(conflict.path)} ({conflict.reason}"
    status = conflict.status
    if status is not None:
        changed = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(status.st_mtime))
        text += f", owner {_user_name(status.st_uid)}, last changed {changed} UTC"
    if group is not None:
        text += f", installed by deployment group {group}"
    return text + ")"


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _claims(directory: Path, group_id: str, paths: set[bytes]) -> dict[bytes, str]:
    """Which of these paths other deployment groups have installed, by path."""
    claims: dict[bytes, str] = {}
    suffix = "-cleanup"
    try:
        others = [
            entry for entry in os.listdir(directory) if entry.endswith(suffix) and not entry.startswith(".")
        ]
    except OSError:
        return claims
    for name in others:
        other_group = name.removesuffix(suffix)
        if other_group == group_id:
            continue
        try:
            with open(directory / name, "rb") as stream:
                claims.update(
                    (line.rstrip(b"\n"), other_group) for line in stream if line.rstrip(b"\n") in paths
                )
        except OSError:
            continue
    return claims
