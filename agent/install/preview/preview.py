"""What an Install would do on this host, path by path, without doing any of it."""

from __future__ import annotations

import errno
import os
from contextlib import closing
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.install.model.failures import StepFailed
from agent.install.plan.conflicts import InstallConflicts
from agent.install.plan.planner import places_of, plan_install
from agent.install.posix.protection import remedy_for
from agent.install.preview.changes import BlockedInstall
from agent.install.preview.comparison import Comparison

if TYPE_CHECKING:
    from pathlib import Path

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
    try:
        for_other_user = plans_for_other_user(request.instructions_directory)
        with closing(places_of(request)) as places:
            plan = plan_install(request, places, for_other_user=for_other_user)
            return Comparison(request, plan, places, for_other_user=for_other_user).preview()
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
