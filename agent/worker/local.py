"""Deployments on this host that nobody has sent: the runs of the service's commands, in the order that is asked for."""

from __future__ import annotations

import secrets
import string
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.deployments import History, HistoryEntry
from agent.deployments.group import check_group_id
from agent.errors import CommandFailure, IdentityError
from agent.files import is_directory
from agent.logs import get_logger
from agent.protocol import DOWNLOAD_BUNDLE, EARLY_EVENTS, IN_PLACE_ORDER, INSTALL, CommandStatus
from agent.worker.directories import keeping_in, working_on_group
from agent.worker.facts import facts_of
from agent.worker.local_checks import FetchedRevision, SureToFail, fetched_and_checked
from agent.worker.results import failed_result, succeeded_result
from agent.worker.runs import choose_run

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from agent.deployments import CommandResult
    from agent.install import BlockedInstall
    from agent.specification import DeploymentSpecification
    from agent.worker.context import HostContext

log = get_logger()

# What ignoreApplicationStopFailures of the service is about.
IGNORABLE = EARLY_EVENTS
_BEFORE_INSTALL = IN_PLACE_ORDER[: IN_PLACE_ORDER.index(INSTALL)]


class EventOrderError(ValueError):
    """Events can't be run in this order; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventOutcome:
    """How one event of a local deployment ended.

    Attributes:
        has_run: False where it was sure to fail, and so nothing was run at all.
        is_ignored: it failed, and the deployment goes on.
        blocked: everything in the way of an Install that was not run.
        failure: what it failed of; None for one that succeeded, or that was broken off.
    """

    event: str
    result: CommandResult
    duration_s: float
    has_run: bool = True
    is_ignored: bool = False
    blocked: BlockedInstall | None = None
    failure: CommandFailure | None = None

    @property
    def has_succeeded(self) -> bool:
        """Whether the next event may follow."""
        return self.result.status is CommandStatus.SUCCEEDED


def local_deployment_id() -> str:
    """A new id such as `d-8KD21MX0Q-local`; never one that the service makes."""
    alphabet = string.ascii_uppercase + string.digits
    return f"d-{''.join(secrets.choice(alphabet) for _ in range(9))}-local"


def plan_events(wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The events of a local deployment, in order.

    Args:
        wanted: as the user gives them; DownloadBundle and Install come first where they are left
            out. None = all of an in-place deployment.

    Raises:
        EventOrderError: an event of the new revision comes before that revision.
    """
    if wanted is None:
        return IN_PLACE_ORDER
    missing = [event for event in (DOWNLOAD_BUNDLE, INSTALL) if event not in wanted]
    events = (*missing, *wanted)
    if INSTALL in missing and DOWNLOAD_BUNDLE not in missing:
        at = events.index(DOWNLOAD_BUNDLE)
        events = (*events[1 : at + 1], INSTALL, *events[at + 1 :])
    for event, may_precede in ((DOWNLOAD_BUNDLE, EARLY_EVENTS), (INSTALL, _BEFORE_INSTALL)):
        wrong = [name for name in events[: events.index(event)] if name not in may_precede]
        if wrong:
            raise EventOrderError(
                f"{', '.join(wrong)} can't come before {event}; only {', '.join(may_precede)} can"
            )
    return events


def deploy_locally(
    specification: DeploymentSpecification,
    events: Sequence[str],
    host: HostContext,
    *,
    on_doubt: Callable[[str], None] = lambda _doubt: None,
    ignores_stop_failures: bool = False,
) -> Generator[EventOutcome, None, None]:
    """Run these events; yields the outcome of each, and stops after the first that fails.

    Whatever can be known to fail is found before the first of them, and then none is run. The caller closes the
    generator: the group is held, and what was fetched is kept, until then.

    Args:
        specification: of a revision.
        events: in order, as `plan_events` has them.
        host: this one.
        on_doubt: told before the first event what will fail unless scripts put it right.
        ignores_stop_failures: go on when ApplicationStop or an event before it fails, as the service
            does with ignoreApplicationStopFailures.

    Raises:
        CommandFailure: nothing could be started: the group has an impossible name or directory.
        KeyboardInterrupt, SystemExit: raised by a signal handler of the caller; the event that ran is
            broken off then, which the history says.
    """
    check_group_id(specification.deployment_group_id, tracking_name=host.settings.ongoing_deployment_tracking)
    deployment = _LocalDeployment(specification, events, host, ignores_stop_failures=ignores_stop_failures)
    with working_on_group(specification, host):
        try:
            with fetched_and_checked(specification, events, host) as revision:
                for doubt in revision.doubts:
                    on_doubt(doubt)
                yield from deployment.run(revision)
        except SureToFail as sure:
            yield deployment.refuse(sure)


class _LocalDeployment:
    """The events of one deployment, each of which becomes history."""

    def __init__(
        self,
        specification: DeploymentSpecification,
        events: Sequence[str],
        host: HostContext,
        *,
        ignores_stop_failures: bool,
    ) -> None:
        self._specification = specification
        self._events = events
        self._host = host
        self._ignored = frozenset(IGNORABLE if ignores_stop_failures else ())

    def refuse(self, sure: SureToFail) -> EventOutcome:
        """Nothing is run, and the history says why."""
        outcome = EventOutcome(
            event=sure.event,
            result=failed_result(sure.failure),
            duration_s=0.0,
            has_run=False,
            blocked=sure.blocked,
            failure=sure.failure,
        )
        self._remember(outcome, 0, time.time())
        return outcome

    def run(self, revision: FetchedRevision) -> Iterator[EventOutcome]:
        """Run them, up to the first that fails and is not ignored."""
        for number, event in enumerate(self._events):
            began, accepted_at = time.monotonic(), time.time()
            try:
                result, failure = self._run(event, revision), None
            except CommandFailure as error:
                result, failure = failed_result(error), error
            except IdentityError as error:
                failure = CommandFailure(error.error_id, error.message)
                result = failed_result(failure)
            except (KeyboardInterrupt, SystemExit):
                self._remember(_interrupted(event, began), number, accepted_at)
                raise
            outcome = EventOutcome(
                event=event, result=result, duration_s=time.monotonic() - began, failure=failure
            )
            outcome = replace(outcome, is_ignored=not outcome.has_succeeded and event in self._ignored)
            self._remember(outcome, number, accepted_at)
            yield outcome
            if not outcome.has_succeeded and not outcome.is_ignored:
                return

    def _run(self, event: str, revision: FetchedRevision) -> CommandResult:
        # Only once: a second DownloadBundle, if anybody wants one, fetches it again.
        if event == DOWNLOAD_BUNDLE and is_directory(revision.directory.archive):
            return revision.carry_out(self._specification, self._host)
        run = choose_run(event, self._specification, self._host)
        if run.is_noop:
            return succeeded_result()
        with keeping_in(self._host.root.path):
            return run.carry_out()

    def _remember(self, outcome: EventOutcome, number: int, accepted_at: float) -> None:
        deployment_id = self._specification.deployment_id
        history = History(self._host.settings.state_directory)
        entry = HistoryEntry(
            host_command_identifier=f"local/{deployment_id}/{number + 1}/{outcome.event}",
            command_name=outcome.event,
            accepted_at=accepted_at,
            finished_at=time.time(),
            result=outcome.result,
            deployment=facts_of(self._specification, planned_events=self._events),
        )
        try:
            history.path.parent.mkdir(parents=True, exist_ok=True)
            history.add(entry)
        except OSError as error:
            log.warning("history_not_written", error=str(error))


def _interrupted(event: str, began: float) -> EventOutcome:
    failure = CommandFailure(
        "deployment-interrupted",
        f"{event} was broken off: agentctl was told to end, by Ctrl-C, by a signal, or because its terminal has gone. "
        "A script that ran has been ended with all that it had started; an Install has been undone. Deploy again.",
    )
    return EventOutcome(event=event, result=failed_result(failure), duration_s=time.monotonic() - began)
