"""`agentctl status`: what the agent does, what it did last, and whether it lives at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.daemon.agent_process import clean_environment
from tests.daemon.control_server import HOST, POLL
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.daemon.agent_process import Agent
    from tests.daemon.control_server import ControlServer
    from tests.daemon.revisions import Application, Gate

pytestmark = pytest.mark.server


def test_a_running_agent_is_shown_with_its_last_poll_and_nothing_to_do(
    server: ControlServer, agent: Agent
) -> None:
    """The first thing that anybody types."""
    server.hold_s = 0
    agent.start()
    server.wait_for_requests(POLL, 2)
    shown = agent.agentctl("status")
    assert (0, "") == (shown.returncode, shown.stderr)
    for expected in (
        f"The agent is running (pid {agent.pid}, polling) since ",
        f"host        {HOST}",
        f"endpoint    {server.url}",
        "ago): no command",
        "Running now:\n  nothing",
        "Last deployments:\n  none",
    ):
        assert expected in shown.stdout


def test_a_running_command_and_finished_deployments_are_shown(
    server: ControlServer, agent: Agent, application: Application, gate: Gate
) -> None:
    """What it does right now, since when, in which process; and why the last one failed."""
    agent.start()
    good, bad = application.revise("one"), application.revise("two", ["AfterInstall"], script="exit 3")
    slow = application.revise("three", ["BeforeInstall"], script=gate.script)
    server.carry(good, "DownloadBundle", "Install", "ValidateService")
    server.carry(bad, "DownloadBundle", "Install")
    assert "Failed" == server.run("AfterInstall", bad).status
    server.carry(slow, "DownloadBundle")
    server.send("BeforeInstall", slow)
    wait_until(lambda: gate.is_reached, "the script runs")
    wait_until(lambda: len(agent.workers()) == 1, "all others are over")
    (worker,) = agent.workers()
    text = agent.agentctl("status").stdout
    assert f"BeforeInstall of {slow.deployment_id} for " in text
    assert f"(run, worker {worker})" in text
    assert f"{good.deployment_id}  Succeeded   ValidateService" in text
    assert f"{bad.deployment_id}  Failed      AfterInstall" in text
    assert "failed with exit code 3" in text
    told = json.loads(agent.agentctl("status", "--json").stdout)
    assert (True, "running", None) == (told["running"], told["state"], told["problem"])
    assert (agent.pid, HOST) == (told["daemon"]["pid"], told["daemon"]["host_identifier"])
    assert [("BeforeInstall", "run", worker)] == [
        (command["command"], command["step"], command["worker_pid"]) for command in told["commands"]
    ]
    assert [
        (slow.deployment_id, "InProgress", "BeforeInstall"),
        (bad.deployment_id, "Failed", "AfterInstall"),
        (good.deployment_id, "Succeeded", "ValidateService"),
    ] == [(item["deployment_id"], item["status"], item["last_event"]) for item in told["deployments"]]
    last = json.loads(agent.agentctl("status", "--json", "--last", "1").stdout)
    assert [slow.deployment_id] == [item["deployment_id"] for item in last["deployments"]]


def test_an_agent_that_was_stopped_is_told_from_one_that_died(agent: Agent) -> None:
    """One of the two needs somebody to look at it."""
    agent.start()
    agent.end()
    stopped = agent.agentctl("status")
    agent.start()
    agent.signal(signal.SIGKILL)
    agent.wait()
    died = agent.agentctl("status")
    assert (3, 3) == (stopped.returncode, died.returncode)
    assert "The agent is not running; it was stopped." == stopped.stdout.splitlines()[0]
    assert (
        f"The agent is not running; it died without saying why (it was pid {agent.pid}, polling)."
        == died.stdout.splitlines()[0]
    )
    assert (False, "not_running") == tuple(
        json.loads(agent.agentctl("status", "--json").stdout)[key] for key in ("running", "state")
    )


def test_an_agent_that_has_never_run_is_not_running(agent: Agent) -> None:
    """A fresh host, before the first start."""
    shown = agent.agentctl("status")
    assert 3 == shown.returncode
    assert "has never run with this configuration" in shown.stdout


def test_a_status_file_of_another_process_with_the_same_pid_deceives_nobody(agent: Agent) -> None:
    """Pids come again, after a reboot above all."""
    agent.start()
    status = agent.status()
    agent.kill()
    status["pid"] = os.getpid()
    (agent.state / "status.json").write_text(json.dumps(status))
    assert 3 == agent.agentctl("status").returncode


def test_a_damaged_status_file_is_no_reason_to_fail(agent: Agent) -> None:
    """The disk was full, or somebody edited it: nobody has the agent's lock, and so none runs."""
    agent.state.mkdir()
    (agent.state / "status.json").write_text("{")
    shown = agent.agentctl("status")
    assert (3, "") == (shown.returncode, shown.stderr)
    assert f"{agent.state / 'status.json'} can't be read: what is in it is damaged" in shown.stdout
    assert "has never run" not in shown.stdout


def test_a_damaged_status_file_does_not_hide_an_agent_that_runs(agent: Agent) -> None:
    """It holds its lock, whatever the file says."""
    agent.start()
    agent.signal(signal.SIGSTOP)
    (agent.state / "status.json").write_text("{")
    shown = agent.agentctl("status")
    agent.signal(signal.SIGCONT)
    assert 4 == shown.returncode
    assert f"An agent, pid {agent.pid}, holds the lock" in shown.stdout


def test_without_a_readable_configuration_nobody_knows(agent: Agent) -> None:
    """The usual exit code 1 would mean `dead` to a service manager."""
    agent.config_file.unlink()
    shown = agent.agentctl("status")
    assert 4 == shown.returncode
    assert str(agent.config_file) in shown.stderr
    assert "Traceback" not in shown.stderr


# Not the console script: another user may have no way to the interpreter, which lies where root put it.
AS_NOBODY = """
import os, sys
import agent.cli.main, agent.cli.status, encodings.ascii, encodings.utf_8_sig
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
agent.cli.main.main()
"""


def status_as_nobody(agent: Agent, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", AS_NOBODY, "status", "--config-file", str(agent.config_file), *arguments]
    return subprocess.run(command, env=clean_environment(), check=False, capture_output=True, text=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="root only: looks at root's files as another user")
def test_another_user_is_told_what_can_be_read_and_that_nobody_knows_otherwise(
    agent: Agent, tmp_path: Path
) -> None:
    """Monitoring should not need root; where it does, it must not report a dead agent."""
    # Directories of tests are closed to others.
    directory = tmp_path
    while directory.owner() == tmp_path.owner() and directory.name.startswith(("test_", "pytest-")):
        directory.chmod(0o755)
        directory = directory.parent
    agent.start()
    agent.config_file.chmod(0o644)
    readable = status_as_nobody(agent)
    agent.state.chmod(0o700)
    hidden = status_as_nobody(agent)
    told = status_as_nobody(agent, "--json")
    assert (0, 4, 4) == (readable.returncode, hidden.returncode, told.returncode), readable.stderr
    assert "The agent is running" in readable.stdout
    assert "unknown" in hidden.stdout
    assert "try again with sudo" in hidden.stdout
    assert "unknown" == json.loads(told.stdout)["state"]
