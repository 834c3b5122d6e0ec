"""One Install, all or nothing."""

from __future__ import annotations

import errno
import os
import secrets
import time
from contextlib import closing
from typing import TYPE_CHECKING

from agent.deployments.group_files import GroupFiles
from agent.errors import CommandFailure
from agent.install.apply import Application, StepFailed
from agent.install.descriptors import Descriptors
from agent.install.instructions import discard_records, publish_records, stage_records
from agent.install.journal import Journal, mark_committed, mark_switching, write_journal
from agent.install.plan import plan_install
from agent.install.request import InstallSummary
from agent.install.room import no_room_failure
from agent.install.undo import finish, undo
from agent.logs import get_logger

if TYPE_CHECKING:
    from pathlib import Path

    from agent.install.apply import Observer
    from agent.install.plan import InstallPlan
    from agent.install.request import InstallRequest

log = get_logger()

_UNDO_PAUSE_S = 0.5


def _unobserved(_kind: str, _path: bytes) -> None:
    """Nobody watches."""


def install(request: InstallRequest, *, observer: Observer = _unobserved) -> InstallSummary:
    """Afterwards the revision is installed, or the host is as it was before.

    An earlier Install of the group that was interrupted is undone or completed first.

    Args:
        request: what to install.
        observer: told before each change; what it raises makes the Install fail at that point.

    Raises:
        CommandFailure: everything that `plan_install` raises; `install-failed`,
            `install-disk-full`; `install-undo-incomplete` when something could not be put back;
            `install-not-completed` when only old files are left to be removed.
    """
    files = GroupFiles(directory=request.instructions_directory, group_id=request.group_id)
    recover_install(request.instructions_directory, request.group_id)
    plan = plan_install(request)
    token = secrets.token_hex(6)
    with closing(Descriptors()) as descriptors:
        application = Application(plan, token.encode(), descriptors, observer)
        try:
            _carry_out(files, token, request, application, observer)
        except BaseException as error:
            _put_back(files, token, error, observer, request.options.undo_patience_s)
            if isinstance(error, (StepFailed, OSError)):
                raise _failure(plan, error, str(files.directory)) from error
            raise
    removed, kept = _complete(files, observer)
    return _summary(plan, application, removed, kept)


def recover_install(instructions_directory: Path, group_id: str) -> bool:
    """Afterwards no interrupted Install of the group is left. True when one was undone.

    One that had succeeded, and was only interrupted while it removed old files, is completed.

    Raises:
        CommandFailure: `install-undo-incomplete`, `install-not-completed`, `install-journal-unreadable`.
    """
    files = GroupFiles(directory=instructions_directory, group_id=group_id)
    if files.committed_journal.exists():
        _complete(files, _unobserved)
        log.info("install_completed_after_interruption", group_id=group_id)
    if not files.journal.exists():
        return False
    journal = Journal(files.journal)
    _undo(files, journal, "", _unobserved)
    log.warning("install_undone_after_interruption", group_id=group_id)
    return True


def _carry_out(
    files: GroupFiles, token: str, request: InstallRequest, application: Application, observer: Observer
) -> None:
    application.compare()
    files.directory.mkdir(parents=True, exist_ok=True)
    observer("journal", os.fsencode(files.journal))
    write_journal(files.journal, token.encode(), application.journal_entries())
    application.stage()
    observer("switch", os.fsencode(files.journal))
    mark_switching(files.journal)
    application.switch()
    observer("records", os.fsencode(files.manifest))
    stage_records(files, token, application.plan, application.records)
    if request.options.durable:
        application.sync()
    observer("commit", os.fsencode(files.journal))
    mark_committed(files.journal, files.committed_journal)


def _complete(files: GroupFiles, observer: Observer) -> tuple[int, list[str]]:
    """Publish the records and remove the old files; `recover_install` does the same after a crash."""
    journal = Journal(files.committed_journal)
    try:
        observer("publish", os.fsencode(files.manifest))
        publish_records(files, journal.token.decode())
        removed, kept = finish(journal, observer)
        files.committed_journal.unlink()
    except OSError as error:
        message = (
            f"The new revision is installed, but {error.filename or files.directory} can't be written:"
            f" {error.strerror or error}. Mend the cause; the next Install of this group, or the next start of the"
            " agent, removes the old files."
        )
        raise CommandFailure("install-not-completed", message) from error
    for path in kept:
        log.warning("changed_file_kept", path=path)
    return removed, kept


def _put_back(
    files: GroupFiles, token: str, cause: BaseException, observer: Observer, patience_s: float
) -> None:
    """Undo; what the system refuses is tried again for so long, since only a short moment may be bad."""
    end = time.monotonic() + patience_s
    while True:
        try:
            if files.journal.exists():
                _undo(files, Journal(files.journal), f"{cause}. ", observer)
            else:
                discard_records(files, token)
        except CommandFailure:
            if time.monotonic() >= end:
                raise
        else:
            return
        time.sleep(_UNDO_PAUSE_S)


def _undo(files: GroupFiles, journal: Journal, cause: str, observer: Observer) -> None:
    failures = undo(journal, observer)
    if failures:
        message = (
            f"Install failed: {cause}Not everything could be put back: {'; '.join(failures[:20])}."
            " Mend what these messages say; the next command of this group, or the next start of the agent, tries again."
        )
        raise CommandFailure("install-undo-incomplete", message)
    try:
        discard_records(files, journal.token.decode())
        files.journal.unlink()
    except OSError as error:
        message = (
            f"Install failed: {cause}Everything was put back, but {error.filename} can't be removed: {error.strerror}."
            " Mend the cause; the next command of this group, or the next start of the agent, tries again."
        )
        raise CommandFailure("install-undo-incomplete", message) from error


def _failure(plan: InstallPlan, error: StepFailed | OSError, place: str) -> CommandFailure:
    reason = error.error if isinstance(error, StepFailed) else error
    path = os.fsdecode(error.path) if isinstance(error, StepFailed) else str(reason.filename or "")
    if reason.errno in {errno.ENOSPC, errno.EDQUOT}:
        return no_room_failure(plan, path or place)
    where = f" at {path}" if path else ""
    message = (
        f"Install failed{where}: {reason.strerror or reason}. Everything was put back, so the previous revision is"
        " whole. Mend the cause and deploy again."
    )
    return CommandFailure("install-failed", message)


def _summary(plan: InstallPlan, application: Application, removed: int, kept: list[str]) -> InstallSummary:
    earlier = [os.fsdecode(path) for path in plan.kept]
    for path in earlier:
        log.warning("changed_file_kept", path=path)
    return InstallSummary(
        created=application.created,
        replaced=application.replaced,
        unchanged=application.unchanged,
        retained=len(plan.retained),
        removed=removed,
        kept=tuple(earlier + kept),
        directories_created=application.directories_created,
        copied_bytes=application.copied_bytes,
    )
