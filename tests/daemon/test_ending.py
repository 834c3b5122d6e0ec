"""How daemons and workers end, and what becomes of the commands meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.daemon.control_server import COMPLETE, POLL, SERVER_ERROR
from tests.waiting import is_running, wait_until

if TYPE_CHECKING:
    from tests.daemon.agent_process import Agent
    from tests.daemon.conftest import MakeAgent
    from tests.daemon.control_server import ControlServer, Deployment
    from tests.daemon.revisions import Application, Gate

pytestmark = pytest.mark.server


@pytest.fixture
def waiting(
    server: ControlServer, agent: Agent, application: Application, gate: Gate
) -> tuple[Deployment, str]:
    """A deployment whose BeforeInstall has begun and waits for the gate; the command's identifier."""
    deployment = application.revise("one", ["BeforeInstall"], script=f"{gate.script}\necho through the gate")
    server.carry(deployment, "DownloadBundle")
    identifier = server.send("BeforeInstall", deployment)
    wait_until(lambda: gate.is_reached, "the script runs")
    return deployment, identifier


def test_a_daemon_in_a_held_poll_ends_at_once(server: ControlServer, agent: Agent) -> None:
    """`systemctl stop` on an idle host must not take the minute that a poll is held."""
    server.wait_for_requests(POLL)
    began = time.monotonic()
    assert 0 == agent.end()
    assert time.monotonic() - began < 1
    assert "stopped" == agent.status()["state"]
    assert not list(agent.state.glob("*.pid"))


def test_sigterm_waits_for_the_hook_that_runs_and_polls_no_more(
    server: ControlServer, agent: Agent, gate: Gate, waiting: tuple[Deployment, str]
) -> None:
    """The service manager learns when the host is idle; the deployment succeeds."""
    polls = server.wait_for_requests(POLL, 3)
    agent.signal()
    wait_until(lambda: agent.status()["state"] == "stopping", "the daemon has understood")
    assert is_running(agent.pid)
    gate.open()
    assert "Succeeded" == server.completion(waiting[1]).status
    assert 0 == agent.wait()
    assert len(polls) == len(server.of(POLL))


def test_a_second_sigterm_ends_the_daemon_and_the_worker_still_reports(
    server: ControlServer, agent: Agent, gate: Gate, waiting: tuple[Deployment, str]
) -> None:
    """Somebody is in a hurry: that must cost no deployment."""
    agent.signal()
    wait_until(lambda: agent.status()["state"] == "stopping", "the daemon has understood")
    agent.signal()
    assert 0 == agent.wait(2)
    assert [] == server.completions(waiting[1])
    gate.open()
    completion = server.completion(waiting[1])
    assert ("Succeeded", "[stdout]through the gate") == (
        completion.status,
        completion.log.splitlines()[-1][-24:],
    )


def test_the_wait_for_workers_has_an_end(
    server: ControlServer, make_agent: MakeAgent, application: Application, gate: Gate
) -> None:
    """kill_agent_max_wait_time_seconds: a hook that hangs must not hold up a shutdown."""
    agent = make_agent({"kill_agent_max_wait_time_seconds": 0}).start()
    deployment = application.revise("one", ["BeforeInstall"], script=gate.script)
    server.carry(deployment, "DownloadBundle")
    identifier = server.send("BeforeInstall", deployment)
    wait_until(lambda: gate.is_reached, "the script runs")
    assert 0 == agent.end()
    assert 1 == len(agent.logged("workers_left_alone"))
    gate.open()
    assert "Succeeded" == server.completion(identifier).status


def test_a_killed_daemon_takes_no_worker_with_it_and_its_successor_leaves_that_alone(
    server: ControlServer, agent: Agent, gate: Gate, application: Application, waiting: tuple[Deployment, str]
) -> None:
    """The kernel kills the daemon for lack of memory; systemd starts it again. One run, one report."""
    (worker,) = agent.workers()
    agent.kill()
    agent.start()
    assert [worker] == agent.workers()
    assert 1 == len(agent.logged("worker_adopted"))
    gate.open()
    assert "Succeeded" == server.completion(waiting[1]).status
    agent.wait_until_idle()
    # The adopted worker's end has been noticed when the next command is carried out.
    server.carry(waiting[0], "Install")
    assert ["BeforeInstall of one"] == application.trace
    assert 1 == len(server.completions(waiting[1]))
    assert [] == agent.logged("worker_died")


def test_a_killed_worker_is_reported_with_code_7_once_and_soon(
    server: ControlServer, agent: Agent, gate: Gate, application: Application, waiting: tuple[Deployment, str]
) -> None:
    """Otherwise the service waits for an hour for a report that will never come.

    What the worker had running must not meet the next deployment, and is said in the report.
    """
    (worker,) = agent.workers()
    began = time.monotonic()
    os.kill(worker, signal.SIGKILL)
    completion = server.completion(waiting[1])
    assert completion.at - began < 3
    assert ("Failed", 7, "hook.sh") == (completion.status, completion.code, completion.script_name)
    assert completion.message.startswith("Failed: ")
    assert f"Its script was still running and has been ended: pid {gate.pid} /bin/sh" in completion.message
    assert completion.message.endswith("[worker-lost]")
    assert not is_running(gate.pid)
    agent.wait_until_idle()
    assert [] == list((agent.root / "ongoing-deployment").iterdir())
    server.carry(waiting[0], "ValidateService")
    assert 1 == len(server.completions(waiting[1]))
    assert ["BeforeInstall of one"] == application.trace


def test_the_report_of_a_loss_has_what_the_script_had_printed_and_says_where_the_rest_is(
    server: ControlServer, agent: Agent, gate: Gate, application: Application
) -> None:
    """What killed the worker often announces itself there; nobody should have to look for the file first."""
    script = f"echo the last words; {gate.script}"
    deployment = application.revise("one", ["BeforeInstall"], script=script)
    server.carry(deployment, "DownloadBundle")
    identifier = server.send("BeforeInstall", deployment)
    log = agent.root / deployment.group_id / deployment.deployment_id / "logs" / "scripts.log"
    wait_until(lambda: log.exists() and "the last words" in log.read_text(), "they are in the log")
    (worker,) = agent.workers()
    os.kill(worker, signal.SIGKILL)
    completion = server.completion(identifier)
    assert ["LifecycleEvent - BeforeInstall", "Script - hook.sh", "[stdout]the last words"] == (
        completion.log.splitlines()
    )
    assert f"The whole output is in {log}." in completion.message


def test_what_a_killed_workers_script_has_started_is_ended_also_in_another_session(
    server: ControlServer, agent: Agent, application: Application, tmp_path: Path
) -> None:
    """It would work on beside the next deployment, and nobody would know of it."""
    pid_file = tmp_path / "escaped"
    script = (
        f"(setsid sh -c 'echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; exec sleep 60' &)\n"
        f"while [ ! -e {pid_file} ]; do sleep 0.01; done\nsleep 60"
    )
    deployment = application.revise("one", ["BeforeInstall"], script=script)
    server.carry(deployment, "DownloadBundle")
    identifier = server.send("BeforeInstall", deployment)
    wait_until(pid_file.exists, "the script has started it")
    escaped = int(pid_file.read_text())
    (worker,) = agent.workers()
    os.kill(worker, signal.SIGKILL)
    completion = server.completion(identifier)
    try:
        assert not is_running(escaped)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(escaped, signal.SIGKILL)
    assert f"pid {escaped} " in completion.message


def test_a_loss_is_reported_also_when_somebody_looks_at_the_record_at_that_moment(
    server: ControlServer, agent: Agent, waiting: tuple[Deployment, str]
) -> None:
    """Whoever waits for its turn holds the dead worker's lock for a moment; so does this test, for longer."""
    (worker,) = agent.workers()
    (lock,) = agent.state.glob("jobs/*/.lock")
    with lock.open() as file:
        looker = threading.Thread(target=fcntl.flock, args=(file, fcntl.LOCK_SH))
        looker.start()
        os.kill(worker, signal.SIGKILL)
        looker.join()
        wait_until(lambda: agent.logged("worker_died"), "the daemon has noticed")
    assert 7 == server.completion(waiting[1]).code
    agent.wait_until_idle()


def kill_with_worker(agent: Agent) -> None:
    """Afterwards neither the daemon nor its only worker is there."""
    (worker,) = agent.workers()
    agent.kill()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not is_running(worker), "the worker is gone")


def test_the_next_daemon_ends_the_script_of_a_worker_that_died_together_with_the_daemon_and_reports(
    server: ControlServer, agent: Agent, gate: Gate, waiting: tuple[Deployment, str]
) -> None:
    """Both were killed for lack of memory, say, and the script runs on."""
    kill_with_worker(agent)
    assert is_running(gate.pid)
    agent.start()
    completion = server.completion(waiting[1])
    assert ("Failed", 7) == (completion.status, completion.code)
    assert f"has been ended: pid {gate.pid} " in completion.message
    assert not is_running(gate.pid)
    agent.wait_until_idle()
    assert 1 == len(server.completions(waiting[1]))


def test_after_a_reboot_a_process_with_the_pid_of_the_lost_script_is_left_alone(
    server: ControlServer, agent: Agent, gate: Gate, waiting: tuple[Deployment, str]
) -> None:
    """Pids and start times count from the boot: what has them now is somebody else's."""
    kill_with_worker(agent)
    (record,) = agent.state.glob("jobs/*/record.jsonl")
    this_boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert this_boot in record.read_text()
    record.write_text(record.read_text().replace(this_boot, "00000000-0000-4000-8000-000000000000"))
    agent.start()
    completion = server.completion(waiting[1])
    assert ("Failed", 7) == (completion.status, completion.code)
    assert "has been ended" not in completion.message
    assert is_running(gate.pid)


def test_a_command_that_could_not_become_history_is_not_carried_out_again(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """The disk was full when it ended. Delivered again, it is reported again; then its record goes, too."""
    deployment = application.revise("one", ["BeforeInstall"])
    server.carry(deployment, "DownloadBundle")
    agent.wait_until_idle()
    history = agent.state / "history.jsonl"
    history.rename(agent.state / "elsewhere")
    # Can be read, and not be written: links are not followed.
    history.symlink_to(agent.state / "elsewhere")
    identifier = server.send("BeforeInstall", deployment)
    assert "Succeeded" == server.completion(identifier).status
    wait_until(lambda: agent.logged("record_kept"), "the worker has ended")
    assert [] == agent.logged("worker_died")
    server.send("BeforeInstall", deployment, HostCommandIdentifier=identifier)
    server.wait_for(lambda: len(server.completions(identifier)) == 2, "it is reported again")
    history.unlink()
    agent.wait_until_idle()
    assert ["BeforeInstall of one"] == application.trace
    assert [identifier] == [entry["host_command_identifier"] for entry in agent.history()]


def test_a_command_becomes_history_as_soon_as_there_is_room_for_it(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """Until then `agentctl wait-idle` waits for it, and nobody delivers it again."""
    history = agent.state / "history.jsonl"
    history.symlink_to(agent.state / "elsewhere")
    server.carry(application.revise(), "DownloadBundle")
    wait_until(lambda: agent.logged("record_kept"), "the worker has ended")
    assert 1 == len(list(agent.state.glob("jobs/*")))
    history.unlink()
    agent.wait_until_idle()
    assert ["DownloadBundle"] == [entry["command_name"] for entry in agent.history()]
    assert [] == agent.logged("worker_died")


def test_a_command_that_was_done_is_not_refused_when_that_cannot_be_looked_up(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """The agent was out of descriptors when it was delivered again: Failed would contradict what was reported."""
    deployment = application.revise("one", ["BeforeInstall"])
    server.carry(deployment, "DownloadBundle")
    identifier = server.send("BeforeInstall", deployment)
    assert "Succeeded" == server.completion(identifier).status
    agent.wait_until_idle()
    history = agent.state / "history.jsonl"
    history.rename(agent.state / "elsewhere")
    history.mkdir()
    server.send("BeforeInstall", deployment, HostCommandIdentifier=identifier)
    wait_until(lambda: agent.logged("command_ignored"), "it has been looked at")
    history.rmdir()
    (agent.state / "elsewhere").rename(history)
    server.send("BeforeInstall", deployment, HostCommandIdentifier=identifier)
    server.wait_for(lambda: len(server.completions(identifier)) == 2, "it is reported again")
    assert {"Succeeded"} == {completion.status for completion in server.completions(identifier)}
    assert ["BeforeInstall of one"] == application.trace


def test_the_next_start_clears_away_what_could_not_become_history(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """Nobody delivers it again, and `agentctl wait-idle` waits for it."""
    history = agent.state / "history.jsonl"
    history.symlink_to(agent.state / "elsewhere")
    server.carry(application.revise(), "DownloadBundle")
    wait_until(lambda: agent.logged("record_kept"), "the worker has ended")
    agent.end()
    history.unlink()
    agent.start()
    agent.wait_until_idle()
    assert ["DownloadBundle"] == [entry["command_name"] for entry in agent.history()]


def test_a_command_whose_worker_died_before_it_did_anything_is_simply_carried_out(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """Nothing was lost, so nothing has to fail."""
    deployment = application.revise("one", ["BeforeInstall"])
    server.carry(deployment, "DownloadBundle")
    server.break_down("GetDeploymentSpecification", SERVER_ERROR)
    identifier = server.send("BeforeInstall", deployment)
    (worker,) = wait_until(agent.workers, "a worker asks for the specification")
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: worker not in agent.workers(), "another worker has taken over")
    server.heal()
    assert "Succeeded" == server.completion(identifier).status
    assert ["BeforeInstall of one"] == application.trace


def test_a_report_is_kept_while_the_endpoint_is_down_and_delivered_when_it_is_back(
    server: ControlServer, agent: Agent, gate: Gate, waiting: tuple[Deployment, str]
) -> None:
    """What the host did is done; only saying so has to wait."""
    server.break_down(COMPLETE, SERVER_ERROR)
    gate.open()
    server.wait_for_requests(COMPLETE, 4)
    server.heal()
    assert "Succeeded" == server.completion(waiting[1]).status
    agent.wait_until_idle()
    assert 1 == len(server.completions(waiting[1]))
    assert 1 == len([line for line in agent.logged("endpoint_trouble") if waiting[1] in line])


def test_a_report_survives_daemon_and_worker(
    server: ControlServer, agent: Agent, gate: Gate, application: Application, waiting: tuple[Deployment, str]
) -> None:
    """Both are killed while the endpoint is down; the next daemon delivers the true result."""
    server.break_down(COMPLETE, SERVER_ERROR)
    gate.open()
    server.wait_for_requests(COMPLETE, 2)
    (worker,) = agent.workers()
    agent.kill()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not is_running(worker), "the worker is gone")
    server.heal()
    agent.start()
    completion = server.completion(waiting[1])
    assert ("Succeeded", 0) == (completion.status, completion.code)
    assert ["BeforeInstall of one"] == application.trace
    agent.wait_until_idle()


def test_records_go_with_their_reports_and_the_history_tells_the_outcome(
    server: ControlServer, agent: Agent, waiting: tuple[Deployment, str], gate: Gate
) -> None:
    """State must not pile up on a host that runs for years, and people ask afterwards."""
    gate.open()
    server.completion(waiting[1])
    agent.wait_until_idle()
    entries = {entry["host_command_identifier"]: entry for entry in agent.history()}
    entry = entries[waiting[1]]
    assert ("BeforeInstall", "Succeeded") == (entry["command_name"], entry["result"]["status"])
    assert waiting[0].deployment_id == entry["deployment"]["deployment_id"]
    assert [] == list(agent.root.glob("ongoing-deployment/*"))
