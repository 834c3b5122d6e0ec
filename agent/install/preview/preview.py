"""What an Install would do on this host, path by path, without doing any of it."""

from __future__ import annotations

import errno
import grp
import os
import pwd
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.errors import CommandFailure, HostNotReady
from agent.install.attributes.permissions import unknown_name
from agent.install.model.failures import StepFailed
from agent.install.plan.conflicts import InstallConflicts
from agent.install.plan.planner import places_of, plan_install
from agent.install.posix.protection import remedy_for
from agent.install.preview.changes import BlockedInstall
from agent.install.preview.comparison import Comparison

if TYPE_CHECKING:
    from pathlib import Path

    from agent.appspec import Permission
    from agent.install.model.request import InstallRequest
    from agent.install.preview.changes import Preview


def preview_install(request: InstallRequest) -> Preview | BlockedInstall:
    """What `install(request)` would do now; nothing is changed.

    Where an ordinary user asks about an agent that runs as another one, owners are taken for
    possible that only that one may give, and those that the bundle records are not compared.

    Raises:
        CommandFailure: as `plan_install`, but for conflicts.
        PermissionError: this user may not look at something.
    """
    originals: dict[int, Permission] | None = None
    if plans_for_other_user(request.instructions_directory):
        request, originals = _without_owners(request)
    try:
        with closing(places_of(request)) as places:
            plan = plan_install(request, places)
            return Comparison(request, plan, places, originals).preview()
    except InstallConflicts as failure:
        conflicts = sorted(failure.conflicts, key=lambda conflict: conflict.path)
        return BlockedInstall(rule=failure.rule, conflicts=tuple(conflicts), message=failure.message)
    except StepFailed as failed:
        raise _refused(failed.path, failed.error) from failed
    except CommandFailure as failure:
        cause = failure.__cause__
        if isinstance(cause, PermissionError):
            raise _refused(os.fsencode(cause.filename or b""), cause) from failure
        raise


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
    where = os.fsdecode(path)
    message = (
        f"Install can't be planned, because {where} can't be compared: {error.strerror or error}. Nothing was changed."
        f" {remedy_for(where, error)}, and plan again."
    )
    return CommandFailure("install-failed", message)


def _without_owners(request: InstallRequest) -> tuple[InstallRequest, dict[int, Permission]]:
    """The request without what only root may give, and whose ids (`id`) lead to the entries as they were.

    Raises:
        CommandFailure: `permissions-invalid`; there is no such user or group.
    """
    problems: list[str] = []
    originals: dict[int, Permission] = {}
    stripped = []
    for permission in request.appspec.permissions:
        for name, find, kind_of_name, kind in (
            (permission.owner, pwd.getpwnam, "owner", "user"),
            (permission.group, grp.getgrnam, "group", "group"),
        ):
            if name is not None and not name.isdigit():
                try:
                    find(name)
                except KeyError:
                    where = f"{kind_of_name} in permissions of {permission.object} (AppSpec line {permission.line})"
                    problems.append(str(unknown_name(where, kind, name)))
        without = replace(permission, owner=None, group=None)
        originals[id(without)] = permission
        stripped.append(without)
    if problems:
        message = f"The permissions section can't be applied, and nothing was changed: {'; '.join(problems)}."
        raise HostNotReady("permissions-invalid", message)
    return replace(request, appspec=replace(request.appspec, permissions=tuple(stripped))), originals
