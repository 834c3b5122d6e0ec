"""One Install, all or nothing."""

from __future__ import annotations

import errno
import gc
import os
import secrets
import time
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

from agent.deployments.group_files import GroupFiles
from agent.files import is_there
from agent.install.apply.attempt import Attempt
from agent.install.apply.ending import undo_patiently
from agent.install.apply.failures import install_failed, not_completed
from agent.install.apply.phases import compare
from agent.install.apply.recovery import claim_stuck, recover_install
from agent.install.compare.other_groups import InstallOverlap
from agent.install.compare.survey import Survey
from agent.install.model.failures import StepFailed
from agent.install.model.moments import unobserved
from agent.install.model.request import InstallSummary
from agent.install.plan.planner import ChangedWhilePlanned, places_of, plan_install
from agent.install.posix.open_directories import many_open
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.errors import CommandFailure
    from agent.install.apply.completion import Completion
    from agent.install.apply.phases import Committed
    from agent.install.model.moments import Observer
    from agent.install.model.request import InstallRequest

log = get_logger()

_OVERLAP_PAUSE_S = 0.05
_CHANGED = frozenset({errno.EEXIST, errno.ENOENT, errno.EAGAIN, errno.ESTALE, errno.ENOTDIR, errno.ELOOP})


def install(request: InstallRequest, *, observer: Observer = unobserved) -> InstallSummary:
    """Install the revision, or leave the host as it was before.

    An earlier Install of the group that was interrupted is undone or completed first.

    Args:
        request: what to install.
        observer: told before each change; what it raises makes the Install fail at that point.

    Raises:
        CommandFailure: everything that `plan_install` raises; `install-failed`,
            `install-disk-full`; `install-undo-incomplete` when something could not be restored;
            `install-not-completed` when only old files are left to be removed.
    """
    group = GroupFiles(directory=request.instructions_directory, group_id=request.group_id)
    recover_install(request.instructions_directory, request.group_id)
    claim_stuck(group)
    with _no_collections():
        try:
            return _install_in_turn(group, request, observer)
        except (_ChangedUnderneath, ChangedWhilePlanned) as changed:
            log.info("install_planned_again", reason=str(changed))
            try:
                return _install_in_turn(group, request, observer, trusts_states=False)
            except _ChangedUnderneath as again:
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


class _ChangedUnderneath(Exception):
    """Somebody has made, removed or changed something since it was planned; everything was undone."""

    def __init__(self, failure: CommandFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _install_in_turn(
    group: GroupFiles, request: InstallRequest, observer: Observer, *, trusts_states: bool = True
) -> InstallSummary:
    """One attempt, once no other group is installing something where this one is to be.

    Raises:
        _ChangedUnderneath, ChangedWhilePlanned, CommandFailure: as `_attempt`.
    """
    end = time.monotonic() + request.options.overlap_patience_s
    while True:
        try:
            return _attempt(group, request, observer, trusts_states=trusts_states)
        except InstallOverlap as overlap:
            log.info("other_install_awaited", group_id=overlap.group_id, path=os.fsdecode(overlap.path))
            while is_there(overlap.journal):
                if time.monotonic() >= end:
                    raise
                time.sleep(_OVERLAP_PAUSE_S)


def _attempt(
    group: GroupFiles, request: InstallRequest, observer: Observer, *, trusts_states: bool = True
) -> InstallSummary:
    """One attempt.

    Raises:
        _ChangedUnderneath, ChangedWhilePlanned: it may work when it is planned anew.
        CommandFailure: as `install`.
    """
    with ExitStack() as resources:
        survey = resources.enter_context(closing(Survey(request.options.processes)))
        most_open = resources.enter_context(many_open())
        places = resources.enter_context(closing(places_of(request, most_open)))
        plan = plan_install(request, places, survey=survey, trusts_states=trusts_states)
        attempt = Attempt(
            group=group,
            request=request,
            plan=plan,
            token=secrets.token_hex(6),
            places=places,
            observe=observer,
        )
        resources.enter_context(closing(attempt))
        try:
            committed = _carry_out(attempt, survey)
        except BaseException as error:
            # Before anything is restored, nobody may be changing anything any more.
            attempt.close()
            failure = _undone(attempt, error)
            if failure is error:
                raise
            raise failure from error
        return _summary(attempt, committed.complete())


def _carry_out(attempt: Attempt, survey: Survey) -> Committed:
    """Install, up to where there is no way back. Each phase goes with what only it needed: that is large."""
    return (
        compare(attempt, survey)  # what is there already is known, and nothing has changed
        .begin()  # the journal says which directories will change
        .stage()  # everything new waits under hidden names
        .switch()  # the journal says all; everything new has its place, and what it replaces a hidden name
        .record()  # the new records wait beside their places; everything is on the disk
        .commit()  # the Install counts
    )


def _undone(attempt: Attempt, error: BaseException) -> BaseException:
    """Undo an attempt that has failed with this; what is to be raised then."""
    group, observer = attempt.group, attempt.observe
    if is_there(group.committed_journal):
        return not_completed(group, error)
    patience_s = attempt.request.options.undo_patience_s
    undone = undo_patiently(group, observer, cause=f"{error}. ", patience_s=patience_s)
    if not isinstance(error, (StepFailed, OSError)):
        return error
    failure = install_failed(attempt, error, undone)
    # What could not be restored would be taken for somebody else's.
    if isinstance(error, StepFailed) and error.error.errno in _CHANGED and not undone.swapped:
        return _ChangedUnderneath(failure)
    return failure


def _summary(attempt: Attempt, completion: Completion) -> InstallSummary:
    plan, findings, repetition = attempt.plan, attempt.findings, attempt.plan.repetition
    for path in plan.edited:
        log.warning("changed_file_kept", path=os.fsdecode(path))
    for files, found in zip(attempt.files, findings, strict=True):
        for position in found.overwritten:
            path = files.prefix + files.names[position]
            log.warning("changed_file_replaced", path=os.fsdecode(path))
    return InstallSummary(
        created=sum(item.created for item in findings),
        replaced=sum(item.replaced for item in findings),
        unchanged=sum(item.unchanged for item in findings) + (repetition.file_count if repetition else 0),
        retained=len(plan.foreign),
        removed=completion.removed,
        left_behind=tuple(os.fsdecode(path) for path in [*plan.edited, *completion.kept, *completion.stuck]),
        directories_created=len(attempt.new_directories),
        copied_bytes=sum(item.copied_bytes for item in findings),
    )
