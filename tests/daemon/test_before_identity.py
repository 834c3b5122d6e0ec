"""What an earlier daemon has left is seen to before the host knows who it is, which may take its time."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from agent.daemon.daemon import Connected, Daemon, NotYet
from agent.daemon.notification import ServiceNotifier
from agent.daemon.wakeups import Wakeups
from agent.daemon.worker_pool import WorkerPool
from agent.daemon.workers import Repairs, Workers
from agent.deployments import CommandResult, JobStore, RecordedProcess
from agent.logs import Log, LogSink
from agent.protocol import CommandStatus, HostCommand
from agent.settings import Settings
from agent.worker.process import LEAVING, fork_worker
from tests.daemon.agent_process import ON_PREMISES
from tests.waiting import is_running, wait_until

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from agent.deployments import Job
    from agent.endpoint import HostCommandClient
    from tests.daemon.agent_process import Agent
    from tests.daemon.conftest import MakeAgent
    from tests.daemon.control_server import ControlServer, Deployment
    from tests.daemon.revisions import Application, Gate

pytestmark = pytest.mark.server

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def agent(make_agent: MakeAgent) -> Agent:
    """An agent that learns who the host is from a file, or, without it, never."""
    return make_agent(AWS_EC2_METADATA_SERVICE_ENDPOINT=NOWHERE).start()


@pytest.fixture
def waiting(
    server: ControlServer, agent: Agent, application: Application, gate: Gate
) -> tuple[Deployment, str]:
    """A deployment whose BeforeInstall has begun and waits for the gate; the command's identifier."""
    deployment = application.revise("one", ["BeforeInstall"], script=gate.script)
    server.carry(deployment, "DownloadBundle")
    identifier = server.send("BeforeInstall", deployment)
    wait_until(lambda: gate.is_reached, "the script runs")
    return deployment, identifier


def start_without_identity(agent: Agent) -> None:
    """The daemon was killed, and its successor can't find out who the host is."""
    agent.kill()
    agent.identity_file.unlink()
    agent.launch()
    wait_until(lambda: agent.logged("worker_adopted"), "it has seen the worker that lives")
    assert "starting" == agent.status()["state"]


def result_of(agent: Agent) -> list[str]:
    """The results that the records hold."""
    return [entry["error_id"] for record in agent.records() for entry in record if entry["entry"] == "result"]


def test_the_script_of_a_dead_worker_is_ended_at_once_and_reported_when_the_host_knows_its_name(
    server: ControlServer, agent: Agent, gate: Gate, waiting: tuple[Deployment, str]
) -> None:
    """The metadata service is down after a crash: that is no reason to let half a deployment run on."""
    (worker,) = agent.workers()
    agent.kill()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not is_running(worker), "the worker is gone")
    agent.identity_file.unlink()
    agent.launch()
    wait_until(lambda: not is_running(gate.pid), "the script is ended")
    wait_until(lambda: result_of(agent) == ["worker-lost"], "what is to be said of it is kept")
    assert [] == server.completions(waiting[1])
    assert "starting" == agent.status()["state"]
    agent.end()
    agent.identity_file.touch(mode=0o600)
    agent.identity_file.write_text(ON_PREMISES)
    agent.start()
    completion = server.completion(waiting[1])
    assert ("Failed", 7) == (completion.status, completion.code)
    assert f"has been ended: pid {gate.pid} " in completion.message
    agent.wait_until_idle()
    assert 1 == len(server.completions(waiting[1]))


def test_a_worker_that_dies_meanwhile_is_cleaned_up_after(
    server: ControlServer, agent: Agent, gate: Gate, waiting: tuple[Deployment, str]
) -> None:
    """The new daemon had left it alone, since it lived."""
    (worker,) = agent.workers()
    start_without_identity(agent)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: result_of(agent) == ["worker-lost"], "the host is in order")
    assert not is_running(gate.pid)
    assert [] == server.completions(waiting[1])


def test_sigterm_waits_for_workers_also_before_the_host_knows_who_it_is(
    server: ControlServer, agent: Agent, gate: Gate, waiting: tuple[Deployment, str]
) -> None:
    """Whoever stops the agent, to switch the host off, believes that it is idle when it has ended."""
    start_without_identity(agent)
    agent.signal()
    wait_until(lambda: agent.status()["state"] == "stopping", "the daemon has understood")
    assert is_running(agent.pid)
    gate.open()
    assert "Succeeded" == server.completion(waiting[1]).status
    assert 0 == agent.wait()
    (line,) = agent.logged("agent_stopped")[-1:]
    assert "workers_left=0" in line


class Client:
    """Delivers nothing, and has the daemon stop once all records are gone."""

    def __init__(self, store: JobStore) -> None:
        self.wakeups: Wakeups | None = None
        self.store = store

    def poll_host_command(self) -> HostCommand | None:
        assert self.wakeups is not None
        if not self.store.jobs():
            self.wakeups._note(signal.SIGTERM, None)
        return None

    def close(self) -> None:
        """There is no connection."""


def test_a_lost_command_is_restored_before_the_host_knows_its_name_and_reported_by_the_same_daemon_after(
    tmp_path: Path,
) -> None:
    """During boot the metadata service may come late; what the crash has left must not wait for it."""
    store = JobStore(tmp_path)
    job = store.accept(
        HostCommand(identifier="c", host_identifier="h", deployment_execution_id="e", name="x")
    )
    job.note_worker(RecordedProcess(pid=2, start_ticks=1, boot_id="an earlier one"))
    job.note_step("run")
    job.let_go()
    done: list[str] = []

    def fork(what: str, work: Callable[[Job], None]) -> Callable[[Job], int]:
        def start(job: Job) -> int:
            done.append(what)
            pid = os.fork()
            if pid == 0:
                work(job)
                os._exit(0)
            return pid

        return start

    def fork_to_report(work: Callable[[], None]) -> int:
        done.append("report")
        return fork_worker(work, leave_daemon=lambda: None)

    def report(job: Job, connection: socket.socket) -> None:
        job.remove()
        connection.send(LEAVING)

    lost = CommandResult(status=CommandStatus.FAILED, error_code=7, message="", payload="{}")
    client = Client(store)
    connected = Connected(
        client=cast("HostCommandClient", client),
        workers=Workers(
            pool=WorkerPool(fork_to_report, report),
            refuse=lambda _command, _reason: 0,
            abandon=fork("abandon", lambda job: job.remove()),
        ),
        host_identifier="h",
        endpoint="e",
    )

    def connect() -> Connected | NotYet:
        state = store.jobs()[0].read()
        is_restored = state is not None and state.result is not None
        return connected if is_restored else NotYet(reason="The file is not there yet.", wait_s=0.01)

    settings = replace(Settings(), root_dir=tmp_path, pid_dir=tmp_path, wait_between_runs=0.05)
    wakeups = Wakeups(lambda: daemon.tick(), tick_interval_s=0.02)  # noqa: PLW0108 - defined below
    daemon = Daemon(
        settings=settings,
        connect=connect,
        repairs=Repairs(
            restore=fork("restore", lambda job: job.note_result(lost)), recover_installs=lambda: 0
        ),
        wakeups=wakeups,
        notifier=ServiceNotifier({}),
        log=Log(LogSink(tmp_path / "log", to_stderr=False)),
    )
    client.wakeups = wakeups
    daemon.run()
    assert ["restore", "report"] == done
    assert [] == store.jobs()
