"""A hook that takes long: the endpoint is told that it runs, and may say that nobody wants it any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.bundle.servers import s3_error
from tests.daemon.control_server import ACKNOWLEDGE, UPDATE, Fault, error
from tests.waiting import is_running, wait_until

if TYPE_CHECKING:
    from tests.bundle.servers import Answer, Request
    from tests.daemon.agent_process import Agent
    from tests.daemon.conftest import MakeAgent
    from tests.daemon.control_server import ControlServer
    from tests.daemon.revisions import Application, Bucket, Gate

pytestmark = pytest.mark.server


@pytest.fixture
def agent(make_agent: MakeAgent) -> Agent:
    """An agent that is quick to say that a hook still runs."""
    return make_agent({"wait_between_updates": 0.1}).start()


@pytest.fixture
def running(server: ControlServer, agent: Agent, application: Application, gate: Gate) -> str:
    """The identifier of a command whose script waits for the gate."""
    deployment = application.revise("one", ["BeforeInstall"], script=f"echo waiting\n{gate.script}")
    server.carry(deployment, "DownloadBundle")
    identifier = server.send("BeforeInstall", deployment)
    wait_until(lambda: gate.is_reached, "the script runs")
    return identifier


def test_a_hook_that_takes_long_is_said_to_be_running_again_and_again(
    server: ControlServer, gate: Gate, running: str
) -> None:
    """The service gives up on a host that says nothing for an hour; a data migration may take longer."""
    first, second = server.wait_for_requests(UPDATE, 2)[:2]
    assert {"HostCommandIdentifier": running} == first.request == second.request
    assert second.at - first.at >= 0.09
    gate.open()
    assert "Succeeded" == server.completion(running).status


@pytest.mark.parametrize("answer", ["Failed", "Succeeded"])
def test_a_stopped_deployment_ends_the_script_and_is_reported_as_failed(
    server: ControlServer, agent: Agent, application: Application, gate: Gate, running: str, *, answer: str
) -> None:
    """Whoever stops a deployment means it; what the script had printed until then is still in the report."""
    server.update_answer = answer
    completion = server.completion(running)
    assert ("Failed", 5, "hook.sh") == (completion.status, completion.code, completion.script_name)
    assert "was ended because the deployment was stopped" in completion.message
    assert completion.message.endswith("[hook-cancelled]")
    assert "[stdout]waiting" in completion.log
    assert not is_running(gate.pid)
    agent.wait_until_idle()
    assert 1 == len(server.completions(running))
    assert 1 == len(agent.logged("command_stopped_by_endpoint"))
    server.update_answer = "InProgress"
    server.carry(
        application.in_another_group().revise("two", ["AfterInstall"]), "DownloadBundle", "AfterInstall"
    )


@pytest.mark.parametrize(
    "fault",
    [error(400, "InvalidInputException", "no such operation"), Fault(is_reset=True), Fault(is_silent=True)],
    ids=["refused", "reset", "silent"],
)
def test_an_endpoint_that_does_not_take_updates_disturbs_nobody(
    server: ControlServer, agent: Agent, gate: Gate, running: str, fault: Fault
) -> None:
    """The script does its work all the same, is reported at once, and the log has one line about it."""
    server.break_down(UPDATE, fault)
    seen = len(server.of(UPDATE))
    server.wait_for_requests(UPDATE, seen + (1 if fault.is_silent else 3))
    gate.open()
    assert "Succeeded" == server.completion(running).status
    agent.wait_until_idle()
    assert len(agent.logged("update_failed")) == (0 if fault.is_silent else 1)


def test_hooks_that_are_quick_and_commands_without_hooks_send_no_updates(
    server: ControlServer, make_agent: MakeAgent, application: Application
) -> None:
    """A request more for each command of each host would be felt at the endpoint."""
    make_agent().start()
    server.carry(application.revise("one", ["AfterInstall"]), "DownloadBundle", "Install", "AfterInstall")
    assert (3, 0) == (len(server.of(ACKNOWLEDGE)), len(server.of(UPDATE)))


def test_a_stopped_deployment_ends_a_download_that_is_tried_again_and_again(
    server: ControlServer,
    agent: Agent,
    bucket: Bucket,
    application: Application,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next deployment of the group must not wait until the patience with a broken S3 has come to its end."""
    deployment = application.revise("one", [])
    monkeypatch.setattr(bucket.server, "answer", lambda _: s3_error(503, "ServiceUnavailable"))
    identifier = server.send("DownloadBundle", deployment)
    server.wait_for_requests(UPDATE, 1)

    server.update_answer = "Failed"

    completion = server.completion(identifier)
    assert ("Failed", 5) == (completion.status, completion.code)
    assert completion.message.endswith("[bundle-download-cancelled]")
    agent.wait_until_idle()
    assert 1 == len(agent.logged("bundle_download_interrupted"))


def test_expired_credentials_are_read_again_for_a_download(
    server: ControlServer,
    agent: Agent,
    bucket: Bucket,
    application: Application,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The report names where they are from when that does not help."""
    right = bucket.server.answer
    asked: list[str] = []

    def answer(request: Request) -> Answer:
        asked.append(request.path)
        return s3_error(400, "ExpiredToken") if len(asked) != 2 else right(request)

    monkeypatch.setattr(bucket.server, "answer", answer)
    server.carry(application.revise("one", []), "DownloadBundle")
    assert 2 == len(asked)

    completion = server.completion(server.send("DownloadBundle", application.revise("two", [])))
    assert completion.message.endswith("[bundle-credentials-expired]")
    assert "the keys in" in completion.message
    assert 4 == len(asked)
