"""What keeps an agent from starting, what it loads when it has started, and where it finds out who it is."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.daemon.lock import AgentLock
from agent.errors import AgentError
from agent.worker.runs import update
from tests.daemon.agent_process import clean_environment
from tests.daemon.control_server import HOST, POLL, error
from tests.identity.metadata_server import DOCUMENT, ROLE, ROLES, MetadataServer, role_credentials
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.daemon.agent_process import Agent
    from tests.daemon.conftest import MakeAgent
    from tests.daemon.control_server import ControlServer
    from tests.daemon.revisions import Application

pytestmark = pytest.mark.server

# What polling does not need. Each of them in a process that lives for months is memory for nothing.
LEFT_TO_WORKERS = {
    "agent.appspec",
    "agent.bundle",
    "agent.cli",
    "agent.install",
    "agent.lifecycle.run",
    "agent.settings_file",
    "agent.worker.recovery",
    "agent.worker.runs.download",
    "agent.worker.runs.install",
    "asyncio",
    "click",
    "isal",
    "psutil",
    "requests",
    "structlog",
    "tenacity",
    "urllib3",
    "yaml",
}


# -- one agent per root --------------------------------------------------------------------------------


def test_a_second_agent_on_the_same_root_does_not_start_and_names_the_first(
    agent: Agent, make_agent: MakeAgent
) -> None:
    """Two agents on one root would deploy into each other."""
    second = make_agent({"root_dir": agent.root}).launch()
    assert 1 == second.wait()
    (line,) = second.logged("agent_failed")
    assert f"(pid {agent.pid}: " in line
    assert str(agent.root) in line
    assert "Stop that one first" in line
    assert "error_id=agent-already-runs" in line
    assert "polling" == agent.status()["state"]
    assert [] == list(second.state.glob("*.pid"))


def test_the_root_is_free_once_its_agent_is_gone_however_it_went(agent: Agent) -> None:
    """A lock that outlives a crash needs somebody to remove it at 3 a.m."""
    agent.kill()
    agent.start()
    assert f"{agent.pid}\n" == (agent.state / "codedeploy-agent.pid").read_text()


def test_a_pid_file_that_cannot_be_written_keeps_no_agent_from_starting(
    server: ControlServer, make_agent: MakeAgent, application: Application
) -> None:
    """A full disk is when people restart things. It is the lock that counts; something else may be said of it."""
    agent = make_agent()
    in_the_way = agent.state / "codedeploy-agent.pid"
    in_the_way.mkdir(parents=True)
    agent.start()
    (line,) = agent.logged("pid_file_not_written")
    assert str(in_the_way) in line
    server.carry(application.revise(), "DownloadBundle")
    assert 0 == agent.end()
    assert "Traceback" not in agent.output()


def test_a_directory_that_cannot_be_locked_is_named(tmp_path: Path) -> None:
    """Two agents might work on it; `agent_failed` says why this one does not, instead of a traceback."""
    lock = AgentLock(tmp_path, tmp_path / "not there")
    with pytest.raises(AgentError, match=r"not there can't be locked.*No such file or directory"):
        lock.acquire()
    # And nothing is held any more.
    AgentLock(tmp_path).acquire()


# -- configuration -------------------------------------------------------------------------------------


def test_a_wrong_configuration_is_refused_with_all_problems_of_all_files(
    make_agent: MakeAgent, tmp_path: Path
) -> None:
    """Who has to start it again for every single mistake gives up after the third."""
    not_a_directory = tmp_path / "file"
    not_a_directory.touch()
    agent = make_agent(
        {"log_dir": not_a_directory / "log", "deployment_signer_ca_file": tmp_path / "no-ca.pem"}
    )
    agent.identity_file.write_text("region: us-east-1\niam_user_arn: nobody\nregoin: x\n")
    assert 2 == agent.launch().wait()
    output = agent.output()
    for expected in (
        f"{agent.identity_file} can't be used",
        "aws_access_key_id",
        f"{agent.config_file} can't be used",
        f"`log_dir` {not_a_directory}/log can't be made: Not a directory; make it, or name another",
        f"`deployment_signer_ca_file` {tmp_path}/no-ca.pem can't be read",
    ):
        assert expected in output, output
    assert "Traceback" not in output


def test_every_wrong_setting_is_listed_with_its_line(make_agent: MakeAgent) -> None:
    """Whoever has made three mistakes should not have to start the agent three times."""
    agent = make_agent()
    agent.config_file.write_text(
        "root_dir: here\nwait_between_runs: often\nmax_revisions: 0\nroot_dir: /tmp\nverbose: [yes]\n"
    )
    assert 2 == agent.launch().wait()
    output = agent.output()
    assert [1, 2, 3, 4, 5] == sorted({int(number) for number in re.findall(r"line (\d+)", output)})
    assert str(agent.config_file) in output
    assert "Traceback" not in output


def test_a_configuration_file_that_is_not_there_is_named(make_agent: MakeAgent) -> None:
    """An agent that silently ran with defaults would poll for the wrong host."""
    agent = make_agent()
    agent.config_file.unlink()
    assert 2 == agent.launch().wait()
    assert f"{agent.config_file} can't be used" in agent.output()
    assert "No such file" in agent.output()


def test_fips_mode_in_a_region_without_it_is_a_wrong_configuration(make_agent: MakeAgent) -> None:
    """Polling an endpoint without FIPS instead would break a promise to an auditor."""
    agent = make_agent({"use_fips_mode": "true", "deploy_control_endpoint": ""})
    agent.configure(deploy_control_endpoint="~")
    agent.identity_file.write_text(agent.identity_file.read_text().replace("us-east-1", "eu-west-1"))
    assert 2 == agent.launch().wait()
    assert "use_fips_mode" in agent.output()
    assert "eu-west-1" in agent.output()


def test_settings_that_have_no_effect_are_named_once(server: ControlServer, make_agent: MakeAgent) -> None:
    """A file of another agent loads as it is; a misspelt key must not go unnoticed."""
    agent = make_agent({"max_revision": 3, "shared_dir": "/tmp"}).start()
    warnings = "\n".join(agent.logged("configuration_warning"))
    assert "`max_revision` is not a setting; did you mean `max_revisions`?" in warnings
    assert "`shared_dir` has no effect any more" in warnings


# -- memory --------------------------------------------------------------------------------------------


def loaded_modules() -> set[str]:
    """What a fresh interpreter has loaded once it could be the daemon.

    It cannot be asked of a living daemon, so this loads the daemon's entry module the same way:
    `-I`, and nothing but it. That misses what is imported later, inside functions; the test of the
    mapped libraries looks at a living one that has polled and forked.
    """
    script = "import agent.daemon.__main__, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", script],
        check=True,
        capture_output=True,
        text=True,
        env=clean_environment(),
    )
    return set(done.stdout.split())


def test_the_daemon_loads_nothing_that_only_workers_need() -> None:
    """Memory at rest is what people judge an agent by."""
    loaded = loaded_modules()
    assert "agent.daemon.daemon" in loaded
    unwanted = {
        name
        for name in loaded
        for prefix in LEFT_TO_WORKERS
        if name == prefix or name.startswith(f"{prefix}.")
    }
    assert set() == unwanted


def test_a_daemon_that_has_worked_has_no_library_of_its_workers_mapped(
    server: ControlServer, make_agent: MakeAgent, application: Application
) -> None:
    """Extension modules show in the memory map of the process itself, whoever has loaded them.

    That map is open to the process's own user only if it may leave core dumps.
    """
    agent = make_agent({"disable_core_dumps": "false"}).start()
    deployment = application.revise("one", ["BeforeInstall"])
    server.carry(deployment, "DownloadBundle", "BeforeInstall", "Install")
    agent.wait_until_idle()
    mapped = Path(f"/proc/{agent.pid}/maps").read_text()
    libraries = {Path(line.split()[-1]).name for line in mapped.splitlines() if ".so" in line}
    assert any(name.startswith("libc.so") for name in libraries)
    assert [] == [name for name in libraries if re.search(r"yaml|psutil|isal|igzip|charset|markupsafe", name)]


# -- identity ------------------------------------------------------------------------------------------


@pytest.fixture
def metadata_server() -> Iterator[MetadataServer]:
    yield from MetadataServer().running()


def on_ec2(agent: Agent) -> Agent:
    """The same agent on a host without an on-premises file."""
    agent.identity_file.unlink()
    return agent


INSTANCE = "arn:aws:ec2:eu-west-1:123456789012:instance/i-0abc1234567890def"


def test_an_instance_polls_under_its_own_name_with_the_credentials_of_its_role(
    server: ControlServer, make_agent: MakeAgent, metadata_server: MetadataServer
) -> None:
    """No file on the host names it."""
    agent = on_ec2(make_agent(AWS_EC2_METADATA_SERVICE_ENDPOINT=metadata_server.url)).start()
    (poll,) = server.wait_for_requests(POLL)
    assert {"HostIdentifier": INSTANCE} == poll.request
    assert "Credential=ASIA1/" in poll.headers["authorization"]
    assert "/eu-west-1/codedeploy-commands/" in poll.headers["authorization"]
    assert "token-1" == poll.headers["x-amz-security-token"]
    assert INSTANCE == agent.status()["host_identifier"]


def test_credentials_that_the_service_refuses_are_renewed_at_once(
    server: ControlServer, make_agent: MakeAgent, metadata_server: MetadataServer
) -> None:
    """Somebody revoked the sessions of the role: no wait, no failed poll."""
    server.hold_s = 0
    on_ec2(make_agent(AWS_EC2_METADATA_SERVICE_ENDPOINT=metadata_server.url)).start()
    server.wait_for_requests(POLL)
    metadata_server.texts[ROLES + ROLE] = role_credentials(2)
    server.trouble(POLL, error(400, "ExpiredTokenException"))
    server.wait_for(
        lambda: any("Credential=ASIA2/" in poll.headers["authorization"] for poll in server.of(POLL)),
        "a poll with the new credentials",
    )


def test_without_metadata_the_agent_keeps_trying_says_so_and_ends_when_told(
    make_agent: MakeAgent, metadata_server: MetadataServer
) -> None:
    """During boot the network may come after the agent."""
    metadata_server.statuses = [503] * 1000
    agent = on_ec2(make_agent(AWS_EC2_METADATA_SERVICE_ENDPOINT=metadata_server.url)).launch()
    (line,) = wait_until(lambda: agent.logged("host_not_identified"), "the agent says so")
    assert metadata_server.url in line
    assert str(agent.identity_file) in line
    assert ("starting", "") == (agent.status()["state"], agent.status()["host_identifier"])
    shown = agent.agentctl("status")
    assert 0 == shown.returncode
    assert "starting" in shown.stdout.splitlines()[0]
    began = time.monotonic()
    assert 0 == agent.end()
    assert time.monotonic() - began < 1


def test_a_stop_during_a_question_to_a_silent_metadata_service_is_obeyed(
    make_agent: MakeAgent, metadata_server: MetadataServer
) -> None:
    """The service is reachable, and hangs."""
    metadata_server.silent_paths = {DOCUMENT}
    agent = on_ec2(make_agent(AWS_EC2_METADATA_SERVICE_ENDPOINT=metadata_server.url)).launch()
    wait_until(lambda: any(DOCUMENT in request for request in metadata_server.requests), "it asks")
    began = time.monotonic()
    assert 0 == agent.end()
    assert time.monotonic() - began < 1
    assert "stopped" == agent.status()["state"]


def test_a_host_name_in_the_environment_wins(server: ControlServer, make_agent: MakeAgent) -> None:
    """AWS_HOST_IDENTIFIER and AWS_REGION are how containers say who they are."""
    make_agent(AWS_HOST_IDENTIFIER=f"{HOST}-b", AWS_REGION="eu-north-1").start()
    (poll,) = server.wait_for_requests(POLL)
    assert {"HostIdentifier": f"{HOST}-b"} == poll.request
    assert "/eu-north-1/" in poll.headers["authorization"]


# -- the service manager -------------------------------------------------------------------------------


def test_the_service_manager_is_told_what_happens(
    server: ControlServer, make_agent: MakeAgent, tmp_path: Path
) -> None:
    """Type=notify: `systemctl start` returns when the agent really polls, and a stuck one is restarted."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        # The path of such a socket is short, that of a test's directory may not be.
        address = f"\0agent-test-{os.getpid()}-{id(manager)}"
        manager.bind(address)
        manager.settimeout(20)
        environment = {"NOTIFY_SOCKET": f"@{address[1:]}", "WATCHDOG_USEC": "200000"}
        agent = make_agent(**environment).start()
        told = {manager.recv(1000).decode() for _ in range(3)}
        agent.signal()
        while "STOPPING=1" not in told:
            told.add(manager.recv(1000).decode())
        agent.wait()
    assert {"READY=1", "WATCHDOG=1", "STOPPING=1"} <= told


def test_the_service_manager_sees_that_the_agent_is_alive_while_it_finds_out_who_the_host_is(
    make_agent: MakeAgent, metadata_server: MetadataServer
) -> None:
    """During boot that may take longer than the watchdog's patience."""
    metadata_server.statuses = [503] * 1000
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = f"\0agent-test-{os.getpid()}-{id(manager)}"
        manager.bind(address)
        manager.settimeout(20)
        environment = {"NOTIFY_SOCKET": f"@{address[1:]}", "WATCHDOG_USEC": "200000"}
        on_ec2(make_agent(AWS_EC2_METADATA_SERVICE_ENDPOINT=metadata_server.url, **environment)).launch()
        told: list[str] = []
        while told.count("WATCHDOG=1") < 2:
            told.append(manager.recv(1000).decode())
    assert "READY=1" in told
    assert "STATUS=polling" not in told


def test_the_unit_leaves_workers_and_applications_alone_whatever_becomes_of_the_daemon() -> None:
    """They are in its control group: systemd would end all of them when the kernel kills one for lack of memory."""
    unit = Path(__file__).parents[2] / "systemd" / "codedeploy-agent.service"
    assert {"KillMode=process", "OOMPolicy=continue"} <= set(unit.read_text().splitlines())


def test_neither_daemon_nor_workers_compile_what_they_load(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """A disk that is full takes half of a compiled module, and from then on nobody can load it."""
    compiled = Path(importlib.util.cache_from_source(update.__file__))
    compiled.unlink(missing_ok=True)
    assert "Failed" == server.run("UpdateDeploymentAgent", application.revise("one")).status
    assert not compiled.exists()
