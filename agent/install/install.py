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
from agent.install.apply import Application
from agent.install.descriptors import Descriptors
from agent.install.instructions import claim_paths, discard_records, publish_records, stage_records
from agent.install.journal import Journal, complete_journal, mark_committed, write_journal
from agent.install.plan import plan_install
from agent.install.protection import protection_of
from agent.install.request import InstallSummary
from agent.install.room import no_room_failure
from agent.install.staging import StepFailed
from agent.install.undo import finish, undo
from agent.logs import get_logger

if TYPE_CHECKING:
    from pathlib import Path

    from agent.install.plan import InstallPlan
    from agent.install.request import InstallRequest, Observer
    from agent.install.undo import Finish

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
    _give_up_stuck(files)
    plan = plan_install(request)
    token = secrets.token_hex(6)
    with closing(Descriptors()) as descriptors:
        application = Application(plan, request, token.encode(), descriptors, observer)
        try:
            _carry_out(files, token, request, application, observer)
        except BaseException as error:
            _put_back(files, error, observer, request.options.undo_patience_s)
            if isinstance(error, (StepFailed, OSError)):
                raise _failure(plan, error, str(files.directory)) from error
            raise
    return _summary(plan, application, _complete(files, observer, request.options.processes))


def recover_install(instructions_directory: Path, group_id: str) -> bool:
    """Afterwards no interrupted Install of the group is left. True when one was undone.

    One that had succeeded, and was only interrupted while it removed old files, is completed, as
    far as the system lets us.

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
    write_journal(files.journal, token.encode(), application.touched())
    application.stage()
    observer("switch", os.fsencode(files.journal))
    complete_journal(files.journal, application.changes())
    application.switch()
    observer("records", os.fsencode(files.manifest))
    stage_records(files, token, application.plan, application.staged, request.deployment_id)
    if request.options.durable:
        application.sync()
    observer("commit", os.fsencode(files.journal))
    mark_committed(files.journal, files.committed_journal)


def _complete(files: GroupFiles, observer: Observer, processes: int = 1) -> Finish:
    """Publish the records and remove the old files; after a crash, the next one does the same.

    While some of them can't be removed, the journal stays, so that it is tried again.
    """
    journal = Journal(files.committed_journal)
    try:
        observer("publish", os.fsencode(files.manifest))
        publish_records(files, journal.token.decode())
        finished = finish(journal, observer, processes=processes)
        if not finished.stuck:
            files.committed_journal.unlink()
    except OSError as error:
        message = (
            f"The new revision is installed, but {_named(error, files.directory)} can't be written:"
            f" {error.strerror or error}. Mend the cause; the next command of this group, or the next start of the"
            " agent, removes the old files."
        )
        raise CommandFailure("install-not-completed", message) from error
    for path in finished.kept:
        log.warning("changed_file_kept", path=os.fsdecode(path))
    return finished


def _give_up_stuck(files: GroupFiles) -> None:
    """What can't be removed counts as installed by this group: the next Install removes or replaces it, or says why not."""
    if not files.committed_journal.exists():
        return
    try:
        claim_paths(files, finish(Journal(files.committed_journal), _unobserved).stuck)
        files.committed_journal.unlink()
    except OSError as error:
        message = (
            f"The last Install of this group can't be completed, because {_named(error, files.directory)} can't be"
            f" written: {error.strerror or error}. Nothing was changed. Mend the cause and deploy again."
        )
        raise CommandFailure("install-not-completed", message) from error


def _named(error: OSError, otherwise: Path) -> str:
    return os.fsdecode(error.filename) if error.filename else str(otherwise)


def _put_back(files: GroupFiles, cause: BaseException, observer: Observer, patience_s: float) -> None:
    """Undo; what the system refuses is tried again for so long, since only a short moment may be bad."""
    end = time.monotonic() + patience_s
    while files.journal.exists():
        try:
            _undo(files, Journal(files.journal), f"{cause}. ", observer)
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
            f"Install failed: {cause}Everything was put back, but {_named(error, files.directory)} can't be removed:"
            f" {error.strerror or error}."
            " Mend the cause; the next command of this group, or the next start of the agent, tries again."
        )
        raise CommandFailure("install-undo-incomplete", message) from error


def _failure(plan: InstallPlan, error: StepFailed | OSError, place: str) -> CommandFailure:
    reason = error.error if isinstance(error, StepFailed) else error
    path = os.fsdecode(error.path if isinstance(error, StepFailed) else reason.filename or b"")
    if reason.errno in {errno.ENOSPC, errno.EDQUOT}:
        return no_room_failure(plan, path or place)
    where = f" at {path}" if path else ""
    message = (
        f"Install failed{where}: {reason.strerror or reason}. {protection_of(path, reason)}Everything was put back,"
        " so the previous revision is whole. Mend the cause and deploy again."
    )
    return CommandFailure("install-failed", message)


def _summary(plan: InstallPlan, application: Application, finished: Finish) -> InstallSummary:
    for path in plan.kept:
        log.warning("changed_file_kept", path=os.fsdecode(path))
    staged = application.staged
    return InstallSummary(
        created=sum(item.created for item in staged),
        replaced=sum(item.replaced for item in staged),
        unchanged=sum(item.unchanged for item in staged),
        retained=len(plan.retained),
        removed=finished.removed,
        kept=tuple(os.fsdecode(path) for path in [*plan.kept, *finished.kept, *finished.stuck]),
        directories_created=application.directories_created,
        copied_bytes=sum(item.copied_bytes for item in staged),
    )
