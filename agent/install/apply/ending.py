"""The two ends of an Install, with its journal and the group's records: it is undone, or it is completed."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.files import is_there
from agent.install.apply.completion import complete
from agent.install.apply.failures import not_completed, records_not_removed, undo_failed
from agent.install.apply.publishing import discard_records, publish_records
from agent.install.apply.undo import Undone, undo
from agent.install.journal.journal import Journal
from agent.install.model.moments import Moment
from agent.logs import get_logger

if TYPE_CHECKING:
    from agent.deployments.group_files import GroupFiles
    from agent.install.apply.completion import CarriedOut, Completion
    from agent.install.model.moments import Observer

log = get_logger()

_UNDO_PAUSE_S = 0.5


def undo_install(
    group: GroupFiles, observer: Observer, *, cause: str = "", taken: set[bytes] | None = None
) -> Undone:
    """Put everything back as it was before the Install that has left a journal, and remove the journal.

    Args:
        group: whose Install it is.
        observer: told before each change.
        cause: why that is done, for the message of a failure: a sentence and a blank.
        taken: gets what `Undone` has under that name, also when it fails; what is in it already is in the answer.

    Returns:
        What came of it, without failures.

    Raises:
        CommandFailure: `install-undo-incomplete`, `install-journal-unreadable`.
    """
    journal = Journal(group.journal)
    done = undo(journal, observer, set() if taken is None else taken)
    if done.failures:
        raise undo_failed(cause, done.failures)
    try:
        discard_records(group, journal.token.decode())
        group.journal.unlink()
    except OSError as error:
        raise records_not_removed(group, cause, error) from error
    return done


def undo_patiently(group: GroupFiles, observer: Observer, *, cause: str, patience_s: float) -> Undone:
    """Undo, if there is a journal; what the system refuses is tried again for so long: only a short moment may be bad.

    The other arguments, the answer and the errors are those of `undo_install`.
    """
    end, taken = time.monotonic() + patience_s, set[bytes]()
    while is_there(group.journal):
        try:
            return undo_install(group, observer, cause=cause, taken=taken)
        except CommandFailure:
            if time.monotonic() >= end:
                raise
        time.sleep(_UNDO_PAUSE_S)
    return Undone([], set(), taken)


def complete_install(
    group: GroupFiles, observer: Observer, carried_out: CarriedOut | None = None, *, durable: bool = True
) -> Completion:
    """Publish the records of a committed Install, and remove the old files; after a crash, the next one does so again.

    While some of them can't be removed, the journal stays, so that it is tried again.

    Args:
        group: whose Install it is.
        observer: told before each change.
        carried_out: the Install, if this process has carried it out; otherwise its journal tells all.
        durable: wait until what is removed is gone from the disk, too.

    Raises:
        CommandFailure: `install-not-completed`, `install-journal-unreadable`.
    """
    journal = Journal(group.committed_journal)
    try:
        observer(Moment.PUBLISH, os.fsencode(group.manifest))
        # I9: before anything goes that only the old ones tell of.
        publish_records(group, journal.token.decode())
        observer(Moment.PUBLISHED, os.fsencode(group.manifest))
        completion = complete(journal, observer, carried_out=carried_out, durable=durable)
        if not completion.stuck:
            group.committed_journal.unlink()
    except OSError as error:
        raise not_completed(group, error) from error
    for path in completion.kept:
        log.warning("changed_file_kept", path=os.fsdecode(path))
    return completion
