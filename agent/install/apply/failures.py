"""Failures of an Install and of its recovery, in words."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from agent.errors import CommandFailure, InstallNotCompleted
from agent.install.apply.disk_full import no_room_failure
from agent.install.model.failures import StepFailed
from agent.install.posix.protection import protection_of, remedy_for

if TYPE_CHECKING:
    from pathlib import Path

    from agent.deployments.group_files import GroupFiles
    from agent.install.apply.attempt import Attempt
    from agent.install.apply.undo import Undone

_MOST_LISTED = 20


def install_failed(attempt: Attempt, error: StepFailed | OSError, undone: Undone) -> CommandFailure:
    """An attempt has failed, and was undone, as far as others had not put something else there meanwhile."""
    reason = error.error if isinstance(error, StepFailed) else error
    path = os.fsdecode(error.path) if isinstance(error, StepFailed) else _filename(reason)
    where = path or str(attempt.group.directory)
    if reason.errno in {errno.ENOSPC, errno.EDQUOT}:
        is_quota = reason.errno == errno.EDQUOT
        return no_room_failure(attempt.plan, where, attempt.findings, is_quota=is_quota)
    message = (
        f"Install failed at {where}: {reason.strerror or reason}. {protection_of(where, reason)}{_put_back(undone)}"
        f" {remedy_for(where, reason)}, and deploy again."
    )
    return CommandFailure("install-failed", message)


def _put_back(undone: Undone) -> str:
    """How much of the previous revision is there again, as a sentence."""
    left = []
    if undone.swapped:
        left.append(
            f"in the place of {_listed(undone.swapped)}, something else has been put meanwhile, which was left alone; what was"
            " there is wherever it was moved to"
        )
    if undone.taken:
        left.append(
            f"what others have put at {_listed(undone.taken)} meanwhile was left alone (the log names the directories that are"
            " kept beside it)"
        )
    if left:
        return f"Not everything could be put back: {'; and '.join(left)}."
    return "Everything was put back, so the previous revision is whole."


def _listed(paths: set[bytes]) -> str:
    return ", ".join(os.fsdecode(path) for path in sorted(paths)[:_MOST_LISTED])


def undo_failed(cause: str, failures: list[str]) -> CommandFailure:
    """Not everything could be undone; `cause` says why it was to be, and ends with a blank unless it is empty."""
    message = (
        f"Install failed: {cause}Not everything could be put back: {'; '.join(failures[:_MOST_LISTED])}."
        " Fix what these messages say; the next command of this group, or the next start of the agent, tries again."
    )
    return CommandFailure("install-undo-incomplete", message)


def records_not_removed(group: GroupFiles, cause: str, error: OSError) -> CommandFailure:
    """Everything is undone, but the journal, or the new records beside their places, can't be removed."""
    where = _named(error, group.directory)
    message = (
        f"Install failed: {cause}Everything was put back, but {where} can't be removed: {error.strerror or error}."
        f" {protection_of(where, error)}{remedy_for(where, error)}; the next command of this group, or the next start"
        " of the agent, tries again."
    )
    return CommandFailure("install-undo-incomplete", message)


def not_mounted(missing: list[str], journal: Path, word: str) -> str:
    """Why an Install can't be undone or completed, as `word` has it, while no file systems are mounted there."""
    return (
        f"An Install of this group was interrupted, and can't be {word}, because no file system is mounted at"
        f" {', '.join(missing)}, where it has changed files. Mount it: the next command of this group, or the next start"
        f" of the agent, goes on. If it is gone for good, remove {journal}."
    )


def not_completed(group: GroupFiles, error: BaseException) -> InstallNotCompleted:
    """An Install is committed, but not everything that was left to do could be done."""
    where, why, remedy = str(group.directory), str(error), "Fix that"
    if isinstance(error, OSError):
        where, why = _named(error, group.directory), error.strerror or why
        remedy = f"{protection_of(where, error)}{remedy_for(where, error)}"
    message = (
        f"The last Install of this group has taken effect, but {where} can't be written: {why}. {remedy}; the next command of this"
        " group, or the next start of the agent, removes the old files."
    )
    return InstallNotCompleted(message)


def stuck_not_claimed(group: GroupFiles, error: OSError) -> InstallNotCompleted:
    """The paths that a committed Install could not remove can't be noted, either, so that the next one can't begin."""
    where = _named(error, group.directory)
    message = (
        f"The last Install of this group can't be completed, because {where} can't be written:"
        f" {error.strerror or error}. Nothing was changed. {protection_of(where, error)}"
        f"{remedy_for(where, error)}, and deploy again."
    )
    return InstallNotCompleted(message)


def _named(error: OSError, otherwise: Path) -> str:
    return _filename(error) or str(otherwise)


def _filename(error: OSError) -> str:
    """What the error names; a call on a descriptor names a number, which tells nobody anything."""
    name = error.filename
    return os.fsdecode(name) if isinstance(name, str | bytes) else ""
