"""What `agentctl status --json` prints. Names stay; new ones may come."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agent.cli.overview import RunState
from agent.cli.status_text import outcome_of

if TYPE_CHECKING:
    from agent.cli.overview import Overview
    from agent.deployments import JobState
    from agent.deployments.judgement import Event, Judgement


def status_document(overview: Overview, now: float) -> dict[str, Any]:
    """The overview as JSON; null is what is not known, or does not apply."""
    at_work = overview.at_work
    deployments = overview.deployments
    return {
        "running": overview.run_state is RunState.RUNNING,
        "state": overview.run_state.name.lower(),
        "problem": "; ".join(overview.problems) or None,
        "daemon": _daemon(overview, now),
        "waiting": _waiting(overview),
        "refused_start": asdict(overview.refused_start) if overview.refused_start else None,
        "commands": None if at_work is None else [_command(state) for state in at_work],
        "kept_commands": [_command(state) for state in overview.kept],
        "deployments": None if deployments is None else [_deployment(item, overview) for item in deployments],
    }


def _daemon(overview: Overview, now: float) -> dict[str, Any] | None:
    daemon, vitality = overview.daemon, overview.vitality
    if daemon is None or vitality is None:
        return None
    age = vitality.heartbeat_age_s
    return {
        **asdict(daemon),
        "life": vitality.life.value,
        "process_state": vitality.process_state or None,
        "heartbeat_at": None if age is None else now - age,
        "heartbeat_age_s": None if age is None else round(age, 1),
    }


def _waiting(overview: Overview) -> dict[str, Any] | None:
    daemon = overview.daemon
    if daemon is None or not daemon.waits_for or overview.run_state is not RunState.RUNNING:
        return None
    return {
        "for": daemon.waits_for,
        "error_id": daemon.waits_error_id or None,
        "since": daemon.waits_since,
        "next_try_at": daemon.next_try_at,
    }


def _command(state: JobState) -> dict[str, Any]:
    return {
        "host_command_identifier": state.command.identifier,
        "command": state.command.name,
        "accepted_at": state.accepted_at,
        "step": state.step,
        "step_at": state.step_at,
        "worker_pid": state.worker.pid if state.worker else None,
        "status": state.result.status.value if state.result else None,
        "deployment": asdict(state.deployment) if state.deployment else None,
    }


def _deployment(judgement: Judgement, overview: Overview) -> dict[str, Any]:
    facts, last = judgement.facts, judgement.last
    outcome = outcome_of(judgement, overview)
    return {
        "deployment_id": judgement.deployment_id,
        "application_name": facts.application_name if facts else None,
        "deployment_group_name": facts.deployment_group_name if facts else None,
        "deployment_group_id": facts.deployment_group_id if facts else None,
        "creator": (facts.creator or None) if facts else None,
        "status": outcome.state.value,
        "last_event": last.name,
        "started_at": judgement.began_at,
        "finished_at": last.finished_at or None,
        "message": outcome.message,
        "error_id": outcome.error_id or None,
        "next_event": judgement.next_event or None,
        "superseded_by": judgement.superseded_by or None,
        "failed_and_ignored": [event.name for event in judgement.ignored],
        "events": [_event(event) for event in judgement.events],
    }


def _event(event: Event) -> dict[str, Any]:
    return {
        "event": event.name,
        "host_command_identifier": event.host_command_identifier,
        "status": event.state.value,
        "accepted_at": event.accepted_at,
        "finished_at": event.finished_at or None,
        "message": event.message,
        "error_id": event.error_id or None,
    }
