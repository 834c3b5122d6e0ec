"""One host: a fresh directory, its agent, and everything that can be done to it."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.proxy import Proxy
    from chaos.schedule import Schedule

_BIN = Path(sys.executable).parent
_PIDS_CGROUPS = Path("/sys/fs/cgroup/pids")
_SMALL_DISK = "size=24m,nr_inodes=8000,mode=755"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class NotPossibleError(Exception):
    """This machine, or the moment, does not allow this fault; the text says why."""


@dataclass(kw_only=True)
class Harm:
    """What has been done so far, as far as the checks need to know.

    Attributes:
        workers: identifiers of the host commands whose worker was killed.
        hooks: pids of the hooks that were killed.
        stopped_hooks: pids of the hooks that were stopped for a while.
    """

    workers: set[str] = field(default_factory=set)
    hooks: set[int] = field(default_factory=set)
    stopped_hooks: set[int] = field(default_factory=set)


class Host:
    """A host in a directory of its own. Only processes that carry its mark are ever touched."""

    def __init__(self, directory: Path, identity_file: Path, ca_file: Path, s3_url: str) -> None:
        self.directory = directory
        self.mark = f"CHAOS_HOST={directory}"
        self.disk = directory / "disk"
        self.state = directory / "state"
        self.root = directory / "root"
        self.app = directory / "app"
        self.marks = directory / "marks"
        self.harm = Harm()
        self.daemon: subprocess.Popen[bytes] | None = None
        self.is_down = False
        self._is_over = False
        self._identity_file, self._ca_file, self._s3_url = identity_file, ca_file, s3_url
        self._lock = threading.RLock()
        self._environment: dict[str, str] = {}
        self._mounted = False
        self._cgroup: Path | None = None
        self._stopped: set[int] = set()

    def prepare(self, schedule: Schedule, proxy: Proxy) -> None:
        """Make directories, file systems and configuration."""
        self.directory.mkdir(parents=True)
        if schedule.disk.value != "shared":
            self._mount_small_disk()
            if schedule.disk.value == "root":
                self.root, self.app = self.disk / "root", self.disk / "app"
            else:
                self.state = self.disk / "state"
        self.marks.touch()
        self._write_boot_id()
        lines: dict[str, object] = {
            "root_dir": self.root,
            "log_dir": self.directory / "log",
            "pid_dir": self.state,
            "on_premises_config_file": self._identity_file,
            "deploy_control_endpoint": proxy.url,
            "s3_endpoint_override": self._s3_url,
            "deployment_signer_ca_file": self._ca_file,
            "wait_between_runs": 0.05,
            "http_read_timeout": 20,
            "min_free_bytes": 65536,
            "min_free_inodes": 10,
            "disable_core_dumps": "false",
            "kill_agent_max_wait_time_seconds": 1,
        }
        (self.directory / "agent.yml").write_text(
            "".join(f"{key}: {value}\n" for key, value in lines.items())
        )
        self._environment = _clean_environment()
        self._environment["CHAOS_HOST"] = str(self.directory)
        shim = self.directory.parent / "clock.so"
        if schedule.has_clock_steps and shim.exists():
            self._set_clock(0.0)
            self._environment |= {"LD_PRELOAD": str(shim), "CHAOS_CLOCK": str(self.directory / "clock")}
        self._make_cgroup()

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
            if self._cgroup is not None:
                (self._cgroup / "cgroup.procs").write_text(str(self.daemon.pid))

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

    # -- its conditions ----------------------------------------------------------------------------

    def fill_disk(self, duration_s: float) -> None:
        """No byte is free on the small disk for a while."""
        if not self._mounted:
            raise NotPossibleError("a small disk needs root")
        ballast = self.disk / "ballast"
        end = time.monotonic() + duration_s
        with ballast.open("ab", buffering=0) as file:
            while time.monotonic() < end:
                with contextlib.suppress(OSError):
                    while file.write(b"\0" * 4096) == 4096:
                        pass
                time.sleep(0.01)
        ballast.unlink()

    def make_read_only(self, duration_s: float) -> None:
        """The small disk is read-only for a while."""
        if not self._mounted:
            raise NotPossibleError("a small disk needs root")
        if subprocess.run(
            ["mount", "-o", "remount,ro", str(self.disk)], check=False, capture_output=True
        ).returncode:
            raise NotPossibleError("a file was open for writing")
        try:
            time.sleep(duration_s)
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(self.disk)], check=True)

    def take_files(self, duration_s: float) -> None:
        """The daemon, and workers that it starts meanwhile, can open no file."""
        if self.daemon is None or self.daemon.poll() is not None:
            raise NotPossibleError("no daemon runs")
        pid = self.daemon.pid
        try:
            used = len(os.listdir(f"/proc/{pid}/fd"))
            before = resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 1, 4096))
            time.sleep(duration_s)
            for process in self.processes():
                with contextlib.suppress(OSError):
                    resource.prlimit(process, resource.RLIMIT_NOFILE, (min(1024, before[1]), 4096))
        except OSError:
            raise NotPossibleError("it had just ended") from None

    def take_pids(self, duration_s: float) -> None:
        """No process of this host can start another."""
        if self._cgroup is None:
            raise NotPossibleError("no control group for pids can be made")
        limit = self._cgroup / "pids.max"
        limit.write_text((self._cgroup / "pids.current").read_text())
        time.sleep(duration_s)
        limit.write_text("max")

    def move_clock(self, by_s: float, duration_s: float) -> None:
        """The clock of this host is wrong for a while."""
        if not (self.directory / "clock").exists():
            raise NotPossibleError("a clock that can be moved needs a C compiler")
        self._set_clock(by_s)
        time.sleep(duration_s)
        self._set_clock(0.0)

    def _set_clock(self, by_s: float) -> None:
        # In place: processes have it mapped.
        descriptor = os.open(self.directory / "clock", os.O_WRONLY | os.O_CREAT, 0o644)
        os.pwrite(descriptor, struct.pack("d", by_s), 0)
        os.close(descriptor)

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
        if self._mounted:
            subprocess.run(["umount", "-l", str(self.disk)], check=False)
        if self._cgroup is not None:
            with contextlib.suppress(OSError):
                self._cgroup.rmdir()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _mount_small_disk(self) -> None:
        self.disk.mkdir()
        if os.geteuid() == 0:
            command = ["mount", "-t", "tmpfs", "-o", _SMALL_DISK, "chaos", str(self.disk)]
            self._mounted = subprocess.run(command, check=False).returncode == 0

    def _write_boot_id(self) -> None:
        # In place: the file is what is mounted.
        (self.directory / "boot_id").write_text(f"{uuid.uuid4()}\n")

    def _make_cgroup(self) -> None:
        cgroup = _PIDS_CGROUPS / f"chaos-{os.getpid()}-{self.directory.name}"
        with contextlib.suppress(OSError):
            if (_PIDS_CGROUPS / "cgroup.procs").exists():
                cgroup.mkdir()
                self._cgroup = cgroup


class Record:
    """What a job record says."""

    def __init__(self, content: bytes) -> None:
        self.lines: list[dict[str, Any]] = []
        for line in content.splitlines():
            with contextlib.suppress(ValueError):
                self.lines.append(json.loads(line))

    @property
    def identifier(self) -> str:
        """Of the host command."""
        found = [line["command"]["identifier"] for line in self.lines if line.get("entry") == "accepted"]
        return str(found[0]) if found else ""

    def pid_of(self, kind: str) -> int:
        """Of the worker, or of the script that runs; 0 when there is none."""
        for line in reversed(self.lines):
            if line.get("entry") == kind:
                facts = line if kind == "worker" else line.get("process") or {}
                return int(facts.get("pid", 0))
        return 0


def build_clock(directory: Path) -> None:
    """Where there is a C compiler: `clock.so`, by which the clock of one host can be moved."""
    compiler = shutil.which("cc")
    if compiler:
        source = Path(__file__).with_name("clock.c")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", str(directory / "clock.so"), str(source)], check=True
        )


def is_running(pid: int) -> bool:
    """Whether this process lives; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def _clean_environment() -> dict[str, str]:
    led_astray = ("AWS_", "PYTHONDONTWRITEBYTECODE", "NOTIFY_SOCKET", "WATCHDOG_")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(led_astray) and not name.lower().endswith("_proxy")
    }
