"""One host: a fresh directory, its agent, and the processes of both."""

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

from chaos.conditions import Conditions
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

    def crash(self, down_s: float) -> None:
        """Everything ends at once, and after a while another boot begins."""
        with self._lock:
            self.is_down = True
            for record in self.records():
                self.harm.workers.add(record.identifier)
            self.kill_everything()
            for record in self.records():
                self.harm.workers.add(record.identifier)
            self._write_boot_id()
            time.sleep(down_s)
            self.is_down = False
            self.start()

    def agentctl(self, *arguments: str) -> int:
        """Run this subcommand for this host; its exit code."""
        command = [str(_BIN / "agentctl"), *arguments, "--config-file", str(self.directory / "agent.yml")]
        return subprocess.run(command, check=False, capture_output=True, env=self._environment).returncode

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
