"""The checks find what must not be: each of them is shown a run in which it is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from chaos.checks import Deployment, Event, Evidence, find_violations
from chaos.faults import FaultKind, NetworkFault, S3Fault
from chaos.proxy import Exchange
from chaos.s3_proxy import Download
from chaos.schedule import Script


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
    command = {
        "HostCommandIdentifier": identifier,
        "CommandName": name,
        "DeploymentExecutionId": "us-east-1/000000000000/d-1/1",
    }
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
    downloads=(),
    marks=(("d-1", "AfterInstall", "start", 7), ("d-1", "AfterInstall", "end", 7)),
    answers=(),
    events=(Event(deployment_id="d-1", name="AfterInstall", status="Succeeded", code="Success", message=""),),
    deployments={"d-1": Deployment(number=1, script=Script.PLAIN, key="g-1.tar")},
    has_pre_accept=False,
    killed_workers=frozenset(),
    killed_hooks=frozenset(),
    stopped_hooks=frozenset(),
    gone={},
    applied=frozenset(),
)


def event(deployment_id: str, name: str, *, status: str = "Succeeded", message: str = "") -> Event:
    return Event(deployment_id=deployment_id, name=name, status=status, code="", message=message)


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


def downloaded(*faults: S3Fault, error_id: str) -> Evidence:
    downloads = [Download(at=1.0, key="g-1.tar", wanted="", fault=fault) for fault in faults]
    refused = event("d-1", "DownloadBundle", status="Failed", message=f"Not this one. [{error_id}]")
    return replace(GOOD, events=(refused,), downloads=downloads)


def test_a_download_fails_only_for_what_the_server_has_done() -> None:
    """Blaming a bundle that is whole sends people to build it again."""
    assert "without a cause" in find_violations(downloaded(S3Fault.BODY_RESET, error_id="bundle-corrupt"))[0]
    assert [] == find_violations(downloaded(S3Fault.WRONG_BYTES, error_id="bundle-corrupt"))
    assert [] == find_violations(downloaded(S3Fault.OTHER_ETAG, error_id="bundle-etag-mismatch"))
    mismatch = downloaded(S3Fault.WRONG_BYTES, error_id="bundle-etag-mismatch")
    assert "without a cause" in find_violations(mismatch)[0]


def test_a_download_does_not_fail_for_what_passes() -> None:
    """A server that is busy for seconds is waited for; all that it does here is over within half a minute."""
    busy = downloaded(
        S3Fault.SLOW_DOWN, S3Fault.BODY_RESET, S3Fault.RANGE_REFUSED, error_id="bundle-download-failed"
    )
    assert "without a cause" in find_violations(busy)[0]


def test_a_download_of_another_revision_is_no_cause() -> None:
    """What harmed one deployment can't have harmed the next."""
    evidence = downloaded(S3Fault.WRONG_BYTES, error_id="bundle-corrupt")
    other = replace(evidence.deployments["d-1"], key="g-2.tar")
    assert "without a cause" in find_violations(replace(evidence, deployments={"d-1": other}))[0]


def test_what_pre_accept_command_has_refused_must_not_be_done() -> None:
    """An administrator who says no means it."""
    refused = (("d-1", "AfterInstall", "refused", 9),)
    assert "was refused by pre_accept_command" in find_violations(replace(GOOD, answers=refused))[0]
    asked_again = (*refused, ("d-1", "AfterInstall", "taken", 10))
    assert [] == find_violations(replace(GOOD, answers=asked_again))


def test_pre_accept_command_must_be_asked() -> None:
    """A check that is left out now and then is none."""
    evidence = replace(GOOD, events=(event("d-1", "Install"),), has_pre_accept=True)
    assert "pre_accept_command was not asked" in find_violations(evidence)[0]
    assert [] == find_violations(replace(evidence, answers=(("d-1", "Install", "taken", 9),)))


def test_a_refusal_by_pre_accept_command_must_have_been_one() -> None:
    """The command itself has written down what it said."""
    not_ready = event("d-1", "Install", status="Failed", message="It refused. [host-not-ready]")
    evidence = replace(GOOD, events=(not_ready,), has_pre_accept=True)
    assert "without a cause" in find_violations(evidence)[0]
    assert [] == find_violations(replace(evidence, answers=(("d-1", "Install", "refused", 9),)))


def test_a_success_without_the_deployment_archive_is_found() -> None:
    """Scripts that were not there can't have run."""
    evidence = replace(
        GOOD,
        exchanges=(*begun("c1", "Install"), completion("c1")),
        events=(event("d-1", "Install"),),
        gone={"d-1": 0.5},
    )
    assert ["Install of d-1 has Succeeded, and the deployment archive had gone before it began"] == (
        find_violations(evidence)
    )
    # It had begun, and may have read what it needs.
    assert [] == find_violations(replace(evidence, gone={"d-1": 1.5}))
    failure = event("d-1", "Install", status="Failed", message="It is gone. [archive-gone]")
    assert [] == find_violations(replace(evidence, events=(failure,)))


def test_application_stop_runs_the_scripts_of_the_revision_before() -> None:
    """An application that is replaced while it runs may lose what it has in hand."""
    events = (event("d-1", "Install"), event("d-2", "ApplicationStop"))
    evidence = replace(GOOD, events=events)
    assert ["ApplicationStop of d-2 has Succeeded, and its hook ended 0 times"] == find_violations(evidence)
    # Nothing was installed before, or nothing is left of it.
    assert [] == find_violations(replace(evidence, events=events[1:]))
    assert [] == find_violations(replace(evidence, gone={"d-1": 1.0}))
