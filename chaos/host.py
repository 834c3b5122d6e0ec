"""One host: a fresh directory, its agent, and everything that can be done to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.conditions import Conditions, NotPossibleError
from chaos.records import Record, is_running
from chaos.schedule import Disk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.schedule import Schedule

_BIN = Path(sys.executable).parent
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


@dataclass(kw_only=True)
class Harm:
    """What has been done so far, as far as the checks need to know.

    Attributes:
        workers: identifiers of the host commands whose worker was killed.
        hooks: pids of the hooks that were killed.
        stopped_hooks: pids of the hooks that were stopped for a while.
        gone: when the archive of a deployment was gone, by deployment.
    """

    workers: set[str] = field(default_factory=set)
    hooks: set[int] = field(default_factory=set)
    stopped_hooks: set[int] = field(default_factory=set)
    gone: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostServers:
    """What the agent is told of the world.

    Attributes:
        identity_file: who the host is.
        control_url: of the control endpoint.
        s3_url: of the S3 server.
        signer_ca_file: of the CA that signs specifications.
        tls_ca_file: of the CA of both servers; None = they don't speak TLS.
    """

    identity_file: Path
    control_url: str
    s3_url: str
    signer_ca_file: Path
    tls_ca_file: Path | None


class Host:
    """A host in a directory of its own. Only processes that carry its mark are ever touched."""

    def __init__(self, directory: Path, servers: HostServers) -> None:
        self.directory = directory
        self.mark = f"CHAOS_HOST={directory}"
        self.state = directory / "state"
        self.root = directory / "root"
        self.app = directory / "app"
        self.marks = directory / "marks"
        self.harm = Harm()
        self.conditions = Conditions(directory)
        self.daemon: subprocess.Popen[bytes] | None = None
        self.is_down = False
        self._is_over = False
        self._servers = servers
        self._lock = threading.RLock()
        self._environment: dict[str, str] = {}
        self._stopped: set[int] = set()

    def prepare(self, schedule: Schedule) -> None:
        """Make directories, file systems and configuration."""
        self.directory.mkdir(parents=True)
        if schedule.disk is not Disk.SHARED:
            self.conditions.mount_small_disk()
            if schedule.disk is Disk.ROOT:
                self.root, self.app = self.conditions.disk / "root", self.conditions.disk / "app"
            else:
                self.state = self.conditions.disk / "state"
        self.marks.touch()
        self._write_boot_id()
        lines = self._settings()
        if schedule.pre_accept:
            lines["pre_accept_command"] = self.conditions.write_pre_accept()
        (self.directory / "agent.yml").write_text(
            "".join(f"{key}: {value}\n" for key, value in lines.items())
        )
        self._environment = _clean_environment()
        self._environment["CHAOS_HOST"] = str(self.directory)
        if self._servers.tls_ca_file is not None:
            self._environment["AWS_CA_BUNDLE"] = str(self._servers.tls_ca_file)
        if schedule.has_clock_steps:
            self._environment |= self.conditions.preload_clock()

    def _settings(self) -> dict[str, object]:
        return {
            "root_dir": self.root,
            "log_dir": self.directory / "log",
            "pid_dir": self.state,
            "on_premises_config_file": self._servers.identity_file,
            "deploy_control_endpoint": self._servers.control_url,
            "s3_endpoint_override": self._servers.s3_url,
            "deployment_signer_ca_file": self._servers.signer_ca_file,
            "wait_between_runs": 0.05,
            "http_read_timeout": 20,
            "min_free_bytes": 65536,
            "min_free_inodes": 10,
            "disable_core_dumps": "false",
            "kill_agent_max_wait_time_seconds": 1,
        }

    # -- its agent ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the agent, unless it runs."""
        with self._lock:
            if self._is_over or (self.daemon is not None and self.daemon.poll() is None):
                return
            command = [str(_BIN / "agentctl"), "run", "--config-file", str(self.directory / "agent.yml")]
            with (self.directory / "agent.out").open("ab") as output:
                self.daemon = subprocess.Popen(
                    self._in_namespace(command),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=self._environment,
                    cwd=self.directory,
                    start_new_session=True,
                )
            self.conditions.adopt(self.daemon.pid)

    def _in_namespace(self, command: list[str]) -> list[str]:
        """The command, with a boot id that is this host's own."""
        if os.geteuid() != 0:
            return command
        mount = f'mount --bind "$0" {_BOOT_ID} && exec "$@"'
        boot_id = str(self.directory / "boot_id")
        return ["unshare", "-m", "--propagation", "private", "sh", "-c", mount, boot_id, *command]

    def keep_up(self) -> None:
        """Start the agent again when it has ended by itself or was killed, and is not meant to be down."""
        if not self.is_down:
            self.start()

    def end(self) -> int | None:
        """Ask the agent to end; its exit code, None when it was killed for not doing so."""
        with self._lock:
            daemon = self.daemon
            if daemon is None:
                return 0
            daemon.send_signal(signal.SIGTERM)
            try:
                return daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
                return None

    def resident_kib(self) -> int:
        """Memory of the daemon; 0 when there is none."""
        if self.daemon is None:
            return 0
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.daemon.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])
        return 0

    # -- its processes -----------------------------------------------------------------------------

    def processes(self) -> list[int]:
        """Every process that descends from this host's agent, whoever its parent is by now."""
        found = []
        mark = self.mark.encode()
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    found.append(int(name))
        return [pid for pid in found if is_running(pid)]

    def kill_everything(self) -> None:
        """Afterwards no process of this host is left."""
        while left := self.processes():
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)
        if self.daemon is not None:
            self.daemon.wait()

    def records(self) -> Iterator[Record]:
        """The job records that are there."""
        for path in sorted(self.state.glob("jobs/*/record.jsonl")):
            with contextlib.suppress(OSError):
                yield Record(path.read_bytes())

    def kill_worker(self) -> None:
        """SIGKILL to the worker of a command."""
        record, pid = self._some("worker")
        self.harm.workers.add(record.identifier)
        self._send(pid, signal.SIGKILL)

    def kill_hook(self) -> None:
        """SIGKILL to a hook, not to what it has started."""
        _, pid = self._some("script")
        self.harm.hooks.add(pid)
        self._send(pid, signal.SIGKILL)

    def kill_recorder(self) -> None:
        """SIGKILL to a process that reads what hooks print; the hook must not notice."""
        for pid in self.processes():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text() == "hook-output\n":
                    self._send(pid, signal.SIGKILL)
                    return
        raise NotPossibleError("no recorder runs")

    def drain(self, duration_s: float) -> None:
        """No command is taken for a while."""
        command = [str(_BIN / "agentctl"), "drain", "--config-file", str(self.directory / "agent.yml")]
        draining = subprocess.run(
            [*command, "--timeout", "0"], check=False, capture_output=True, env=self._environment
        )
        if draining.returncode not in (0, 1):
            raise NotPossibleError("the mark could not be written")
        time.sleep(duration_s)
        while subprocess.run(
            [*command, "--undo"], check=False, capture_output=True, env=self._environment
        ).returncode:
            time.sleep(0.1)

    def kill_daemon(self) -> None:
        """SIGKILL to the daemon."""
        if self.daemon is None or self.daemon.poll() is not None:
            raise NotPossibleError("no daemon runs")
        self.daemon.kill()
        self.daemon.wait()

    def stop_for(self, kind: str, duration_s: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        pid = self.daemon.pid if kind == "daemon" and self.daemon else 0
        if kind != "daemon":
            _, pid = self._some(kind)
        if kind == "script":
            self.harm.stopped_hooks.add(pid)
        self._send(pid, signal.SIGSTOP)
        self._stopped.add(pid)
        time.sleep(duration_s)
        self._send_quietly(pid, signal.SIGCONT)

    def reboot(self, duration_s: float) -> None:
        """Everything ends at once, and another boot begins."""
        if os.geteuid() != 0:
            raise NotPossibleError("another boot id needs root")
        with self._lock:
            self.is_down = True
            for record in self.records():
                self.harm.workers.add(record.identifier)
            self.kill_everything()
            for record in self.records():
                self.harm.workers.add(record.identifier)
            self._write_boot_id()
            time.sleep(min(duration_s, 0.5))
            self.is_down = False
            self.start()

    def take_files(self, duration_s: float) -> None:
        """The daemon can open no file for a while, nor can the workers that it starts meanwhile."""
        if self.daemon is None or self.daemon.poll() is not None:
            raise NotPossibleError("no daemon runs")
        self.conditions.take_files(self.daemon.pid, self.processes, duration_s)

    def take_memory(self, spare_bytes: int, *, is_killed: bool) -> None:
        """The worker of a command gets no more memory, or is killed for wanting more; so is what it starts."""
        record, pid = self._some("worker")
        # Noted before: it may be lost at once.
        self.harm.workers.add(record.identifier)
        if is_killed:
            self.conditions.run_out_of_memory(pid, spare_bytes)
        else:
            self.conditions.take_memory(pid, spare_bytes)

    def remove_archive(self, deployment_id: str) -> None:
        """The unpacked revision of this deployment is gone, as after a cleaner of temporary files."""
        try:
            for archive in self.root.glob(f"*/{deployment_id}/deployment-archive"):
                swept = archive.with_name("swept")
                archive.rename(swept)
                self.harm.gone[deployment_id] = time.time()
                shutil.rmtree(swept)
                return
        except OSError as error:
            raise NotPossibleError(f"the archive can't be removed: {error.strerror}") from None
        raise NotPossibleError("there is no archive")

    def _some(self, kind: str) -> tuple[Record, int]:
        for record in reversed(list(self.records())):
            pid = record.pid_of(kind)
            if pid and is_running(pid) and pid in self.processes():
                return record, pid
        raise NotPossibleError(f"no {kind} runs")

    def _send(self, pid: int, number: signal.Signals) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            raise NotPossibleError("it had just ended") from None

    def _send_quietly(self, pid: int, number: signal.Signals) -> None:
        with contextlib.suppress(NotPossibleError):
            self._send(pid, number)

    def heal(self) -> None:
        """Whatever lasts is over."""
        for pid in self._stopped:
            if pid in self.processes():
                self._send_quietly(pid, signal.SIGCONT)

    def clean_up(self) -> None:
        """Nothing of this host runs or lies anywhere any more."""
        with self._lock:
            # Who is about to start the agent again must not do so behind our back.
            self._is_over = True
        self.kill_everything()
        self.conditions.clean_up()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _write_boot_id(self) -> None:
        # In place: the file is what is mounted.
        (self.directory / "boot_id").write_text(f"{uuid.uuid4()}\n")


def _clean_environment() -> dict[str, str]:
    led_astray = ("AWS_", "PYTHONDONTWRITEBYTECODE", "NOTIFY_SOCKET", "WATCHDOG_")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(led_astray) and not name.lower().endswith("_proxy")
    }
