"""The daemon process: `python -m agent.daemon DESCRIPTOR`, which only `agentctl run` calls."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.certificates import trusted_cas
from agent.daemon.daemon import Connected, Daemon, NotYet
from agent.daemon.daemon_launch import receive_launch
from agent.daemon.host_finder import HostFinder, control_stack, s3_url
from agent.daemon.lock import AgentLock
from agent.daemon.notification import ServiceNotifier
from agent.daemon.wakeups import Wakeups
from agent.daemon.worker_pool import WorkerPool
from agent.daemon.workers import Repairs, Workers
from agent.deployments.refused_start import RefusedStartFile
from agent.endpoint import Connection, HostCommandClient, tls_context, wait_readable
from agent.errors import AgentError, ConfigurationError
from agent.files import replace_file
from agent.identity.service_clock import ServiceClock
from agent.logs import Level, Log, LogSink, command_log
from agent.processes import forbid_core_dumps, initial_environment, show_as
from agent.proxies import proxy_for, who_set_proxy
from agent.worker.command import carry_to_end, report_abandoned, report_refusal
from agent.worker.context import HostContext, WorkerContext
from agent.worker.process import fork_worker

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping
    from datetime import timedelta
    from pathlib import Path

    from agent.daemon.daemon_launch import Launch
    from agent.deployments import Job
    from agent.identity.endpoints import ControlEndpoint
    from agent.identity.host_identity import HostIdentity

_TICK_S = 1.0
_BAD_CONFIGURATION = 2


def main(descriptor: int) -> int:
    """Run the agent until it is told to stop; returns the exit code."""
    launch = receive_launch(descriptor)
    settings = launch.settings
    environment = initial_environment()
    show_as("daemon")
    if settings.disable_core_dumps:
        forbid_core_dumps()
    sink = LogSink(settings.agent_log, level=Level.DEBUG if settings.verbose else Level.INFO)
    log = Log(sink)
    sys.excepthook = lambda _kind, error, _trace: _log_crash(log, error)
    lock = AgentLock(settings.root_dir, settings.pid_dir)
    refused_start = RefusedStartFile(settings.state_directory)
    try:
        lock.acquire()
        refused_start.clear()
        with _pid_file(settings.pid_dir / f"{settings.program_name}.pid", log):
            _Process(launch, sink, log, lock, environment).run()
    except ConfigurationError as error:
        refused_start.note(error)
        log.error("configuration_wrong", error=error.message, error_id=error.error_id)
        return _BAD_CONFIGURATION
    except AgentError as error:
        refused_start.note(error)
        log.error("agent_failed", error=error.message, error_id=error.error_id)
        return 1
    return 0


def _log_crash(log: Log, error: BaseException) -> None:
    """The last words of a daemon that has met an error of its own, in one line."""
    # Rarely needed, and not by the daemon at work.
    import traceback  # noqa: PLC0415

    trace = "".join(traceback.format_exception(error))
    log.error(
        "agent_crashed", error=f"{type(error).__name__}: {error}", error_id="internal-error", trace=trace
    )


@contextlib.contextmanager
def _pid_file(path: Path, log: Log) -> Iterator[None]:
    """Within the block the file holds our pid, for those who look there; it is the lock that counts."""
    try:
        replace_file(path, f"{os.getpid()}\n".encode(), durable=False)
    except OSError as error:
        log.warning("pid_file_not_written", path=str(path), error=str(error))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


class _Process:
    """Puts the parts together; the parts know nothing of each other."""

    def __init__(
        self, launch: Launch, sink: LogSink, log: Log, lock: AgentLock, environment: Mapping[str, str]
    ) -> None:
        self._environment = environment
        self._launch = launch
        self._settings = launch.settings
        self._sink = sink
        self._log = log
        self._lock = lock
        self._tick: Callable[[], None] = lambda: None
        self._wakeups = Wakeups(lambda: self._tick(), tick_interval_s=_TICK_S)  # noqa: PLW0108 - set later
        self._tls = tls_context(os.environ)
        self._clock = ServiceClock(self._log_clock_wrong)
        self._daemon: Daemon | None = None

    def run(self) -> None:
        """Be the agent of this host."""
        self._wakeups.catch(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        self._log.info("agent_started", pid=os.getpid(), root=str(self._settings.root_dir))
        finder = HostFinder(self._launch, os.environ, self._log)
        self._daemon = Daemon(
            settings=self._settings,
            connect=lambda: self._connect(finder),
            repairs=self._repairs(),
            wakeups=self._wakeups,
            notifier=ServiceNotifier(os.environ),
            log=self._log,
        )
        self._tick = self._daemon.tick
        self._daemon.run()

    def _connect(self, finder: HostFinder) -> Connected | NotYet:
        identity, wait_s = finder.try_once()
        if identity is None:
            return NotYet(reason=finder.trouble, wait_s=wait_s, error_id=finder.error_id)
        stack = control_stack(self._settings, identity)
        self._log.info("host_identified", host=identity.describe(), endpoint=stack.url)
        return Connected(
            client=self._client(stack, identity, self._wakeups.wait_for_socket),
            workers=self._workers(stack, identity),
            host_identifier=identity.host_identifier,
            endpoint=stack.url,
        )

    def _host(self, identity: HostIdentity | None) -> HostContext:
        """In a worker: what it has to know of this host."""
        command_log.configure(self._sink)
        return HostContext(
            settings=self._settings,
            identity=identity,
            s3_url=s3_url(self._settings, identity) if identity else "",
            environment=self._environment,
        )

    def _repairs(self) -> Repairs:
        return Repairs(
            restore=lambda job: self._fork(lambda: _restore(job, self._host(None))),
            recover_installs=lambda: self._fork(lambda: _recover_installs(self._host(None))),
        )

    def _workers(self, stack: ControlEndpoint, identity: HostIdentity) -> Workers:
        def context() -> WorkerContext:
            return WorkerContext(
                host=self._host(identity),
                host_identifier=identity.host_identifier,
                client=self._client(stack, identity, wait_readable),
                make_client=lambda: self._client(stack, identity, wait_readable),
            )

        def serve(job: Job, connection: socket.socket) -> None:
            # Only in the process that it is for.
            from agent.lifecycle import RecorderShelf  # noqa: PLC0415
            from agent.worker.service import serve  # noqa: PLC0415

            given = context()
            recorders = RecorderShelf()
            given = replace(given, host=replace(given.host, recorders=recorders))
            serve(job, connection, lambda job: carry_to_end(job, given), recorders.pids)

        return Workers(
            pool=WorkerPool(self._fork, serve),
            refuse=lambda command, reason: self._fork(lambda: report_refusal(command, reason, context())),
            abandon=lambda job: self._fork(lambda: report_abandoned(job, context())),
        )

    def _fork(self, work: Callable[[], None]) -> int:
        return fork_worker(work, leave_daemon=self._leave_daemon)

    def _client(
        self, stack: ControlEndpoint, identity: HostIdentity, wait: Callable[..., None]
    ) -> HostCommandClient:
        connection = Connection(
            stack.url,
            read_timeout_s=self._settings.http_read_timeout,
            proxy=proxy_for(stack.url, self._launch.proxies),
            proxy_set_by=who_set_proxy(stack.url, self._settings.proxy_uri, os.environ),
            tls=self._tls,
            cas=trusted_cas(os.environ),
            wait=wait,
        )
        on_exchange = self._log_exchange if self._settings.log_aws_wire else None
        return HostCommandClient(connection, stack, identity, on_exchange=on_exchange, clock=self._clock)

    def _log_clock_wrong(self, ahead: timedelta) -> None:
        behind_s = round(ahead.total_seconds())
        self._log.warning("clock_of_host_wrong", behind_s=behind_s, according_to="the control endpoint")

    def _log_exchange(self, operation: str, sent: str, status: int, received: str) -> None:
        self._log.info("wire", operation=operation, sent=sent, status=status, received=received)

    def _leave_daemon(self) -> None:
        """In a forked worker: let go of all that belongs to the daemon."""
        self._wakeups.release()
        self._lock.forget()
        if self._daemon is not None:
            self._daemon.close_in_worker()


def _restore(job: Job, host: HostContext) -> None:
    # Rarely needed, and not by the daemon.
    from agent.worker.recovery import restore  # noqa: PLC0415

    restore(job, host)


def _recover_installs(host: HostContext) -> None:
    from agent.worker.recovery import recover_interrupted  # noqa: PLC0415 - as above

    recover_interrupted(host)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
