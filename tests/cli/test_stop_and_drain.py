"""`agentctl stop`, `drain` and `wait-idle`: what people and scripts do to an agent that has work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.daemon.agent_process import AGENTCTL
from tests.daemon.control_server import POLL
from tests.waiting import is_running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.daemon.agent_process import Agent
    from tests.daemon.control_server import ControlServer
    from tests.daemon.revisions import Application, Gate

pytestmark = pytest.mark.server


@pytest.fixture
def busy(server: ControlServer, agent: Agent, application: Application, gate: Gate) -> Iterator[str]:
    """The agent runs a hook that waits for the gate; the identifier of that command."""
    agent.start()
    deployment = application.revise("one", ["BeforeInstall"], script=gate.script)
    server.carry(deployment, "DownloadBundle")
    identifier = server.send("BeforeInstall", deployment)
    wait_until(lambda: gate.is_reached, "the script runs")
    yield identifier
    gate.open()


def begin(agent: Agent, *arguments: str) -> subprocess.Popen[str]:
    """A subcommand that takes its time."""
    return subprocess.Popen(
        [AGENTCTL, *arguments, "--config-file", agent.config_file],
        env=agent.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# -- stop ------------------------------------------------------------------------------------------


def test_stop_ends_an_idle_agent_and_says_so(agent: Agent) -> None:
    """Where the agent was started by hand there is no systemctl."""
    agent.start()
    done = agent.agentctl("stop")
    assert (0, "The agent has stopped.\n", "") == (done.returncode, done.stdout, done.stderr)
    assert 0 == agent.wait(1)
    again = agent.agentctl("stop")
    assert (0, "The agent does not run.\n") == (again.returncode, again.stdout)


def test_stop_waits_for_the_hook_that_runs_and_gives_up_when_it_is_told_to(
    server: ControlServer, agent: Agent, busy: str, gate: Gate
) -> None:
    """A script that stops the agent wants to know whether it has."""
    late = agent.agentctl("stop", "--timeout", "0.2")
    assert 1 == late.returncode
    assert "still waits for running commands" in late.stderr
    gate.open()
    assert "Succeeded" == server.completion(busy).status
    assert 0 == agent.wait()


def test_stop_says_which_commands_it_waits_for(agent: Agent, busy: str, gate: Gate) -> None:
    """Whoever waits for minutes wants to know for what, and how not to."""
    stopping = begin(agent, "stop")
    assert stopping.stderr is not None
    first, second = stopping.stderr.readline(), stopping.stderr.readline()
    gate.open()
    stdout, _ = stopping.communicate(timeout=20)
    assert "waits for these commands; --now does not" in first
    assert second.startswith("  BeforeInstall of d-")
    assert (0, "The agent has stopped.\n") == (stopping.returncode, stdout)


def test_drain_without_an_agent_says_that_none_runs(agent: Agent) -> None:
    """`The host is idle` alone would hide that somebody else has ended it."""
    done = agent.agentctl("drain")
    undone = agent.agentctl("drain", "--undo")
    assert (0, 0) == (done.returncode, undone.returncode)
    assert "The agent does not run; when it is started, it takes no commands until" in done.stdout
    assert "The agent does not run. When it is started, it takes commands." in undone.stdout


def test_wait_idle_says_where_no_agent_has_ever_run(agent: Agent) -> None:
    """Nothing to wait for may also mean that another configuration was meant."""
    done = agent.agentctl("wait-idle")
    assert 0 == done.returncode
    assert f"its pid_dir {agent.state} does not exist" in done.stderr


def test_stop_now_leaves_the_hook_to_finish_alone(
    server: ControlServer, agent: Agent, busy: str, gate: Gate
) -> None:
    """The agent must go at once, and the deployment must not suffer."""
    done = agent.agentctl("stop", "--now")
    assert (0, "The agent has stopped; 1 running.\n") == (done.returncode, done.stdout)
    assert 0 == agent.wait(1)
    assert [] == server.completions(busy)
    gate.open()
    assert "Succeeded" == server.completion(busy).status


def test_stop_now_hurries_an_agent_that_is_stopping_already(agent: Agent, busy: str) -> None:
    """Somebody has lost patience with `systemctl stop` in another window."""
    agent.signal()
    wait_until(lambda: agent.status()["state"] == "stopping", "the daemon has understood")
    assert 0 == agent.agentctl("stop", "--now").returncode
    assert 0 == agent.wait(1)


def test_stop_leaves_another_process_with_the_same_pid_alone(agent: Agent) -> None:
    """Pids come again; this one would be the test's own."""
    agent.start()
    status = agent.status()
    agent.kill()
    (agent.state / "status.json").write_text(json.dumps({**status, "pid": os.getpid()}))
    done = agent.agentctl("stop", "--now")
    assert (0, "The agent does not run.\n") == (done.returncode, done.stdout)


# -- drain -----------------------------------------------------------------------------------------


def test_drain_abandons_the_held_poll_waits_for_the_hook_and_says_that_the_host_is_idle(
    server: ControlServer, agent: Agent, application: Application, busy: str, gate: Gate
) -> None:
    """Before a host is taken out, or an image is made of it."""
    draining = begin(agent, "drain")
    wait_until(lambda: agent.status()["state"] == "draining", "the agent drains")
    polls = len(server.of(POLL))
    assert "draining" in agent.agentctl("status").stdout.splitlines()[0]
    held_back = server.send("DownloadBundle", application.in_another_group().revise("two"))
    assert draining.poll() is None
    gate.open()
    stdout, stderr = draining.communicate(timeout=20)
    assert (0, "") == (draining.returncode, stderr)
    assert stdout.startswith("The host is idle after ")
    assert "Succeeded" == server.completion(busy).status
    assert (polls, []) == (len(server.of(POLL)), server.completions(held_back))
    assert 0 == agent.agentctl("drain", "--undo").returncode
    assert "Succeeded" == server.completion(held_back).status
    assert "polling" == agent.status()["state"]


def test_drain_gives_up_waiting_and_still_drains(agent: Agent, busy: str) -> None:
    """`--timeout`: the caller decides what comes then."""
    done = agent.agentctl("drain", "--timeout", "0.3")
    assert (1, "") == (done.returncode, done.stdout)
    assert "1 command is still at work" in done.stderr
    wait_until(lambda: agent.status()["state"] == "draining", "the agent drains")


def test_drain_outlives_a_restart_of_the_agent_but_not_a_reboot(server: ControlServer, agent: Agent) -> None:
    """An upgrade must not undo it; a host that starts from an image of a drained one must work."""
    assert 0 == agent.agentctl("drain").returncode
    agent.launch()
    wait_until(lambda: agent.status().get("state") == "draining", "the agent drains")
    assert [] == server.of(POLL)
    agent.end()
    (agent.state / "draining").write_text("another boot")
    agent.start()
    server.wait_for_requests(POLL)


def test_an_agent_that_drains_stops_as_quickly_as_any(agent: Agent) -> None:
    """drain, then stop: the usual order."""
    agent.start()
    assert 0 == agent.agentctl("drain").returncode
    assert 0 == agent.end()
    assert "stopped" == agent.status()["state"]


def test_a_hangup_signal_by_itself_changes_nothing(server: ControlServer, agent: Agent) -> None:
    """Other daemons read their configuration again; whoever tries that must do no harm."""
    agent.start()
    server.wait_for_requests(POLL)
    agent.signal(signal.SIGHUP)
    agent.signal(signal.SIGHUP)
    assert 0 == agent.agentctl("status").returncode
    assert is_running(agent.pid)
    assert "polling" == agent.status()["state"]


# -- wait-idle -------------------------------------------------------------------------------------


def test_wait_idle_returns_when_the_hook_has_been_reported(
    server: ControlServer, agent: Agent, busy: str, gate: Gate
) -> None:
    """For scripts that must not pull the rug from under a deployment."""
    late = agent.agentctl("wait-idle", "--timeout", "0")
    assert 1 == late.returncode
    assert "1 command is still at work" in late.stderr
    waiting = begin(agent, "wait-idle")
    gate.open()
    assert ("", "") == waiting.communicate(timeout=20)
    assert 0 == waiting.returncode
    assert 1 == len(server.completions(busy))


def test_wait_idle_works_without_the_daemon(
    server: ControlServer, agent: Agent, busy: str, gate: Gate
) -> None:
    """The daemon is dead, its worker is not."""
    agent.kill()
    assert 1 == agent.agentctl("wait-idle", "--timeout", "0.1").returncode
    gate.open()
    assert 0 == agent.agentctl("wait-idle", "--timeout", "20").returncode
    assert 1 == len(server.completions(busy))


def test_on_a_host_where_no_agent_ever_ran_nothing_runs(agent: Agent) -> None:
    """The first boot of an image."""
    assert 0 == agent.agentctl("wait-idle", "--timeout", "0").returncode
    assert 2 == agent.agentctl("wait-idle", "--timeout", "soon").returncode
