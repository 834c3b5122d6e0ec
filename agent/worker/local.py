"""Deployments on this host that nobody has sent: the same runs, in the order that is asked for."""

from __future__ import annotations

import secrets
import string
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.deployments import DeploymentFacts, History, HistoryEntry
from agent.deployments.group import check_group_id
from agent.errors import CommandFailure, IdentityError
from agent.logs import get_logger
from agent.protocol import DOWNLOAD_BUNDLE, IN_PLACE_ORDER, INSTALL, CommandStatus
from agent.worker.directories import keeping_in, working_on_group
from agent.worker.results import failed_result, succeeded_result
from agent.worker.runs import choose_run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agent.deployments import CommandResult
    from agent.specification import DeploymentSpecification
    from agent.worker.context import HostContext

log = get_logger()

_BEFORE_DOWNLOAD = IN_PLACE_ORDER[: IN_PLACE_ORDER.index(DOWNLOAD_BUNDLE)]
_BEFORE_INSTALL = IN_PLACE_ORDER[: IN_PLACE_ORDER.index(INSTALL)]


class EventOrderError(ValueError):
    """Events can't be run in this order; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventOutcome:
    """How one event of a local deployment ended."""

    event: str
    result: CommandResult
    duration_s: float

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
    for event, may_precede in ((DOWNLOAD_BUNDLE, _BEFORE_DOWNLOAD), (INSTALL, _BEFORE_INSTALL)):
        wrong = [name for name in events[: events.index(event)] if name not in may_precede]
        if wrong:
            raise EventOrderError(
                f"{', '.join(wrong)} can't come before {event}; only {', '.join(may_precede)} can"
            )
    return events


def deploy_locally(
    specification: DeploymentSpecification, events: Sequence[str], host: HostContext
) -> Iterator[EventOutcome]:
    """Run these events; yields the outcome of each, and stops after the first that fails.

    Raises:
        CommandFailure: nothing could be started: the group has an impossible name or directory.
        KeyboardInterrupt, SystemExit: raised by a signal handler of the caller; the event that ran is
            broken off then, which the history says.
    """
    check_group_id(specification.deployment_group_id, tracking_name=host.settings.ongoing_deployment_tracking)
    with working_on_group(specification, host):
        yield from _run_events(specification, events, host)


def _run_events(
    specification: DeploymentSpecification, events: Sequence[str], host: HostContext
) -> Iterator[EventOutcome]:
    for event in events:
        began, accepted_at = time.monotonic(), time.time()
        try:
            result = _run(event, specification, host)
        except (KeyboardInterrupt, SystemExit):
            _remember(_interrupted(event, began), specification, host, accepted_at)
            raise
        outcome = EventOutcome(event=event, result=result, duration_s=time.monotonic() - began)
        _remember(outcome, specification, host, accepted_at)
        yield outcome
        if not outcome.has_succeeded:
            return


def _interrupted(event: str, began: float) -> EventOutcome:
    failure = CommandFailure(
        "deployment-interrupted",
        f"{event} was broken off: agentctl was told to end, by Ctrl-C, by a signal, or because its terminal has gone. "
        "A script that ran has been ended with all that it had started; an Install has been undone. Deploy again.",
    )
    return EventOutcome(event=event, result=failed_result(failure), duration_s=time.monotonic() - began)


def _run(event: str, specification: DeploymentSpecification, host: HostContext) -> CommandResult:
    try:
        run = choose_run(event, specification, host)
        if run.is_noop:
            return succeeded_result()
        with keeping_in(host.root.path):
            return run.carry_out()
    except CommandFailure as failure:
        return failed_result(failure)
    except IdentityError as error:
        return failed_result(CommandFailure(error.error_id, error.message))


def _remember(
    outcome: EventOutcome, specification: DeploymentSpecification, host: HostContext, accepted_at: float
) -> None:
    history = History(host.settings.state_directory)
    facts = DeploymentFacts(
        deployment_id=specification.deployment_id,
        deployment_group_id=specification.deployment_group_id,
        deployment_group_name=specification.deployment_group_name,
        application_name=specification.application_name,
    )
    entry = HistoryEntry(
        host_command_identifier=f"local/{specification.deployment_id}/{outcome.event}",
        command_name=outcome.event,
        accepted_at=accepted_at,
        finished_at=time.time(),
        result=outcome.result,
        deployment=facts,
    )
    try:
        history.path.parent.mkdir(parents=True, exist_ok=True)
        history.add(entry)
    except OSError as error:
        log.warning("history_not_written", error=str(error))
