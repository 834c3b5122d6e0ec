"""What an Install would do on this host, path by path, without doing any of it."""

from __future__ import annotations

import errno
import os
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from agent.errors import CommandFailure
from agent.files import is_there
from agent.install.model.failures import StepFailed
from agent.install.plan.conflicts import InstallConflicts
from agent.install.plan.planner import ChangedWhilePlanned, places_of, plan_install
from agent.install.posix.open_directories import PlaceChanged
from agent.install.posix.protection import remedy_for
from agent.install.preview.changes import BlockedInstall
from agent.install.preview.listing import ChangeList

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.install.model.request import InstallRequest
    from agent.install.preview.changes import Preview

T = TypeVar("T")


def preview_install(request: InstallRequest) -> Preview | BlockedInstall:
    """What `install(request)` would do now; nothing is changed (I11).

    Where an ordinary user asks about an agent that runs as another one, owners are taken for
    possible that only that one may give, and those that the bundle records are not compared.

    Raises:
        CommandFailure: as `plan_install`, but for conflicts.
        PermissionError: this user may not look at something.
    """
    for_other_user = plans_for_other_user(request.instructions_directory)

    def look(*, trusts_states: bool) -> Preview:
        with closing(places_of(request)) as places:
            plan = plan_install(request, places, trusts_states=trusts_states, for_other_user=for_other_user)
            return ChangeList(request, plan, places, for_other_user=for_other_user).preview()

    try:
        return _looked(look)
    except InstallConflicts as failure:
        return blocked_install(failure)
    except StepFailed as failed:
        raise _refused(failed.path, failed.error) from failed
    except CommandFailure as failure:
        cause = failure.__cause__
        if isinstance(cause, PermissionError):
            raise _refused(os.fsencode(cause.filename or b""), cause) from failure
        raise
    except OSError as error:
        raise _refused(os.fsencode(error.filename or b""), error) from error


def check_install(request: InstallRequest) -> None:
    """Check that `install(request)` is possible, as far as that can be seen now; nothing is changed.

    Raises:
        CommandFailure: as `plan_install`.
    """
    _looked(partial(plan_install, request))


def blocked_install(failure: InstallConflicts) -> BlockedInstall:
    """The answer that tells of these conflicts."""
    conflicts = sorted(failure.conflicts, key=lambda conflict: conflict.path)
    return BlockedInstall(rule=failure.rule, conflicts=tuple(conflicts), message=failure.message)


def plans_for_other_user(directory: Path) -> bool:
    """Whether whoever would install with these records is neither root, nor us.

    Args:
        directory: where the records lie. It need not exist: then the nearest one above it counts.

    Raises:
        OSError: that can't be told.
    """
    while not is_there(directory) and directory != directory.parent:
        directory = directory.parent
    return os.geteuid() not in {0, directory.stat().st_uid}


def _looked(look: Callable[..., T]) -> T:
    """What a look answers; as Install does, it is taken a second time where somebody changes directories meanwhile.

    Args:
        look: takes `trusts_states`, as `plan_install`.
    """
    try:
        return look(trusts_states=True)
    except (ChangedWhilePlanned, PlaceChanged):
        return look(trusts_states=False)
    except StepFailed as failed:
        if not isinstance(failed.error, PlaceChanged):
            raise
        return look(trusts_states=False)


def _refused(path: bytes, error: OSError) -> OSError | CommandFailure:
    if isinstance(error, PermissionError):
        return PermissionError(errno.EACCES, error.strerror, os.fsdecode(path))
    where = os.fsdecode(path)
    message = (
        f"Install can't be planned, because {where} can't be compared: {error.strerror or error}. Nothing was changed."
        f" {remedy_for(where, error)}, and plan again."
    )
    return CommandFailure("install-failed", message)
