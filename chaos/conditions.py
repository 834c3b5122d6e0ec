"""What a host lacks for a while: disk, descriptors, processes, memory, the right time, a yes of its administrator."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import struct
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.control_groups import ControlGroups

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_REFUSING_S = 6.0
_SMALL_DISK = "size=24m,nr_inodes=8000,mode=755"
# The administrator's command writes down what it has said, so that a report can be compared with it.
_PRE_ACCEPT = """\
#!/bin/sh
answer=taken
test -e {directory}/refusing && answer=refused
echo "$DEPLOYMENT_ID $LIFECYCLE_EVENT $answer $$" >> {directory}/answers
test $answer = taken
"""


class NotPossibleError(Exception):
    """This machine, or the moment, does not allow this fault; the text says why."""


class Conditions:
    """Those of one host, whose files lie in this directory."""

    def __init__(self, directory: Path) -> None:
        self.disk = directory / "disk"
        self.answers = directory / "answers"
        self.pre_accept = directory / "pre-accept"
        self._clock = directory / "clock"
        self._refusing = directory / "refusing"
        self._groups = ControlGroups(f"chaos-{os.getpid()}-{directory.name}")
        self._is_mounted = False

    # -- before the agent starts ---------------------------------------------------------------------

    def mount_small_disk(self) -> None:
        """Make a small file system, where this machine allows it, or a directory."""
        self.disk.mkdir()
        if os.geteuid() == 0:
            command = ["mount", "-t", "tmpfs", "-o", _SMALL_DISK, "chaos", str(self.disk)]
            self._is_mounted = subprocess.run(command, check=False).returncode == 0

    def preload_clock(self) -> dict[str, str]:
        """Variables with which the agent's clock can be moved; none where it can't."""
        shim = self._clock.parent.parent / "clock.so"
        if not shim.exists():
            return {}
        self._set_clock(0.0)
        return {"LD_PRELOAD": str(shim), "CHAOS_CLOCK": str(self._clock)}

    def write_pre_accept(self) -> Path:
        """The administrator's command, which says yes for now."""
        self.pre_accept.write_text(_PRE_ACCEPT.format(directory=self.pre_accept.parent))
        self.pre_accept.chmod(0o755)
        return self.pre_accept

    def adopt(self, pid: int) -> None:
        """From now on the limits are those of this process, and of what it starts."""
        self._groups.adopt(pid)

    # -- faults --------------------------------------------------------------------------------------

    def fill_disk(self, duration_s: float) -> None:
        """No byte is free on the small disk for a while."""
        self._need_disk()
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
        self._need_disk()
        if subprocess.run(
            ["mount", "-o", "remount,ro", str(self.disk)], check=False, capture_output=True
        ).returncode:
            raise NotPossibleError("a file was open for writing")
        try:
            time.sleep(duration_s)
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(self.disk)], check=True)

    def take_files(self, daemon: int, processes: Callable[[], list[int]], duration_s: float) -> None:
        """The daemon, and workers that it starts meanwhile, can open no file."""
        try:
            used = len(os.listdir(f"/proc/{daemon}/fd"))
            before = resource.prlimit(daemon, resource.RLIMIT_NOFILE, (used + 1, 4096))
        except OSError:
            raise NotPossibleError("it had just ended") from None
        time.sleep(duration_s)
        for process in processes():
            with contextlib.suppress(OSError):
                resource.prlimit(process, resource.RLIMIT_NOFILE, (min(1024, before[1]), 4096))

    def take_pids(self, duration_s: float) -> None:
        """No process of this host can start another."""
        if not self._groups.limit_pids():
            raise NotPossibleError("no control group for pids can be made")
        time.sleep(duration_s)
        self._groups.unlimit_pids()

    def take_memory(self, worker: int, spare_bytes: int) -> None:
        """This process and what it starts may map hardly more than it has mapped, until `give_memory`."""
        try:
            pages = int(Path(f"/proc/{worker}/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + spare_bytes
            before = resource.prlimit(worker, resource.RLIMIT_AS)
            resource.prlimit(worker, resource.RLIMIT_AS, (most, before[1]))
        except (OSError, IndexError):
            raise NotPossibleError("it had just ended") from None

    def give_memory(self, processes: Iterable[int]) -> None:
        """These have no limit any more: a worker is kept for further commands, and hands its limit down."""
        self._groups.unlimit_memory()
        for process in processes:
            with contextlib.suppress(OSError):
                most = resource.prlimit(process, resource.RLIMIT_AS)[1]
                resource.prlimit(process, resource.RLIMIT_AS, (most, most))

    def run_out_of_memory(self, worker: int, spare_bytes: int) -> None:
        """The kernel kills this process, or what it starts, once they use that much more, until `give_memory`."""
        try:
            is_limited = self._groups.limit_memory(worker, spare_bytes)
        except ProcessLookupError:
            raise NotPossibleError("it had just ended") from None
        if not is_limited:
            raise NotPossibleError("no control group for memory can be made")

    def refuse(self, duration_s: float) -> None:
        """The administrator's command says no for a while, and longer when nobody has asked by then."""
        begun = time.monotonic()
        before = self._refusals()
        self._refusing.touch()
        while (elapsed_s := time.monotonic() - begun) < duration_s or (
            self._refusals() == before and elapsed_s < _REFUSING_S
        ):
            time.sleep(0.05)
        self._refusing.unlink(missing_ok=True)

    def _refusals(self) -> int:
        return self.answers.read_text().count(" refused ") if self.answers.exists() else 0

    def move_clock(self, by_s: float, duration_s: float) -> None:
        """The clock of this host is wrong for a while."""
        if not self._clock.exists():
            raise NotPossibleError("a clock that can be moved needs a C compiler")
        self._set_clock(by_s)
        time.sleep(duration_s)
        self._set_clock(0.0)

    def _set_clock(self, by_s: float) -> None:
        # In place: processes have it mapped.
        descriptor = os.open(self._clock, os.O_WRONLY | os.O_CREAT, 0o644)
        os.pwrite(descriptor, struct.pack("d", by_s), 0)
        os.close(descriptor)

    def _need_disk(self) -> None:
        if not self._is_mounted:
            raise NotPossibleError("a small disk needs root")

    # -- afterwards ----------------------------------------------------------------------------------

    def killed_for_memory(self) -> int:
        """How many processes the kernel has killed for want of memory."""
        return self._groups.killed_for_memory()

    def clean_up(self) -> None:
        """Nothing is mounted or limited any more; no process of the host may be left."""
        if self._is_mounted:
            subprocess.run(["umount", "-l", str(self.disk)], check=False)
        self._groups.remove()


def build_clock(directory: Path) -> None:
    """Where there is a C compiler: `clock.so`, by which the clock of one host can be moved."""
    compiler = shutil.which("cc")
    if compiler:
        source = Path(__file__).with_name("clock.c")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", str(directory / "clock.so"), str(source)], check=True
        )
