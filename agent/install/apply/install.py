"""One Install, all or nothing."""

from __future__ import annotations

import errno
import gc
import os
import secrets
import time
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from agent.deployments.group_files import GroupFiles
from agent.errors import CommandFailure, InstallNotCompleted
from agent.install.apply.application import Application
from agent.install.apply.disk_full import no_room_failure
from agent.install.apply.finishing import finish, forget
from agent.install.apply.publishing import (
    claim_paths,
    discard_records,
    publish_records,
    stage_cleanup,
    stage_instructions,
    stage_manifest,
)
from agent.install.apply.undo import undo, unmounted
from agent.install.compare.other_groups import InstallOverlap
from agent.install.compare.survey import Survey
from agent.install.journal.journal import (
    Journal,
    complete_journal,
    mark_committed,
    note_in_journal,
    state_of,
    state_of_records,
    write_journal,
)
from agent.install.model.failures import StepFailed
from agent.install.model.request import InstallSummary
from agent.install.plan.planner import PlanOvertaken, places_of, plan_install
from agent.install.posix.protection import protection_of, remedy_for
from agent.install.records.previous import installed_deployment
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.install.apply.finishing import Finish
    from agent.install.apply.publishing import StagedRecord
    from agent.install.model.request import InstallRequest, Observer

log = get_logger()

_UNDO_PAUSE_S = 0.5
_MOST_LISTED = 20
_OVERLAP_PAUSE_S = 0.05
_OVERTAKEN = frozenset({errno.EEXIST, errno.ENOENT, errno.EAGAIN, errno.ESTALE, errno.ENOTDIR, errno.ELOOP})


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
    with _no_collections():
        try:
            return _install_in_turn(files, request, observer)
        except (_Overtaken, PlanOvertaken) as overtaken:
            log.info("install_planned_again", reason=str(overtaken))
            try:
                return _install_in_turn(files, request, observer, trusts_states=False)
            except _Overtaken as again:
                raise again.failure from again


@contextmanager
def _no_collections() -> Iterator[None]:
    """Each would look at everything that is planned again, for cycles that there are not."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Overtaken(Exception):
    """Somebody has made, removed or changed something since it was planned; everything was put back."""

    def __init__(self, failure: CommandFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _install_in_turn(
    files: GroupFiles, request: InstallRequest, observer: Observer, *, trusts_states: bool = True
) -> InstallSummary:
    """One attempt, once no other group is installing something where this one is to be.

    Raises:
        _Overtaken, CommandFailure: as `_install`.
    """
    end = time.monotonic() + request.options.overlap_patience_s
    while True:
        try:
            return _install(files, request, observer, trusts_states=trusts_states)
        except InstallOverlap as overlap:
            log.info("other_install_awaited", group_id=overlap.group_id, path=os.fsdecode(overlap.path))
            while overlap.journal.exists():
                if time.monotonic() >= end:
                    raise
                time.sleep(_OVERLAP_PAUSE_S)


def _install(
    files: GroupFiles, request: InstallRequest, observer: Observer, *, trusts_states: bool = True
) -> InstallSummary:
    """One attempt.

    Raises:
        _Overtaken, PlanOvertaken: it may work when it is planned anew.
        CommandFailure: as `install`.
    """
    token = secrets.token_hex(6)
    with closing(Survey(request.options.processes)) as survey, closing(places_of(request)) as places:
        plan = plan_install(request, places, survey=survey, trusts_states=trusts_states)
        application = Application(
            plan,
            request,
            token.encode(),
            places=places,
            survey=survey,
            observer=observer,
            note=partial(note_in_journal, files.journal),
        )
        with closing(application):
            try:
                _carry_out(files, token, request, application, observer)
            except BaseException as error:
                # Before anything is put back, nobody may be changing anything any more.
                application.close()
                if files.committed_journal.exists():
                    raise _not_completed(files, error) from error
                swapped = _put_back(files, error, observer, request.options.undo_patience_s)
                if isinstance(error, (StepFailed, OSError)):
                    failure = _failure(application, error, str(files.directory), swapped)
                    # What could not be put back would be taken for somebody else's.
                    if isinstance(error, StepFailed) and error.error.errno in _OVERTAKEN and not swapped:
                        raise _Overtaken(failure) from error
                    raise failure from error
                raise
            finished = _complete(files, observer, application, durable=request.options.durable)
            return _summary(application, finished)


def recover_install(instructions_directory: Path, group_id: str, *, observer: Observer = _unobserved) -> bool:
    """Afterwards no interrupted Install of the group is left. True when one was undone.

    One that had succeeded, and was only interrupted while it removed old files, is completed, as
    far as the system lets us. The observer is told `published` once its records are in their places,
    while the journal is still there; what it raises leaves the rest to be completed by somebody else.

    Raises:
        CommandFailure: `install-undo-incomplete`, `install-not-completed`, `install-journal-unreadable`.
    """
    files = GroupFiles(directory=instructions_directory, group_id=group_id)
    if files.committed_journal.exists():
        _recover_committed(files, observer)
    if not files.journal.exists():
        return False
    journal = Journal(files.journal)
    if problem := _unmounted(journal, "undone"):
        raise CommandFailure("install-undo-incomplete", problem)
    if journal.is_whole and journal.records != state_of_records(files):
        _overtaken_by_another_agent(files, journal)
        return False
    _undo(files, journal, "", _unobserved)
    log.warning("install_undone_after_interruption", group_id=group_id)
    return True


def _recover_committed(files: GroupFiles, observer: Observer) -> None:
    journal = Journal(files.committed_journal)
    if problem := _unmounted(journal, "completed"):
        raise InstallNotCompleted(problem)
    staged_cleanup = files.staged(files.cleanup, journal.token.decode())
    if staged_cleanup.exists():
        is_overtaken = journal.records.partition(b",")[0] != state_of(files.cleanup)
    else:
        is_overtaken = not installed_deployment(files.directory, files.group_id)
    if is_overtaken:
        _overtaken_by_another_agent(files, journal)
        return
    _complete(files, observer)
    log.info("install_completed_after_interruption", group_id=files.group_id)


def _unmounted(journal: Journal, word: str) -> str:
    """Why the Install can't be undone or completed, as `word` has it; empty where all file systems are mounted."""
    missing = unmounted(journal)
    if not missing:
        return ""
    return (
        f"An Install of this group was interrupted, and can't be {word}, because no file system is mounted at"
        f" {', '.join(missing)}, where it has changed files. Mount it: the next command of this group, or the next start"
        f" of the agent, goes on. If it is gone for good, remove {journal.path}."
    )


def _overtaken_by_another_agent(files: GroupFiles, journal: Journal) -> None:
    """Another agent has installed something since: nothing of ours counts any more but what we have hidden.

    Raises:
        CommandFailure: `install-not-completed`.
    """
    stuck = forget(journal, _unobserved)
    try:
        discard_records(files, journal.token.decode())
        journal.path.unlink()
    except OSError as error:
        raise _not_completed(files, error) from error
    log.warning("interrupted_install_overtaken", group_id=files.group_id, left=stuck)


def _carry_out(
    files: GroupFiles, token: str, request: InstallRequest, application: Application, observer: Observer
) -> None:
    application.compare()
    files.directory.mkdir(parents=True, exist_ok=True)
    observer("journal", os.fsencode(files.journal))
    write_journal(files.journal, token.encode(), state_of_records(files), application.touched())
    durable = request.options.durable
    # Where everything is synced below, the records are, too.
    syncs = not (durable and application.has_changed(files.directory))
    plan = application.plan

    def write_instructions() -> StagedRecord:
        observer("lists", os.fsencode(files.instructions))
        return stage_instructions(files, token, request, plan, syncs=syncs)

    def write_cleanup() -> StagedRecord:
        observer("lists", os.fsencode(files.cleanup))
        return stage_cleanup(files, token, plan, syncs=syncs)

    instructions = application.stage(write_instructions)
    observer("switch", os.fsencode(files.journal))
    complete_journal(files.journal, application.changes())
    cleanup = application.switch(write_cleanup)
    observer("records", os.fsencode(files.manifest))
    stage_manifest(
        files, token, request, application, cleanup=cleanup, instructions=instructions, syncs=syncs
    )
    if durable:
        application.sync()
    observer("commit", os.fsencode(files.journal))
    mark_committed(files.journal, files.committed_journal)


def _complete(
    files: GroupFiles, observer: Observer, application: Application | None = None, *, durable: bool = True
) -> Finish:
    """Publish the records and remove the old files; after a crash, the next one does the same, from the journal alone.

    While some of them can't be removed, the journal stays, so that it is tried again.
    """
    journal = Journal(files.committed_journal)
    try:
        observer("publish", os.fsencode(files.manifest))
        publish_records(files, journal.token.decode())
        observer("published", os.fsencode(files.manifest))
        replaced = sync = None
        if application is not None:
            replaced, sync = application.forget(), application.sync
        finished = finish(journal, observer, replaced=replaced, sync=sync, durable=durable)
        if not finished.stuck:
            files.committed_journal.unlink()
    except OSError as error:
        raise _not_completed(files, error) from error
    for path in finished.kept:
        log.warning("changed_file_kept", path=os.fsdecode(path))
    return finished


def _not_completed(files: GroupFiles, error: BaseException) -> CommandFailure:
    where, why, remedy = str(files.directory), str(error), "Mend that"
    if isinstance(error, OSError):
        where, why = _named(error, files.directory), error.strerror or why
        remedy = f"{protection_of(where, error)}{remedy_for(where, error)}"
    message = (
        f"The last Install of this group has taken effect, but {where} can't be written: {why}. {remedy}; the next command of this"
        " group, or the next start of the agent, removes the old files."
    )
    return InstallNotCompleted(message)


def _give_up_stuck(files: GroupFiles) -> None:
    """What can't be removed counts as installed by this group: the next Install removes or replaces it, or says why not."""
    if not files.committed_journal.exists():
        return
    try:
        claim_paths(files, finish(Journal(files.committed_journal), _unobserved).stuck)
        files.committed_journal.unlink()
    except OSError as error:
        where = _named(error, files.directory)
        message = (
            f"The last Install of this group can't be completed, because {where} can't be written:"
            f" {error.strerror or error}. Nothing was changed. {protection_of(where, error)}"
            f"{remedy_for(where, error)}, and deploy again."
        )
        raise InstallNotCompleted(message) from error


def _named(error: OSError, otherwise: Path) -> str:
    return _filename(error) or str(otherwise)


def _filename(error: OSError) -> str:
    """What the error names; a call on a descriptor names a number, which tells nobody anything."""
    name = error.filename
    return os.fsdecode(name) if isinstance(name, str | bytes) else ""


def _put_back(files: GroupFiles, cause: BaseException, observer: Observer, patience_s: float) -> set[bytes]:
    """Undo; what the system refuses is tried again for so long, since only a short moment may be bad.

    Returns:
        Directories that are out of reach, as `Undone` has them.
    """
    end = time.monotonic() + patience_s
    while files.journal.exists():
        try:
            return _undo(files, Journal(files.journal), f"{cause}. ", observer)
        except CommandFailure:
            if time.monotonic() >= end:
                raise
        time.sleep(_UNDO_PAUSE_S)
    return set()


def _undo(files: GroupFiles, journal: Journal, cause: str, observer: Observer) -> set[bytes]:
    done = undo(journal, observer)
    if done.failures:
        message = (
            f"Install failed: {cause}Not everything could be put back: {'; '.join(done.failures[:20])}."
            " Fix what these messages say; the next command of this group, or the next start of the agent, tries again."
        )
        raise CommandFailure("install-undo-incomplete", message)
    try:
        discard_records(files, journal.token.decode())
        files.journal.unlink()
    except OSError as error:
        where = _named(error, files.directory)
        message = (
            f"Install failed: {cause}Everything was put back, but {where} can't be removed: {error.strerror or error}."
            f" {protection_of(where, error)}{remedy_for(where, error)}; the next command of this group, or the next start"
            " of the agent, tries again."
        )
        raise CommandFailure("install-undo-incomplete", message) from error
    return done.swapped


def _failure(
    application: Application, error: StepFailed | OSError, place: str, swapped: set[bytes]
) -> CommandFailure:
    reason = error.error if isinstance(error, StepFailed) else error
    path = os.fsdecode(error.path) if isinstance(error, StepFailed) else _filename(reason)
    if reason.errno in {errno.ENOSPC, errno.EDQUOT}:
        is_quota = reason.errno == errno.EDQUOT
        return no_room_failure(application.plan, path or place, application.findings, is_quota=is_quota)
    where = path or place
    put_back = "Everything was put back, so the previous revision is whole."
    if swapped:
        names = ", ".join(os.fsdecode(directory) for directory in sorted(swapped)[:_MOST_LISTED])
        put_back = (
            f"Not everything could be put back: in the place of {names}, something else has been put meanwhile, which was left"
            " alone; what was there is wherever it was moved to."
        )
    message = (
        f"Install failed at {where}: {reason.strerror or reason}. {protection_of(where, reason)}{put_back}"
        f" {remedy_for(where, reason)}, and deploy again."
    )
    return CommandFailure("install-failed", message)


def _summary(application: Application, finished: Finish) -> InstallSummary:
    plan = application.plan
    for path in plan.edited:
        log.warning("changed_file_kept", path=os.fsdecode(path))
    for path in application.overwritten():
        log.warning("changed_file_replaced", path=os.fsdecode(path))
    findings, repetition = application.findings, plan.repetition
    return InstallSummary(
        created=sum(item.created for item in findings),
        replaced=sum(item.replaced for item in findings),
        unchanged=sum(item.unchanged for item in findings) + (repetition.file_count if repetition else 0),
        retained=len(plan.foreign),
        removed=finished.removed,
        kept=tuple(os.fsdecode(path) for path in [*plan.edited, *finished.kept, *finished.stuck]),
        directories_created=application.directories_created,
        copied_bytes=sum(item.copied_bytes for item in findings),
    )
