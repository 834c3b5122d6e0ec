"""What `journalctl` shows of the agent: priorities, and ids that can be looked up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from agent.logs import Level, Log, LogSink
from tests.daemon.agent_process import clean_environment
from tests.daemon.control_server import HOST, POLL, SERVER_ERROR
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.daemon.agent_process import Agent
    from tests.daemon.conftest import MakeAgent
    from tests.daemon.control_server import ControlServer
    from tests.daemon.revisions import Application

pytestmark = pytest.mark.server


@pytest.fixture
def agent(make_agent: MakeAgent) -> Agent:
    """An agent whose output is what it takes for the journal, not started yet."""
    made = make_agent()
    status = os.stat(output_of(made))
    made.environment["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
    return made


def output_of(agent: Agent) -> Path:
    path = agent.directory / "out"
    path.touch()
    return path


def priorities(agent: Agent, event: str) -> list[str]:
    return [line[:3] for line in agent.logged(event)]


def test_a_failed_command_is_an_error_and_a_successful_one_is_not(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """Whoever is on call looks for errors first."""
    agent.start()
    deployment = application.revise("one", ["BeforeInstall"], script="#!/bin/sh\nexit 3\n")
    server.carry(deployment, "DownloadBundle")
    assert "Failed" == server.run("BeforeInstall", deployment).status
    wait_until(lambda: len(agent.logged("command_finished")) == 2, "both are over")
    assert ["<6>", "<3>"] == priorities(agent, "command_finished")
    assert ["<6>"] == priorities(agent, "agent_started")
    assert all(re.match(r"<[3467]>\d{4}-", line) for line in agent.output().splitlines())


def test_trouble_has_an_id_and_is_a_warning(server: ControlServer, agent: Agent) -> None:
    """It may pass."""
    server.break_down(POLL, SERVER_ERROR)
    agent.launch()
    (line,) = wait_until(lambda: agent.logged("poll_failed"), "a poll has failed")
    assert line.startswith("<4>")
    assert " error_id=endpoint-unavailable " in line


def test_a_host_that_is_not_identified_says_so_with_an_id(agent: Agent) -> None:
    """Nothing answers at this address."""
    agent.identity_file.unlink()
    agent.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = "http://127.0.0.1:1"
    agent.launch()
    (line,) = wait_until(lambda: agent.logged("host_not_identified"), "it has tried")
    assert line.startswith("<4>")
    assert " error_id=identity-unavailable " in line


def wrong_setting(agent: Agent) -> None:
    agent.configure(wait_between_runs="never")


def wrong_identity_file(agent: Agent) -> None:
    agent.identity_file.write_text("region: [")


def wrong_ca(agent: Agent) -> None:
    agent.environment["AWS_CA_BUNDLE"] = "/nowhere/ca.pem"


def root_that_is_a_file(agent: Agent) -> None:
    (agent.directory / "file").touch()
    agent.configure(root_dir=agent.directory / "file" / "root")


@pytest.mark.parametrize("spoil", [wrong_setting, wrong_identity_file, wrong_ca, root_that_is_a_file])
def test_every_line_of_a_refused_start_is_an_error_and_the_last_one_ends_with_an_id(
    agent: Agent, spoil: object
) -> None:
    """The unit has failed, and the first thing that anybody does is `journalctl -u codedeploy-agent -p err`."""
    assert callable(spoil)
    spoil(agent)
    agent.launch()
    assert 2 == agent.wait()
    lines = agent.output().splitlines()
    assert lines
    assert all(line.startswith("<3>") for line in lines), lines
    assert lines[-1].endswith(" [configuration-invalid]")


def test_a_proxy_that_can_not_be_one_ends_the_start_with_an_id_and_without_its_password(agent: Agent) -> None:
    """It would fail for ever."""
    agent.environment["http_proxy"] = "socks5://user:secret@proxy:1080"
    agent.launch()
    assert 2 == agent.wait()
    (line,) = agent.logged("configuration_wrong")
    assert line.startswith("<3>")
    assert "http_proxy in the agent's environment must be of the form http://host:port" in line
    assert " error_id=configuration-invalid" in line
    assert "secret" not in agent.output()


def test_a_password_in_a_setting_that_is_refused_is_shown_to_nobody(agent: Agent) -> None:
    """The reason of a failed start is in the journal and in `agentctl status`, which everybody may read."""
    agent.configure(proxy_uri="socks5://user:secret@proxy.example.com:1080")
    agent.launch()
    assert 2 == agent.wait()
    status = agent.agentctl("status")
    for shown in (agent.output(), status.stdout):
        assert "`proxy_uri` is `socks5://***@proxy.example.com:1080`; expected an address" in shown
        assert "secret" not in shown + status.stderr


def test_a_password_in_the_address_of_an_endpoint_is_not_used_and_not_shown(agent: Agent) -> None:
    """Requests are signed, so it can be of no use there; the address itself is in every message."""
    agent.configure(
        deploy_control_endpoint="http://user:secret@127.0.0.1:1", s3_endpoint_override="http://user:secret@s3"
    )
    agent.launch()
    (line,) = wait_until(lambda: agent.logged("poll_failed"), "a poll has failed")
    status = agent.agentctl("status")
    assert "The control endpoint http://127.0.0.1:1 gave no answer" in line
    assert "secret" not in agent.output() + status.stdout + status.stderr
    for key in ("deploy_control_endpoint", "s3_endpoint_override"):
        assert f"the user and password in `{key}` are not used" in agent.output()


CRASH = """
import os
from agent.worker.process import fork_worker
def crash():
    raise RuntimeError("broken")
os.waitpid(fork_worker(crash, leave_daemon=lambda: None), 0)
"""


def test_every_line_of_the_traceback_of_a_crashed_worker_is_an_error(tmp_path: Path) -> None:
    """The journal takes each line for itself."""
    path = tmp_path / "stderr"
    with path.open("wb") as stream:
        status = os.fstat(stream.fileno())
        environment = clean_environment(JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}")
        subprocess.run([sys.executable, "-c", CRASH], check=True, stderr=stream, env=environment)
    lines = path.read_text().splitlines()
    assert ["<3>Traceback (most recent call last):", "<3>RuntimeError: broken"] == [lines[0], lines[-1]]
    assert all(line.startswith("<3>") for line in lines)


def test_an_error_of_the_agents_own_is_one_line_with_its_traceback(tmp_path: Path) -> None:
    """So that it can be reported, and found."""
    from agent.daemon.__main__ import _log_crash  # noqa: PLC0415

    log = Log(LogSink(tmp_path / "log", level=Level.INFO, to_stderr=False))
    try:
        raise RuntimeError(HOST)
    except RuntimeError as error:
        _log_crash(log, error)
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert f'ERROR   agent_crashed error="RuntimeError: {HOST}" error_id=internal-error' in line
    assert "Traceback (most recent call last)" in line
