"""What `agentctl status` prints for people."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.cli.liveness import Life, Vitality
from agent.cli.overview import RunState
from agent.deployments.judgement import DeploymentState, EventState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agent.cli.overview import Overview
    from agent.deployments import DaemonStatus, JobState
    from agent.deployments.judgement import Judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is to be said of a deployment as a whole."""

    state: DeploymentState
    message: str = ""
    error_id: str = ""


def outcome_of(judgement: Judgement, overview: Overview) -> Outcome:
    """The judgement in words; a local deployment that nobody carries on any more has failed."""
    last = judgement.last
    if judgement.deployment_id in overview.broken_off:
        message = (
            f"agentctl deploy has ended before {judgement.next_event}, and could not say why: it was killed, or the "
            "host went down. Run agentctl recover, and deploy again."
        )
        return Outcome(state=DeploymentState.FAILED, message=message, error_id="deployment-interrupted")
    if judgement.state is DeploymentState.SUPERSEDED:
        message = (
            f"It was not finished on this host: nothing came after {last.name}, and deployment "
            f"{judgement.superseded_by} of the same group has begun since."
        )
        return Outcome(state=judgement.state, message=message)
    return Outcome(state=judgement.state, message=last.message, error_id=last.error_id)


def status_text(overview: Overview, now: float) -> str:
    """All of the overview, one fact a line."""
    lines = [_first_line(overview, now)]
    lines += [f"  problem     {problem}" for problem in overview.problems]
    if overview.daemon is not None:
        lines += _daemon_lines(overview, overview.daemon, now)
    lines += ["", "Running now:", *_work_lines(overview, now)]
    if overview.count:
        lines += ["", "Last deployments:", *_history_lines(overview, now)]
    return "\n".join(lines)


def _history_lines(overview: Overview, now: float) -> Iterator[str]:
    if overview.deployments is None:
        yield "  not known"
    elif not overview.deployments:
        yield "  none"
    for judgement in overview.deployments or ():
        yield from _deployment_lines(judgement, overview, now)


def _first_line(overview: Overview, now: float) -> str:
    daemon, vitality = overview.daemon, overview.vitality
    if overview.run_state is RunState.UNKNOWN:
        holder = (
            f" An agent, pid {overview.holder}, holds the lock on its directory." if overview.holder else ""
        )
        return f"The agent's state is unknown.{holder}"
    if overview.run_state is RunState.RUNNING and daemon is not None:
        return f"The agent is running (pid {daemon.pid}, {daemon.state}) since {ago(daemon.started_at, now)}."
    if overview.run_state is RunState.FROZEN and daemon is not None and vitality is not None:
        return f"The agent does not work: {frozen(daemon, vitality)}"
    return f"The agent is not running; {_why_not_running(overview, now)}"


def _why_not_running(overview: Overview, now: float) -> str:
    daemon, refused = overview.daemon, overview.refused_start
    if refused is not None:
        return f"it refused to start, {ago(refused.at, now)}: {refused.message} [{refused.error_id}]"
    if daemon is None:
        return (
            "it has never run with this configuration." if not overview.problems else "nobody holds its lock."
        )
    if daemon.state == "stopped":
        return "it was stopped."
    return f"it died without saying why (it was pid {daemon.pid}, {daemon.state})."


def frozen(daemon: DaemonStatus, vitality: Vitality) -> str:
    """How the daemon's process is there without working, and what to do about it."""
    age = (
        ""
        if vitality.heartbeat_age_s is None
        else f", its last sign of life is {_age(vitality.heartbeat_age_s)} old"
    )
    process = f"its process, pid {daemon.pid}, is {vitality.process_state}{age}."
    if vitality.life is Life.STOPPED:
        return f"{process} `kill -CONT {daemon.pid}` lets it go on; its commands go on without it."
    return (
        f"{process} Restart it: systemctl restart codedeploy-agent, or `kill -KILL {daemon.pid}` and start it again; its "
        "commands go on without it."
    )


def _daemon_lines(overview: Overview, daemon: DaemonStatus, now: float) -> Iterator[str]:
    vitality = overview.vitality
    is_there = overview.run_state in {RunState.RUNNING, RunState.FROZEN}
    if overview.run_state is RunState.RUNNING and daemon.waits_for:
        yield f"  waits for   {_with_id(daemon.waits_for, daemon.waits_error_id)}"
        yield f"              since {ago(daemon.waits_since, now)}; next try in {max(0, round(daemon.next_try_at - now))} s"
    if overview.run_state is RunState.RUNNING and daemon.state == "draining":
        yield "  draining    it takes no commands until `agentctl drain --undo` or a reboot"
    if is_there and overview.refused_start is not None:
        refused = overview.refused_start
        yield f"  refused     a start, {ago(refused.at, now)}: {refused.message} [{refused.error_id}]"
    yield f"  version     {daemon.version}"
    yield f"  host        {daemon.host_identifier or 'not known yet'}"
    yield f"  endpoint    {daemon.endpoint or 'not known yet'}"
    yield f"  last poll   {_poll_line(daemon, now, is_there=overview.run_state is RunState.RUNNING)}"
    if is_there and vitality is not None:
        yield f"  heartbeat   {_heartbeat_line(vitality)}"


def _heartbeat_line(vitality: Vitality) -> str:
    if vitality.heartbeat_age_s is None:
        return f"none: this version does not give one (process {vitality.process_state})"
    age = f"{_age(vitality.heartbeat_age_s)} ago"
    if vitality.is_silent:
        return (
            f"{age}, but its process works: it can't write pid_dir. What is said of it here is as old as that"
        )
    return f"{age} (process {vitality.process_state})"


def _poll_line(daemon: DaemonStatus, now: float, *, is_there: bool) -> str:
    if not daemon.last_poll_at:
        return "never"
    when = ago(daemon.last_poll_at, now)
    if not daemon.failures:
        return f"{when}: {'a command' if daemon.last_poll_result == 'command' else 'no command'}"
    success = ago(daemon.last_success_at, now) if daemon.last_success_at else "never"
    again = f" Next try in {max(0, round(daemon.next_poll_at - now))} s." if is_there else ""
    reason = _with_id(daemon.last_poll_result, daemon.last_error_id)
    return f"{when}: FAILED ({daemon.failures} in a row, last success {success}). {reason}{again}"


def _with_id(reason: str, error_id: str) -> str:
    """The reason with what `agentctl explain` knows it by, if it has that."""
    return f"{reason} [{error_id}]" if error_id else reason


def _work_lines(overview: Overview, now: float) -> Iterator[str]:
    if overview.at_work is None:
        yield "  not known"
        return
    for state in overview.at_work:
        yield f"  {describe_work(state, now, overview.at_work)}"
    for state in overview.kept:
        status = state.result.status.value if state.result else ""
        yield f"  {state.command.name} of {_whose(state)} is over ({status}), but not reported, or not in the history yet"
    if not overview.at_work and not overview.kept:
        yield "  nothing"


def describe_work(state: JobState, now: float, at_work: Iterable[JobState] = ()) -> str:
    """A command at work: which, of what, for how long, how far, in which process.

    Args:
        state: of the command.
        now: seconds since the epoch.
        at_work: all commands at work, one of which it may have to wait for.
    """
    worker = f"worker {state.worker.pid}" if state.worker else "no worker yet"
    age = round(now - state.accepted_at)
    ahead = next((other for other in at_work if _takes_turn_before(other, state)), None)
    step = f"waits for {ahead.command.name} of {_whose(ahead)}" if ahead else state.step or "accepted"
    return f"{state.command.name} of {_whose(state)} for {age} s ({step}, {worker})"


def _takes_turn_before(other: JobState, state: JobState) -> bool:
    """Whether that one was accepted first and is of the same group, or may be: nobody knows before it has its specification."""
    if state.deployment is None or state.step != "specification" or other.accepted_at >= state.accepted_at:
        return False
    group_id = state.deployment.deployment_group_id
    return other.deployment is None or other.deployment.deployment_group_id == group_id


def _whose(state: JobState) -> str:
    return state.deployment.deployment_id if state.deployment else "deployment not known yet"


def _deployment_lines(judgement: Judgement, overview: Overview, now: float) -> Iterator[str]:
    facts, last = judgement.facts, judgement.last
    outcome = outcome_of(judgement, overview)
    place = f"{facts.application_name}/{facts.deployment_group_name}" if facts else "(nothing is known of it)"
    if facts and facts.creator == "codeDeployRollback":
        place += " (rollback)"
    when = ago(last.finished_at or last.accepted_at, now)
    line = f"  {judgement.deployment_id}  {outcome.state.value:<10}  {last.name:<16}  {place}  {when}"
    yield line
    for event in judgement.ignored:
        yield f"    {event.name} failed and was ignored: {event.message}"
    if outcome.state is DeploymentState.IN_PROGRESS:
        yield f"    {_progress(judgement, now)}"
    elif outcome.state is not DeploymentState.SUCCEEDED:
        yield f"    {outcome.message}"


def _progress(judgement: Judgement, now: float) -> str:
    last = judgement.last
    since = f"in progress since {ago(judgement.began_at, now)}"
    if last.state is EventState.IN_PROGRESS:
        return f"{since}: {last.name} is at work"
    if judgement.facts is not None and judgement.facts.planned_events is not None:
        # Nobody else would hold the group; a local event becomes known when it is over.
        return f"{since}: agentctl deploy is at {judgement.next_event}, for {_age(now - last.finished_at)}"
    return f"{since}: {judgement.next_event} has not come yet, nothing for {_age(now - last.finished_at)}"


def ago(moment: float, now: float) -> str:
    """A moment as UTC clock time, and how long ago that is."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment))
    return f"{when}Z ({_age(now - moment)} ago)"


def _age(seconds: float) -> str:
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole // 3600} h"
