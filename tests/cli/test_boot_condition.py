"""`start_when_file` and `start_when_command`: an agent that is there, and waits until its host has been set up."""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from agent.cli.boot_condition import what_is_missing
from agent.errors import ConfigurationError
from agent.settings import Settings
from agent.settings_file import parse_settings
from tests.daemon.agent_process import Agent
from tests.daemon.control_server import POLL, ControlServer
from tests.waiting import is_running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.server


@pytest.fixture
def agents() -> Iterator[list[Agent]]:
    """Whatever is put in here does not outlive the test."""
    started: list[Agent] = []
    yield started
    for agent in started:
        agent.clear_away()


def waiting_agent(
    tmp_path: Path,
    server: ControlServer,
    agents: list[Agent],
    environment: dict[str, str],
    **settings: object,
) -> Agent:
    """An agent that has said what it waits for."""
    made = {"deploy_control_endpoint": server.url, **settings}
    agents.append(Agent(tmp_path / "agent", made, **environment))
    agent = agents[-1].launch()
    wait_until(lambda: agent.logged("start_waits"), "it says what it waits for")
    return agent


def test_no_command_is_taken_before_the_file_exists(
    tmp_path: Path, server: ControlServer, agents: list[Agent]
) -> None:
    """A deployment to an image that is half set up fails, or worse, succeeds."""
    file = tmp_path / "ready"
    agent = waiting_agent(tmp_path, server, agents, {}, start_when_file=file)
    (line,) = agent.logged("start_waits")
    assert f'missing="start_when_file {file} does not exist"' in line
    shown = agent.agentctl("status")
    assert 0 == shown.returncode
    assert "starting" in shown.stdout.splitlines()[0]
    pid = agent.pid
    assert [] == server.of(POLL)
    file.touch()
    server.wait_for_requests(POLL)
    assert (pid, "polling") == (agent.status()["pid"], agent.status()["state"])
    assert 1 == len(agent.logged("start_goes_on"))


def test_no_command_is_taken_before_the_command_succeeds(
    tmp_path: Path, server: ControlServer, agents: list[Agent]
) -> None:
    """Not everything that makes a host ready is a file. The reason is logged once, not at every try."""
    ready, tries = tmp_path / "ready", tmp_path / "tries"
    probe = tmp_path / "probe"
    probe.write_text(f'#!/bin/sh\necho >> "{tries}"\ntest -e "{ready}" || exit 7\n')
    probe.chmod(0o755)
    agent = waiting_agent(tmp_path, server, agents, {}, start_when_command=probe)
    wait_until(lambda: tries.read_text().count("\n") >= 2, "it tries again")
    assert [] == server.of(POLL)
    ready.touch()
    server.wait_for_requests(POLL)
    (line,) = agent.logged("start_waits")
    assert "it exited with 7" in line


def test_a_stop_is_obeyed_at_once_while_the_agent_waits(
    tmp_path: Path, server: ControlServer, agents: list[Agent]
) -> None:
    """A host that never becomes ready must still be shut down."""
    agent = waiting_agent(tmp_path, server, agents, {}, start_when_file=tmp_path / "ready")
    began = time.monotonic()
    assert 0 == agent.end()
    assert time.monotonic() - began < 1
    assert "stopped" == agent.status()["state"]
    assert [] == server.of(POLL)


def test_a_stop_is_obeyed_while_the_command_runs(
    tmp_path: Path, server: ControlServer, agents: list[Agent]
) -> None:
    """It may hang just when somebody wants to stop the agent because it hangs."""
    pid_file = tmp_path / "pid"
    probe = tmp_path / "probe"
    probe.write_text(f'#!/bin/sh\necho $$ > "{pid_file}"\nexec sleep 60\n')
    probe.chmod(0o755)
    agents.append(Agent(tmp_path / "agent", {"start_when_command": probe}))
    agents[0].launch()
    probing = int(wait_until(lambda: pid_file.read_text() if pid_file.exists() else "", "the command runs"))
    try:
        began = time.monotonic()
        assert 0 == agents[0].end()
        assert time.monotonic() - began < 1
    finally:
        os.kill(probing, signal.SIGKILL)
        wait_until(lambda: not is_running(probing), "the command is gone")


def test_a_waiting_agent_can_be_drained_and_does_not_poll_when_it_goes_on(
    tmp_path: Path, server: ControlServer, agents: list[Agent]
) -> None:
    """Draining sends SIGHUP, which must not end an agent that only waits."""
    file = tmp_path / "ready"
    agent = waiting_agent(tmp_path, server, agents, {}, start_when_file=file)
    assert 0 == agent.agentctl("drain", "--timeout", "5").returncode
    file.touch()
    wait_until(lambda: agent.status().get("state") == "draining", "it goes on, and drains")
    assert [] == server.of(POLL)


def test_a_second_agent_does_not_wait_beside_the_first(
    tmp_path: Path, server: ControlServer, agents: list[Agent]
) -> None:
    """It would say of itself what is to be said of the first, and could never go on."""
    first = waiting_agent(tmp_path, server, agents, {}, start_when_file=tmp_path / "ready")
    second = Agent(tmp_path / "second", {"start_when_file": tmp_path / "ready", "root_dir": first.root})
    agents.append(second.launch())
    assert 1 == second.wait()
    assert "[agent-already-runs]" in second.output()
    assert first.pid == first.status()["pid"]


def test_the_service_manager_sees_an_agent_that_is_ready_alive_and_waits(
    tmp_path: Path, server: ControlServer, agents: list[Agent]
) -> None:
    """`systemctl start` must not hang while the image is set up, and the watchdog must not bark."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = f"\0agent-test-{os.getpid()}-{id(manager)}"
        manager.bind(address)
        manager.settimeout(20)
        file = tmp_path / "ready"
        environment = {"NOTIFY_SOCKET": f"@{address[1:]}", "WATCHDOG_USEC": "200000"}
        waiting_agent(tmp_path, server, agents, environment, start_when_file=file)
        told: list[str] = []
        while told.count("WATCHDOG=1") < 2:
            told.append(manager.recv(1000).decode())
        assert "READY=1" in told
        assert f"STATUS=waiting: start_when_file {file} does not exist" in told
        file.touch()
        while "STATUS=polling" not in told:
            told.append(manager.recv(1000).decode())


def test_a_command_that_cannot_be_started_is_one_that_says_no(tmp_path: Path) -> None:
    """The program may be put there by what sets up the image."""
    settings = Settings(start_when_command=str(tmp_path / "not-there"))
    missing = what_is_missing(settings)
    assert f"start_when_command `{tmp_path}/not-there`: " in missing
    assert "No such file or directory" in missing


def test_both_conditions_must_hold(tmp_path: Path) -> None:
    """A host that is ready in one respect only is not ready."""
    settings = Settings(start_when_file=tmp_path, start_when_command="/bin/false")
    assert "start_when_command `/bin/false`: it exited with 1" == what_is_missing(settings)
    settings = Settings(start_when_file=tmp_path / "no", start_when_command="/bin/true")
    assert f"start_when_file {tmp_path}/no does not exist" == what_is_missing(settings)
    assert "" == what_is_missing(Settings(start_when_file=tmp_path, start_when_command="/bin/true"))


@pytest.mark.parametrize("key", ["start_when_command", "pre_accept_command", "agent_update_command"])
def test_a_command_with_an_open_quote_is_a_wrong_configuration(key: str) -> None:
    """Else the agent would wait, or refuse every deployment, for ever."""
    with pytest.raises(ConfigurationError, match="a command whose quotes are closed"):
        parse_settings(f"{key}: test -e 'x\n".encode(), source="agent.yml")
