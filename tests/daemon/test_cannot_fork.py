"""The host has run out of processes: what was accepted waits for one, and is not lost."""

from __future__ import annotations

import errno
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from agent.daemon.daemon import Connected, Daemon
from agent.daemon.notification import ServiceNotifier
from agent.daemon.wakeups import Wakeups
from agent.daemon.worker_pool import WorkerPool
from agent.daemon.workers import Repairs, Workers
from agent.deployments import JobStore
from agent.logs import Log, LogSink
from agent.protocol import HostCommand
from agent.settings import Settings
from agent.worker.process import LEAVING, fork_worker

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from agent.deployments import Job
    from agent.endpoint import HostCommandClient

COMMAND = HostCommand(identifier="one", host_identifier="h", deployment_execution_id="e", name="Install")


class Client:
    """Delivers one command, and has the daemon stop once that is over."""

    def __init__(self) -> None:
        self.wakeups: Wakeups | None = None
        self.store: JobStore | None = None
        self.commands = [COMMAND]

    def poll_host_command(self) -> HostCommand | None:
        assert self.wakeups is not None
        assert self.store is not None
        if self.commands:
            return self.commands.pop()
        if not self.store.jobs():
            self.wakeups._note(signal.SIGTERM, None)
        return None

    def close(self) -> None:
        """There is no connection."""


def test_a_command_whose_worker_cannot_be_forked_is_carried_out_when_that_is_possible_again(
    tmp_path: Path,
) -> None:
    """A fork bomb elsewhere on the host must cost neither the daemon nor the command."""
    refusals = 3
    tries: list[float] = []

    def fork(work: Callable[[], None]) -> int:
        tries.append(time.monotonic())
        if len(tries) <= refusals:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return fork_worker(work, leave_daemon=lambda: None)

    def carry(job: Job, connection: socket.socket) -> None:
        job.remove()
        connection.send(LEAVING)

    client = Client()
    settings = replace(Settings(), root_dir=tmp_path, pid_dir=tmp_path, wait_between_runs=0.05)
    wakeups = Wakeups(lambda: daemon.tick(), tick_interval_s=0.02)  # noqa: PLW0108 - defined below
    log_file = tmp_path / "log"
    connected = Connected(
        client=cast("HostCommandClient", client),
        workers=Workers(
            pool=WorkerPool(fork, carry), refuse=lambda _command, _reason: 0, abandon=lambda _job: 0
        ),
        host_identifier="h",
        endpoint="e",
    )
    daemon = Daemon(
        settings=settings,
        connect=lambda: connected,
        repairs=Repairs(restore=lambda _job: 0, recover_installs=lambda: 0),
        wakeups=wakeups,
        notifier=ServiceNotifier({}),
        log=Log(LogSink(log_file, to_stderr=False)),
    )
    client.wakeups, client.store = wakeups, JobStore(tmp_path)
    daemon.run()
    assert refusals + 1 == len(tries)
    assert 1 == log_file.read_text().count(" worker_not_started ")
    assert [] == JobStore(tmp_path).jobs()
