"""Which commands run side by side, which take turns, and which run only once."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.daemon.control_server import ACKNOWLEDGE, COMPLETE, POLL, SERVER_ERROR
from tests.daemon.revisions import Gate
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.daemon.agent_process import Agent
    from tests.daemon.control_server import ControlServer
    from tests.daemon.revisions import Application

pytestmark = pytest.mark.server


def wait_for_idle_poll(server: ControlServer) -> None:
    """Return when the daemon has dealt with everything that was sent before, and asks for more."""
    count = len(server.of(POLL))
    server.wait_for_requests(POLL, count + 1)


def wait_for_turn(agent: Agent, count: int) -> list[int]:
    """Return when so many workers wait for their turn; their pids.

    They have said what deployment they belong to, and have yet to look at the host.
    """

    def waiting() -> list[int]:
        records = [record for record in agent.records() if record and record[-1]["entry"] == "deployment"]
        pids = [[entry["pid"] for entry in record if entry["entry"] == "worker"][-1] for record in records]
        return pids if len(pids) == count else []

    found: list[int] = wait_until(waiting, f"{count} workers wait for their turn")
    return found


def test_a_command_delivered_again_while_it_runs_runs_once(
    server: ControlServer, agent: Agent, application: Application, gate: Gate
) -> None:
    """The service repeats itself when it gets impatient; a migration must not run twice at once."""
    deployment = application.revise("one", ["BeforeInstall"], script=gate.script)
    server.carry(deployment, "DownloadBundle")
    identifier = server.send("BeforeInstall", deployment)
    wait_until(lambda: gate.is_reached, "the script runs")
    for _ in range(3):
        server.send("BeforeInstall", deployment, HostCommandIdentifier=identifier)
    wait_until(lambda: len(agent.logged("command_ignored")) == 3, "the repetitions have been taken")
    gate.open()
    assert "Succeeded" == server.completion(identifier).status
    agent.wait_until_idle()
    assert (1, ["BeforeInstall of one"]) == (len(server.completions(identifier)), application.trace)


def test_a_command_delivered_again_after_it_finished_gets_its_stored_report(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """The service has lost the report: it gets the same one again, from a restarted agent, too."""
    deployment = application.revise("one", ["BeforeInstall"], script="echo failing; exit 7")
    server.carry(deployment, "DownloadBundle")
    identifier = server.send("BeforeInstall", deployment)
    first = server.completion(identifier)
    agent.wait_until_idle()
    agent.end()
    agent.start()
    server.send("BeforeInstall", deployment, HostCommandIdentifier=identifier)
    server.wait_for(lambda: len(server.completions(identifier)) == 2, "a second report")
    second = server.completions(identifier)[1]
    assert ("Failed", 4, "hook.sh") == (first.status, first.code, first.script_name)
    assert (first.status, first.code, first.script_name, first.message, first.log) == (
        second.status,
        second.code,
        second.script_name,
        second.message,
        second.log,
    )
    assert ["BeforeInstall of one"] == application.trace
    acknowledged = [exchange.request["HostCommandIdentifier"] for exchange in server.of(ACKNOWLEDGE)]
    assert 1 == acknowledged.count(identifier)


def test_commands_of_one_group_take_turns_in_the_order_of_delivery(
    server: ControlServer, agent: Agent, application: Application, gate: Gate
) -> None:
    """Two deployments that write the same files at once leave neither of them."""
    first = application.revise("one", ["BeforeInstall"], script=gate.script)
    second = application.revise("two", ["BeforeInstall"])
    third = application.revise("three", ["BeforeInstall"])
    for deployment in (first, second, third):
        server.carry(deployment, "DownloadBundle")
    sent = [server.send("BeforeInstall", deployment) for deployment in (first, second, third)]
    wait_until(lambda: gate.is_reached and len(agent.workers()) == 3, "all three have a worker")
    assert ["BeforeInstall of one"] == application.trace
    gate.open()
    completions = [server.completion(identifier) for identifier in sent]
    assert ["Succeeded"] * 3 == [completion.status for completion in completions]
    assert [f"BeforeInstall of {label}" for label in ("one", "two", "three")] == application.trace


def test_another_group_need_not_wait(
    server: ControlServer, agent: Agent, application: Application, gate: Gate
) -> None:
    """One application's slow hook must not hold up the others on the host."""
    slow = application.revise("one", ["BeforeInstall"], script=gate.script)
    server.carry(slow, "DownloadBundle")
    server.send("BeforeInstall", slow)
    wait_until(lambda: gate.is_reached, "the script runs")
    other = application.in_another_group()
    server.carry(other.revise("two", ["AfterInstall"]), "DownloadBundle", "Install", "AfterInstall")
    assert ["AfterInstall of two"] == other.trace


def test_whoever_waits_for_a_worker_that_is_killed_waits_until_that_has_been_cleaned_up_after(
    server: ControlServer, agent: Agent, application: Application, gate: Gate
) -> None:
    """What undoes the dead worker's Install must not meet the next one's."""
    first = application.revise("one", ["BeforeInstall"], script=gate.script)
    second = application.revise("two", ["BeforeInstall"])
    for deployment in (first, second):
        server.carry(deployment, "DownloadBundle")
    lost = server.send("BeforeInstall", first)
    wait_until(lambda: gate.is_reached, "the script runs")
    waiting = server.send("BeforeInstall", second)
    wait_for_turn(agent, 1)
    (worker, _) = agent.workers()
    # The report of the loss comes late: whoever does not wait for it is faster.
    server.trouble(COMPLETE, SERVER_ERROR, SERVER_ERROR)
    os.kill(worker, signal.SIGKILL)
    assert 7 == server.completion(lost).code
    assert "Succeeded" == server.completion(waiting).status
    assert ["BeforeInstall of one", "BeforeInstall of two"] == application.trace
    (acknowledged,) = [
        exchange.at
        for exchange in server.of(ACKNOWLEDGE)
        if exchange.request["HostCommandIdentifier"] == waiting
    ]
    assert server.completion(lost).at < acknowledged


def test_many_commands_at_once_are_all_carried_out_at_most_sixteen_at_a_time(
    server: ControlServer, agent: Agent, application: Application, tmp_path: Path
) -> None:
    """A host with many deployment groups, after a night without a network."""
    gate = Gate(tmp_path / "many" / "gate")
    gate.path.parent.mkdir()
    applications = [application.in_another_group() for _ in range(20)]
    deployments = [
        application.revise("one", ["BeforeInstall"], script=gate.script) for application in applications
    ]
    downloads = [server.send("DownloadBundle", deployment) for deployment in deployments]
    assert {"Succeeded"} == {server.completion(identifier).status for identifier in downloads}
    agent.wait_until_idle()
    polls = len(server.of(POLL))
    sent = [server.send("BeforeInstall", deployment) for deployment in deployments]
    wait_until(lambda: sum(len(app.trace) for app in applications) == 16, "sixteen scripts run")
    # Every poll since has delivered a command: there is none for a seventeenth.
    assert len(server.of(POLL)) - polls <= 16
    assert 16 == len(agent.records())
    gate.open()
    assert {"Succeeded"} == {server.completion(identifier).status for identifier in sent}
    assert [["BeforeInstall of one"]] * 20 == [application.trace for application in applications]
    agent.wait_until_idle()
