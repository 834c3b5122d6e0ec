"""The checks find what must not be: each of them is shown a run in which it is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from chaos.checks import Event, Evidence, find_violations
from chaos.proxy import Exchange
from chaos.schedule import FaultKind, NetworkFault, Script


def exchange(operation: str, answer: dict[str, Any] | None = None, **request: Any) -> Exchange:
    return Exchange(
        at=1.0,
        operation=operation,
        request=request,
        fault=NetworkFault.NONE,
        endpoint_status=200,
        answer=answer or {},
        is_delivered=True,
    )


def completion(identifier: str, status: str = "Succeeded", code: int = 0) -> Exchange:
    payload = json.dumps({"error_code": code, "script_name": "", "message": "m", "log": ""})
    return exchange(
        "PutHostCommandComplete",
        HostCommandIdentifier=identifier,
        CommandStatus=status,
        Diagnostics={"Format": "JSON", "Payload": payload},
    )


def begun(identifier: str, name: str) -> tuple[Exchange, Exchange]:
    command = {"HostCommandIdentifier": identifier, "CommandName": name}
    return (
        exchange("PollHostCommand", {"HostCommand": command}),
        exchange(
            "PutHostCommandAcknowledgement",
            {"CommandStatus": "InProgress"},
            HostCommandIdentifier=identifier,
        ),
    )


GOOD = Evidence(
    exchanges=(*begun("c1", "AfterInstall"), completion("c1")),
    marks=(("d-1", "AfterInstall", "start", 7), ("d-1", "AfterInstall", "end", 7)),
    events=(Event(deployment_id="d-1", name="AfterInstall", status="Succeeded", code="Success", message=""),),
    scripts={"d-1": Script.PLAIN},
    killed_workers=frozenset(),
    killed_hooks=frozenset(),
    stopped_hooks=frozenset(),
    applied=frozenset(),
)


def failed(code: str) -> Evidence:
    event = Event(deployment_id="d-1", name="AfterInstall", status="Failed", code=code, message="why")
    return replace(GOOD, events=(event,))


def test_a_run_in_which_all_is_well_has_no_violations() -> None:
    """A campaign that cries wolf is not looked at for long."""
    assert [] == find_violations(GOOD)


def test_an_accepted_command_without_a_report_is_found() -> None:
    """It would keep a deployment waiting for an hour."""
    evidence = replace(GOOD, exchanges=GOOD.exchanges[:2])
    assert ["command c1 was accepted and never reported"] == find_violations(evidence)


def test_two_different_reports_of_one_command_are_found() -> None:
    """Only one of them can be true."""
    evidence = replace(GOOD, exchanges=(*GOOD.exchanges, completion("c1", "Failed", 5)))
    assert "different results" in find_violations(evidence)[0]


def test_a_repeated_report_needs_a_reason() -> None:
    """Delivering twice is right after a lost answer, and wasteful otherwise."""
    twice = (*GOOD.exchanges, completion("c1"))
    assert ["command c1 was reported 2 times for no reason"] == find_violations(
        replace(GOOD, exchanges=twice)
    )
    lost = replace(completion("c1"), is_delivered=False, fault=NetworkFault.LOST_ANSWER)
    assert [] == find_violations(replace(GOOD, exchanges=(*GOOD.exchanges, lost)))


def test_a_success_whose_hook_did_not_end_is_found() -> None:
    """A deployment that says Succeeded and did nothing is the worst of all."""
    violations = find_violations(replace(GOOD, marks=GOOD.marks[:1]))
    assert ["AfterInstall of d-1 has Succeeded, and its hook ended 0 times"] == violations


def test_a_hook_that_ran_twice_is_found() -> None:
    """A migration that runs twice may destroy data."""
    marks = (GOOD.marks[0], *GOOD.marks)
    assert ["the hook AfterInstall of d-1 ran 2 times"] == find_violations(replace(GOOD, marks=marks))


def test_a_command_reported_as_lost_needs_a_killed_worker() -> None:
    """Code 7 sends people to look for a reboot or a lack of memory."""
    evidence = replace(GOOD, exchanges=(*begun("c1", "Install"), completion("c1", "Failed", 7)), events=())
    assert "nobody killed its worker" in find_violations(evidence)[0]
    assert [] == find_violations(replace(evidence, killed_workers=frozenset({"c1"})))


def test_a_failure_needs_the_cause_that_it_names() -> None:
    """A hook that was killed has failed; one that nobody touched has not."""
    assert "without a cause" in find_violations(failed("ScriptFailed"))[0]
    assert [] == find_violations(replace(failed("ScriptFailed"), killed_hooks=frozenset({7})))
    assert "without a cause" in find_violations(failed("UnknownError"))[0]
    starved = frozenset({FaultKind.FULL_DISK})
    assert [] == find_violations(replace(failed("UnknownError"), applied=starved))


def test_a_hook_that_was_killed_before_its_first_line_has_failed_for_that() -> None:
    """It left no mark by which it could be known."""
    failed_early = replace(failed("ScriptFailed"), marks=(), killed_hooks=frozenset({7}))
    assert [] == find_violations(failed_early)
    other = replace(failed("ScriptFailed"), marks=(("d-1", "AfterInstall", "start", 8),))
    assert "without a cause" in find_violations(replace(other, killed_hooks=frozenset()))[0]


def test_a_command_may_be_refused_for_two_reasons_when_the_disk_is_full() -> None:
    """The agent can't keep what it has answered; it may only refuse what it has never begun."""
    refusals = (GOOD.exchanges[0], completion("c1", "Failed", 5), completion("c1", "Failed", 6))
    full = frozenset({FaultKind.FULL_DISK})
    evidence = replace(GOOD, exchanges=refusals, events=(), applied=full)
    assert [] == find_violations(evidence)
    assert "different results" in find_violations(replace(evidence, applied=frozenset()))[0]
    begun = (*GOOD.exchanges[:2], *refusals[1:])
    assert "different results" in find_violations(replace(evidence, exchanges=begun))[0]
