"""Commands for another host, which the endpoint delivers to this one."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from agent.protocol import HostCommand
from tests.daemon.control_server import ACKNOWLEDGE, COMPLETE, HOST, SERVER_ERROR, SPECIFICATION
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.daemon.agent_process import Agent
    from tests.daemon.control_server import ControlServer
    from tests.daemon.revisions import Application

pytestmark = pytest.mark.server


@pytest.mark.parametrize("named", [HOST, "web-1", "user/web-1", "123456789012:user/web-1"])
def test_a_host_is_named_in_full_or_by_the_last_part_of_its_name(named: str) -> None:
    """The service does both."""
    assert command_for(named).is_for(HOST)


@pytest.mark.parametrize(
    "named", ["", f"{HOST}2", "eb-1", "user", "arn:aws", "/", ":", HOST.upper(), f"/{HOST}"]
)
def test_a_part_of_a_name_is_another_host(named: str) -> None:
    """`lab` must not carry out what `my-lab` is to do."""
    assert not command_for(named).is_for(HOST)


def command_for(host_identifier: str) -> HostCommand:
    return HostCommand(
        identifier="c", host_identifier=host_identifier, deployment_execution_id="e", name="Install"
    )


@pytest.mark.parametrize("named", [f"{HOST}2", "eb-1"])
def test_a_command_for_another_host_is_left_alone(
    server: ControlServer, agent: Agent, application: Application, named: str
) -> None:
    """Whoever it is meant for may be at work on it: a report of ours would fail their deployment."""
    deployment = application.revise()
    identifier = server.send("DownloadBundle", deployment, HostIdentifier=named)
    ours = server.run("DownloadBundle", deployment)
    assert "Succeeded" == ours.status
    asked = [exchange for exchange in server.exchanges if exchange.operation in (ACKNOWLEDGE, COMPLETE)]
    assert [ours.identifier] * 2 == [exchange.request["HostCommandIdentifier"] for exchange in asked]
    assert 1 == len(server.of(SPECIFICATION))
    agent.wait_until_idle()
    (line,) = agent.logged("command_left_alone")
    assert "error_id=command-for-another-host" in line
    assert named in line
    entry = next(entry for entry in agent.history() if entry["host_command_identifier"] == identifier)
    assert ("command-for-another-host", False) == (entry["result"]["error_id"], entry["result"]["wanted"])
    assert 1 == len(agent.logged("poll_recovered"))


def test_an_endpoint_that_brings_the_same_command_again_and_again_is_asked_more_rarely(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """Neither a busy loop nor a log full of it; and `agentctl status` says why nothing is deployed."""
    deployment = application.revise()
    identifier = server.send("Install", deployment, HostIdentifier=f"{HOST}2")
    server.send("Install", deployment, HostIdentifier=f"{HOST}2", HostCommandIdentifier=identifier)
    status = wait_until(lambda: agent.status() if agent.status()["failures"] == 2 else None, "it came twice")
    assert 10 == pytest.approx(status["next_poll_at"] - status["last_poll_at"], abs=0.5)
    assert f"for host {HOST}2" in status["last_poll_result"]
    assert 1 == len(agent.logged("command_left_alone"))
    assert 1 == len(agent.history())
    assert [] == agent.logged("poll_failed")
    began = time.monotonic()
    assert 0 == agent.end()
    assert time.monotonic() - began < 1


def test_a_command_that_comes_again_between_others_is_told_once(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """Some endpoints deliver what nobody acknowledges every minute, for days."""
    deployment = application.revise()
    identifier = server.send("Install", deployment, HostIdentifier=f"{HOST}2")
    for _ in range(3):
        server.carry(deployment, "DownloadBundle")
        server.send("Install", deployment, HostIdentifier=f"{HOST}2", HostCommandIdentifier=identifier)
    server.carry(deployment, "DownloadBundle")
    assert (1, 1) == (len(agent.logged("command_left_alone")), len(agent.logged("poll_recovered")))


def test_a_command_that_was_accepted_under_another_name_is_left_alone_as_well(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """The host was registered anew between a crash and the next start."""
    server.break_down(SPECIFICATION, SERVER_ERROR)
    identifier = server.send("DownloadBundle", application.revise())
    server.wait_for_requests(SPECIFICATION)
    (worker,) = wait_until(agent.workers, "a worker has begun")
    agent.kill()
    os.kill(worker, signal.SIGKILL)
    agent.identity_file.write_text(agent.identity_file.read_text().replace("web-1", "web-7"))
    server.heal()
    agent.start()
    agent.wait_until_idle()
    assert [] == server.of(ACKNOWLEDGE) + server.of(COMPLETE)
    (entry,) = agent.history()
    assert (identifier, "command-for-another-host") == (
        entry["host_command_identifier"],
        entry["result"]["error_id"],
    )


@pytest.mark.parametrize("missing", [None, ""])
def test_a_command_that_names_no_host_is_no_answer(
    server: ControlServer, agent: Agent, application: Application, missing: str | None
) -> None:
    """Nobody knows whose it is: guessing that it is ours might stop an application of somebody else."""
    server.send("DownloadBundle", application.revise(), HostIdentifier=missing)
    assert "Succeeded" == server.run("DownloadBundle", application.revise()).status
    agent.wait_until_idle()
    assert 1 == len(server.of(ACKNOWLEDGE))
