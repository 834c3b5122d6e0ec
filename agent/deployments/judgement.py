"""What came of a deployment on this host, judged from all of its events.

The service never tells a host that a deployment is over, or that it goes on although an event has
failed. So the last event alone says little: one that succeeded may not be the last one to come, and
one that failed may have been ignored. What is known is what was delivered, in which order, and what
the specification says of the deployment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from agent.protocol import DOWNLOAD_BUNDLE, IN_PLACE_ORDER, INSTALL, UPDATE_DEPLOYMENT_AGENT, CommandStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent.deployments.history import HistoryEntry
    from agent.deployments.job_state import DeploymentFacts, JobState

_BLOCK = frozenset({"BeforeBlockTraffic", "AfterBlockTraffic"})
_ALLOW = frozenset({"BeforeAllowTraffic", "AfterAllowTraffic"})
_LAST_WITHOUT_TRAFFIC, _LAST_OF_ALL, _LAST_OF_BLOCK = (
    "ValidateService",
    "AfterAllowTraffic",
    "AfterBlockTraffic",
)


class EventState(Enum):
    """What came of one event. The values are part of the output of `agentctl status`."""

    IN_PROGRESS = "InProgress"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    FAILED_AND_IGNORED = "FailedAndIgnored"
    """It failed, and the deployment went on: later events of it have come."""


class DeploymentState(Enum):
    """What came of a deployment on this host. The values are part of the output of `agentctl status`."""

    IN_PROGRESS = "InProgress"
    """Its last event has not come yet, or is at work."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SUPERSEDED = "Superseded"
    """Its last event never came, and a later deployment of its group has begun since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event of a deployment. Times are seconds since the epoch; `finished_at` is 0 while it is at work."""

    name: str
    state: EventState
    accepted_at: float
    finished_at: float
    host_command_identifier: str
    message: str = ""
    error_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A deployment as this host knows it.

    Attributes:
        deployment_id: where the specification could not be had, what the command said it was part of.
        facts: None where the specification could not be had.
        events: in the order in which they were accepted; never empty.
        next_event: that is expected after those; empty when none is, or nobody knows.
        superseded_by: id of the deployment that came instead of its later events; else empty.
    """

    deployment_id: str
    facts: DeploymentFacts | None
    state: DeploymentState
    events: tuple[Event, ...]
    next_event: str = ""
    superseded_by: str = ""

    @property
    def began_at(self) -> float:
        """When its first event was accepted."""
        return self.events[0].accepted_at

    @property
    def last(self) -> Event:
        """The event that was accepted last."""
        return self.events[-1]

    @property
    def ignored(self) -> tuple[Event, ...]:
        """The events that failed without ending the deployment."""
        return tuple(event for event in self.events if event.state is EventState.FAILED_AND_IGNORED)


def judge(entries: Iterable[HistoryEntry], at_work: Iterable[JobState]) -> list[Judgement]:
    """What came of each deployment, the one whose last event is the newest first.

    Args:
        entries: commands that are over; of one that was reported again, the oldest entry counts.
        at_work: records of commands that are not history yet.
    """
    commands = _in_order(entries, at_work)
    by_execution = {item.execution: item.facts for item in commands if item.facts and item.execution}
    grouped: dict[tuple[str, str], list[_Command]] = {}
    for item in commands:
        facts = item.facts or by_execution.get(item.execution)
        grouped.setdefault(_key(facts, item), []).append(replace(item, facts=facts))
    judged = [_judge_one(members) for members in grouped.values()]
    judged.sort(key=lambda judgement: judgement.last.accepted_at, reverse=True)
    return [_superseded(judgement, judged) for judgement in judged]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Command:
    event: Event
    facts: DeploymentFacts | None
    execution: str


def _in_order(entries: Iterable[HistoryEntry], at_work: Iterable[JobState]) -> list[_Command]:
    commands: dict[str, _Command] = {}
    for item in [*map(_finished, entries), *map(_recorded, at_work)]:
        identifier = item.event.host_command_identifier
        known = commands.get(identifier)
        if known is None or item.event.accepted_at < known.event.accepted_at:
            commands[identifier] = item
    return sorted(commands.values(), key=lambda item: item.event.accepted_at)


def _finished(entry: HistoryEntry) -> _Command:
    has_failed = entry.result.status is not CommandStatus.SUCCEEDED
    event = Event(
        name=entry.command_name,
        state=EventState.FAILED if has_failed else EventState.SUCCEEDED,
        accepted_at=entry.accepted_at,
        finished_at=entry.finished_at,
        host_command_identifier=entry.host_command_identifier,
        message=entry.result.message,
        error_id=entry.result.error_id,
    )
    return _Command(event=event, facts=entry.deployment, execution=entry.deployment_execution_id)


def _recorded(state: JobState) -> _Command:
    result = state.result
    if result is None:
        outcome = EventState.IN_PROGRESS
    elif result.status is CommandStatus.SUCCEEDED:
        outcome = EventState.SUCCEEDED
    else:
        outcome = EventState.FAILED
    event = Event(
        name=state.command.name,
        state=outcome,
        accepted_at=state.accepted_at,
        finished_at=state.finished_at,
        host_command_identifier=state.command.identifier,
        message=result.message if result else "",
        error_id=result.error_id if result else "",
    )
    return _Command(event=event, facts=state.deployment, execution=state.command.deployment_execution_id)


def _key(facts: DeploymentFacts | None, item: _Command) -> tuple[str, str]:
    if facts is not None:
        return facts.deployment_group_id, facts.deployment_id
    return "", item.execution or item.event.host_command_identifier


def _judge_one(commands: Sequence[_Command]) -> Judgement:
    # Whoever has failed before others came was ignored: nothing is delivered after the failure that counts.
    events = tuple(
        replace(item.event, state=EventState.FAILED_AND_IGNORED)
        if item.event.state is EventState.FAILED and item is not commands[-1]
        else item.event
        for item in commands
    )
    last, facts = events[-1], commands[-1].facts
    judgement = Judgement(
        deployment_id=facts.deployment_id
        if facts
        else commands[-1].execution or last.host_command_identifier,
        facts=facts,
        state=DeploymentState.IN_PROGRESS,
        events=events,
    )
    if last.state is EventState.FAILED:
        return replace(judgement, state=DeploymentState.FAILED)
    if last.state is EventState.IN_PROGRESS:
        return judgement
    names = [event.name for event in events]
    coming = _events_to_come(names, facts)
    if not coming:
        return replace(judgement, state=DeploymentState.SUCCEEDED)
    return replace(judgement, next_event=coming[0])


def _superseded(judgement: Judgement, judged: Sequence[Judgement]) -> Judgement:
    """The judgement; superseded where another deployment of the group has begun since."""
    if judgement.state is not DeploymentState.IN_PROGRESS or judgement.last.state is EventState.IN_PROGRESS:
        return judgement
    facts, last = judgement.facts, judgement.last
    later = [
        other
        for other in judged
        if facts is not None
        and other.facts is not None
        and other.facts.deployment_group_id == facts.deployment_group_id
        and other.began_at > last.accepted_at
    ]
    if not later:
        return judgement
    successor = min(later, key=lambda other: other.began_at)
    return replace(
        judgement, state=DeploymentState.SUPERSEDED, superseded_by=successor.deployment_id, next_event=""
    )


def _events_to_come(seen: Sequence[str], facts: DeploymentFacts | None) -> list[str]:
    """The events of this deployment that are still expected, all that were delivered having succeeded."""
    if set(seen) == {UPDATE_DEPLOYMENT_AGENT}:
        return []
    if facts is not None and facts.planned_events is not None:
        return list(facts.planned_events[len(seen) :])
    order = _expected_order(frozenset(seen), facts)
    known = [order.index(name) for name in seen if name in order]
    coming = list(order[max(known, default=-1) + 1 :])
    # Nobody knows when events of an endpoint's own come, only that they do.
    possible = (facts.possible_events if facts else None) or ()
    return coming + [name for name in possible if name not in seen and name not in IN_PLACE_ORDER]


def _expected_order(seen: frozenset[str], facts: DeploymentFacts | None) -> tuple[str, ...]:
    """The events of a deployment of this kind, up to its last one.

    Traffic events are sent only with a load balancer, which is known from those that have come: an
    in-place deployment begins and ends with them. A blue/green deployment ends with them on the hosts
    that it installs on; on those that it takes traffic from, they are all that there is.
    """
    is_blue_green = facts is not None and facts.deployment_type == "BLUE_GREEN"
    if is_blue_green and seen <= _BLOCK:
        last = _LAST_OF_BLOCK
    elif is_blue_green or seen & (_BLOCK | _ALLOW):
        last = _LAST_OF_ALL
    else:
        last = _LAST_WITHOUT_TRAFFIC
    order = IN_PLACE_ORDER[: IN_PLACE_ORDER.index(last) + 1]
    possible = facts.possible_events if facts else None
    if possible is None or not seen <= {*possible, DOWNLOAD_BUNDLE, INSTALL}:
        return order
    return tuple(name for name in order if name in {*possible, DOWNLOAD_BUNDLE, INSTALL})
