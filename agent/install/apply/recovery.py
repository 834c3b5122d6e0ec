"""Recovering a group: an Install of it that was interrupted is undone or completed, from its journal alone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.deployments.group_files import GroupFiles
from agent.errors import CommandFailure, InstallNotCompleted
from agent.files import is_there
from agent.install.apply.completion import complete, remove_hidden
from agent.install.apply.ending import complete_install, undo_install
from agent.install.apply.failures import not_completed, not_mounted, stuck_not_claimed
from agent.install.apply.publishing import claim_paths, discard_records
from agent.install.apply.undo import unmounted
from agent.install.journal.journal import Journal, state_of, state_of_records
from agent.install.model.moments import unobserved
from agent.install.records.previous import installed_deployment
from agent.logs import get_logger

if TYPE_CHECKING:
    from pathlib import Path

    from agent.install.model.moments import Observer

log = get_logger()


def recover_install(instructions_directory: Path, group_id: str, *, observer: Observer = unobserved) -> bool:
    """Undo or complete an interrupted Install of the group. True when one was undone.

    One that had succeeded, and was only interrupted while it removed old files, is completed, as
    far as the system lets us. The observer is told `published` once its records are in their places,
    while the journal is still there; what it raises leaves the rest to be completed by somebody else.

    Raises:
        CommandFailure: `install-undo-incomplete`, `install-not-completed`, `install-journal-unreadable`.
    """
    group = GroupFiles(directory=instructions_directory, group_id=group_id)
    if group.has_committed_journal:
        _recover_committed(group, observer)
    if not group.has_journal:
        return False
    journal = Journal(group.journal)
    if missing := unmounted(journal):
        raise CommandFailure("install-undo-incomplete", not_mounted(missing, journal.path, "undone"))
    if journal.is_whole and journal.records != state_of_records(group):
        _give_up_overtaken(group, journal)
        return False
    done = undo_install(group, unobserved)
    not_restored = [os.fsdecode(path) for path in sorted(done.swapped | done.taken)]
    log.warning("install_undone_after_interruption", group_id=group_id, not_restored=not_restored)
    return True


def claim_stuck(group: GroupFiles) -> None:
    """Complete a committed Install, and count what can't be removed as installed by this group.

    So the next Install removes or replaces them, or says why not.

    Raises:
        CommandFailure: `install-not-completed`; nothing was changed.
    """
    if not group.has_committed_journal:
        return
    try:
        claim_paths(group, complete(Journal(group.committed_journal), unobserved).stuck)
        group.committed_journal.unlink()
    except OSError as error:
        raise stuck_not_claimed(group, error) from error


def _recover_committed(group: GroupFiles, observer: Observer) -> None:
    journal = Journal(group.committed_journal)
    if missing := unmounted(journal):
        raise InstallNotCompleted(not_mounted(missing, journal.path, "completed"))
    staged_cleanup = group.staged(group.cleanup, journal.token.decode())
    if is_there(staged_cleanup):
        is_overtaken = journal.records.partition(b",")[0] != state_of(group.cleanup)
    else:
        is_overtaken = not installed_deployment(group.directory, group.group_id)
    if is_overtaken:
        _give_up_overtaken(group, journal)
        return
    complete_install(group, observer)
    log.info("install_completed_after_interruption", group_id=group.group_id)


def _give_up_overtaken(group: GroupFiles, journal: Journal) -> None:
    """Another agent has installed something since: nothing of ours counts any more but what we have hidden.

    Raises:
        CommandFailure: `install-not-completed`.
    """
    stuck = remove_hidden(journal, unobserved)
    try:
        discard_records(group, journal.token.decode())
        journal.path.unlink()
    except OSError as error:
        raise not_completed(group, error) from error
    log.warning("interrupted_install_overtaken", group_id=group.group_id, left=stuck)
