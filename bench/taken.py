"""What a process takes, from its start to its end."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one process took.

    Attributes:
        wall_s: seconds from its start to its end.
        cpu_s: seconds of processors, in the program and in the kernel, those of its children included.
        peak_kib: most memory of it or of one of its children, above what it began with; 0 when that is not known.
    """

    wall_s: float
    cpu_s: float
    peak_kib: int = 0


def spawned(command: list[str]) -> Taken:
    """What a tool takes."""
    start = time.perf_counter()
    return _ended(os.posix_spawnp(command[0], command, os.environ), command[0], start)


def forked(work: Callable[[], object]) -> Taken:
    """What `work` takes in a forked process."""
    reader, writer = os.pipe()
    start = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        _work(work, writer)
    os.close(writer)
    taken_before = int(os.read(reader, 32) or b"0")
    os.close(reader)
    return _ended(pid, "install", start, taken_before)


def _work(work: Callable[[], object], writer: int) -> NoReturn:
    status = 1
    try:
        os.write(writer, b"%d" % resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - nothing may escape into the copy of the caller
        traceback.print_exc()
    finally:
        os._exit(status)


def _ended(pid: int, name: str, start: float, rss_kib: int | None = None) -> Taken:
    try:
        _, status, usage = os.wait4(pid, 0)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    wall = time.perf_counter() - start
    if status:
        sys.exit(f"{name} failed: {os.waitstatus_to_exitcode(status)}")
    peak = 0 if rss_kib is None else usage.ru_maxrss - rss_kib
    return Taken(wall_s=wall, cpu_s=usage.ru_utime + usage.ru_stime, peak_kib=peak)
