"""`agentctl status`: what the agent does, and what it did last."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from enum import IntEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.host import settings_of
from agent.deployments import DaemonStatus, History, HistoryEntry, JobState, JobStore, StatusFile
from agent.errors import ConfigurationError
from agent.processes import start_ticks
from agent.settings import DEFAULT_CONFIGURATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.settings import Settings


class RunState(IntEnum):
    """Is it running? The values are the exit codes that the LSB gives to `status`."""

    RUNNING = 0
    NOT_RUNNING = 3
    UNKNOWN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSummary:
    """What came of one deployment on this host, from the commands that are known of it."""

    deployment_id: str
    application_name: str
    deployment_group_name: str
    status: str
    last_event: str
    finished_at: float
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """All that `agentctl status` tells."""

    run_state: RunState
    problem: str
    daemon: DaemonStatus | None
    running: tuple[JobState, ...]
    deployments: tuple[DeploymentSummary, ...]


@click.command("status")
@click.option(
    "-c",
    "--config-file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DEFAULT_CONFIGURATION,
    show_default=True,
    help="Configuration of the agent that is asked about.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--last", "count", type=click.IntRange(0, 100), default=5, show_default=True, help="How many deployments."
)
def command(config_file: Path, *, as_json: bool, count: int) -> None:
    """Say whether the agent runs, how its last poll went, what it does now, and what came of the last deployments.

    Works without root where the agent's state can be read, and when the agent is dead.

    Exit codes: 0 it runs, 3 it does not run, 4 nobody knows (its state or configuration can't be read).

    \b
    Examples:
      agentctl status
      agentctl status --json --last 20
    """  # noqa: D301 - click takes \b for: keep these lines
    try:
        overview = look(settings_of(config_file), count)
    except ConfigurationError as error:
        click.echo(f"agentctl: {error.message}", err=True)
        sys.exit(int(RunState.UNKNOWN))
    click.echo(json.dumps(_as_json(overview), indent=2) if as_json else _as_text(overview, time.time()))
    sys.exit(int(overview.run_state))


def look(settings: Settings, count: int) -> Overview:
    """The state of the agent with these settings, from what lies on disk."""
    state = settings.state_directory
    try:
        daemon = StatusFile(state).read()
        running = tuple(_running(JobStore(state)))
        deployments = tuple(summarise(History(state).newest_first(), count))
    except PermissionError as error:
        problem = f"{error.filename} can't be read as this user; try again with sudo"
        return Overview(run_state=RunState.UNKNOWN, problem=problem, daemon=None, running=(), deployments=())
    except OSError as error:
        problem = f"{error.filename or state} can't be read: {error.strerror or error}"
        return Overview(run_state=RunState.UNKNOWN, problem=problem, daemon=None, running=(), deployments=())
    is_running = (
        daemon is not None and daemon.state != "stopped" and start_ticks(daemon.pid) == daemon.start_ticks
    )
    run_state = RunState.RUNNING if is_running else RunState.NOT_RUNNING
    return Overview(run_state=run_state, problem="", daemon=daemon, running=running, deployments=deployments)


def summarise(entries: Sequence[HistoryEntry] | Any, count: int) -> list[DeploymentSummary]:
    """The newest deployments, newest first, each with its last command, or with the one that failed."""
    found: dict[str, HistoryEntry] = {}
    for entry in entries:
        if entry.deployment is None:
            continue
        known = found.get(entry.deployment.deployment_id)
        if known is None and len(found) == count:
            break
        if known is None or (entry.result.error_code and not known.result.error_code):
            found[entry.deployment.deployment_id] = entry
    return [_summary(entry) for entry in islice(found.values(), count)]


def _summary(entry: HistoryEntry) -> DeploymentSummary:
    assert entry.deployment is not None  # noqa: S101 - summarise has looked
    return DeploymentSummary(
        deployment_id=entry.deployment.deployment_id,
        application_name=entry.deployment.application_name,
        deployment_group_name=entry.deployment.deployment_group_name,
        status=entry.result.status.value,
        last_event=entry.command_name,
        finished_at=entry.finished_at,
        message=entry.result.message,
    )


def _running(store: JobStore) -> list[JobState]:
    states = [job.read() for job in store.undelivered()]
    return [state for state in states if state is not None]


def _as_json(overview: Overview) -> dict[str, Any]:
    return {
        "running": overview.run_state is RunState.RUNNING,
        "state": overview.run_state.name.lower(),
        "problem": overview.problem or None,
        "daemon": asdict(overview.daemon) if overview.daemon else None,
        "commands": [_job_as_json(state) for state in overview.running],
        "deployments": [asdict(deployment) for deployment in overview.deployments],
    }


def _job_as_json(state: JobState) -> dict[str, Any]:
    return {
        "host_command_identifier": state.command.identifier,
        "command": state.command.name,
        "accepted_at": state.accepted_at,
        "step": state.step,
        "step_at": state.step_at,
        "worker_pid": state.worker.pid if state.worker else None,
        "deployment": asdict(state.deployment) if state.deployment else None,
    }


def _as_text(overview: Overview, now: float) -> str:
    lines = [_first_line(overview, now)]
    daemon = overview.daemon
    if daemon is not None:
        lines.append(f"  version     {daemon.version}")
        lines.append(f"  host        {daemon.host_identifier}")
        lines.append(f"  endpoint    {daemon.endpoint}")
        lines.append(f"  last poll   {_poll_line(daemon, now)}")
    lines += ["", "Running now:"]
    lines += [_job_line(state, now) for state in overview.running] or ["  nothing"]
    lines += ["", "Last deployments:"]
    for deployment in overview.deployments:
        lines += _deployment_lines(deployment, now)
    if not overview.deployments:
        lines.append("  none")
    return "\n".join(lines)


def _first_line(overview: Overview, now: float) -> str:
    daemon = overview.daemon
    if overview.run_state is RunState.UNKNOWN:
        return f"The agent's state is unknown: {overview.problem}."
    if overview.run_state is RunState.RUNNING and daemon is not None:
        return (
            f"The agent is running (pid {daemon.pid}, {daemon.state}) since {_ago(daemon.started_at, now)}."
        )
    if daemon is None:
        return "The agent is not running; it has never run with this configuration."
    if daemon.state == "stopped":
        return "The agent is not running; it was stopped."
    return f"The agent is not running; it died without saying why (it was pid {daemon.pid}, {daemon.state})."


def _poll_line(daemon: DaemonStatus, now: float) -> str:
    if not daemon.last_poll_at:
        return "never"
    when = _ago(daemon.last_poll_at, now)
    if not daemon.failures:
        return f"{when}: {'a command' if daemon.last_poll_result == 'command' else 'no command'}"
    success = _ago(daemon.last_success_at, now) if daemon.last_success_at else "never"
    return (
        f"{when}: FAILED ({daemon.failures} in a row, last success {success}). "
        f"{daemon.last_poll_result} Next try in {max(0, round(daemon.next_poll_at - now))} s."
    )


def _job_line(state: JobState, now: float) -> str:
    whose = state.deployment.deployment_id if state.deployment else "deployment not known yet"
    worker = f"worker {state.worker.pid}" if state.worker else "no worker yet"
    return (
        f"  {state.command.name} of {whose} for {round(now - state.accepted_at)} s ({state.step}, {worker})"
    )


def _deployment_lines(deployment: DeploymentSummary, now: float) -> list[str]:
    place = f"{deployment.application_name}/{deployment.deployment_group_name}"
    line = f"  {deployment.deployment_id}  {deployment.status:<9}  {deployment.last_event:<16}  {place}"
    lines = [f"{line}  {_ago(deployment.finished_at, now)}"]
    if deployment.status != "Succeeded":
        lines.append(f"    {deployment.message}")
    return lines


def _ago(moment: float, now: float) -> str:
    """A moment as UTC clock time, and how long ago that is."""
    seconds = max(0, round(now - moment))
    if seconds < 120:
        age = f"{seconds} s"
    elif seconds < 7200:
        age = f"{seconds // 60} min"
    else:
        age = f"{seconds // 3600} h"
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(moment))}Z ({age} ago)"
