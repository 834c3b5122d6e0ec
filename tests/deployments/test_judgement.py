"""What came of a deployment: the host is told of events only, and must not make more of them than there is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.deployments import CommandResult, DeploymentFacts, HistoryEntry, JobState
from agent.deployments.judgement import judge
from agent.protocol import CommandStatus, HostCommand

CASES: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("judgements.yml").read_text())
THIS = DeploymentFacts(
    deployment_id="this", deployment_group_id="g", deployment_group_name="group", application_name="shop"
)
SUCCEEDED = CommandResult(status=CommandStatus.SUCCEEDED, error_code=0, message="Succeeded: ", payload="{}")
FAILED = CommandResult(
    status=CommandStatus.FAILED,
    error_code=4,
    message="No. [hook-failed]",
    payload="{}",
    error_id="hook-failed",
)


def entry(number: int, name: str, facts: DeploymentFacts | None, result: CommandResult) -> HistoryEntry:
    return HistoryEntry(
        host_command_identifier=f"{number}",
        command_name=name,
        accepted_at=float(number),
        finished_at=number + 0.5,
        result=result,
        deployment=facts,
    )


def at_work(number: int, name: str, facts: DeploymentFacts | None) -> JobState:
    command = HostCommand(
        identifier=f"{number}", host_identifier="h", deployment_execution_id=f"a/b/c/{number}", name=name
    )
    return JobState(command=command, accepted_at=float(number), deployment=facts, step="run")


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_a_deployment_is_judged_from_all_of_its_events_and_its_specification(case: dict[str, Any]) -> None:
    """Green is what a person goes home on."""
    this = replace(
        THIS,
        deployment_type=case.get("type", "IN_PLACE"),
        creator=case.get("creator", "user"),
        possible_events=tuple(case["possible"]) if "possible" in case else None,
        planned_events=tuple(case["planned"]) if "planned" in case else None,
    )
    entries, running = [], []
    for number, written in enumerate(case["commands"], 1):
        whose, _, name = written.rpartition(":")
        facts = replace(THIS, deployment_id=whose) if whose else this
        if name.endswith("?"):
            running.append(at_work(number, name[:-1], facts))
        else:
            result = FAILED if name.endswith("!") else SUCCEEDED
            entries.append(entry(number, name.rstrip("!"), facts, result))
    (judged,) = [item for item in judge(reversed(entries), running) if item.deployment_id == "this"]
    assert (case["state"], case.get("next", ""), case.get("superseded_by", ""), case.get("ignored", [])) == (
        judged.state.value,
        judged.next_event,
        judged.superseded_by,
        [event.name for event in judged.ignored],
    )


def test_a_command_that_failed_before_its_specification_was_known_counts_for_its_deployment() -> None:
    """The disk was full when Install came: the record of the command can't say which deployment that was."""
    known = replace(entry(1, "DownloadBundle", THIS, SUCCEEDED), deployment_execution_id="a/b/g/this")
    refused = replace(entry(2, "Install", None, FAILED), deployment_execution_id="a/b/g/this")
    (judged,) = judge([refused, known], [])
    assert ("this", "Failed", THIS) == (judged.deployment_id, judged.state.value, judged.facts)


def test_a_deployment_whose_specification_was_never_trusted_is_a_failed_one() -> None:
    """Signed by a stranger: there are no facts, and it is the one thing that somebody must see."""
    refused = replace(entry(2, "ApplicationStop", None, FAILED), deployment_execution_id="a/b/g/d-X")
    (judged,) = judge([refused], [])
    assert ("a/b/g/d-X", "Failed", "hook-failed") == (
        judged.deployment_id,
        judged.state.value,
        judged.last.error_id,
    )


def test_a_command_that_was_delivered_and_reported_twice_is_one_event() -> None:
    """Its second report comes late, and must not look like an event after those that followed it."""
    stop, download = entry(1, "ApplicationStop", THIS, FAILED), entry(2, "DownloadBundle", THIS, SUCCEEDED)
    again = replace(stop, accepted_at=3.0, finished_at=3.5)
    (judged,) = judge([again, download, stop], [])
    assert ["ApplicationStop", "DownloadBundle"] == [event.name for event in judged.events]
    assert "InProgress" == judged.state.value


def test_a_command_whose_result_could_not_become_history_yet_is_over() -> None:
    """The disk is full: its record stays, and nothing runs."""
    (judged,) = judge([], [replace(at_work(1, "Install", THIS), result=FAILED, finished_at=2.0)])
    assert ("Failed", "hook-failed") == (judged.state.value, judged.last.error_id)


def test_the_deployment_with_the_newest_event_comes_first() -> None:
    """Whoever asks wants to know of the last one."""
    other = replace(THIS, deployment_id="other", deployment_group_id="h")
    judged = judge(
        [entry(n, "Install", facts, SUCCEEDED) for n, facts in ((1, THIS), (3, THIS), (2, other))], []
    )
    assert ["this", "other"] == [item.deployment_id for item in judged]
