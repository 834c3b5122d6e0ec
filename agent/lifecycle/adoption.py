"""Adopting the orphans of scripts.

A process whose parent has gone becomes a child of init, and nobody can tell any more which script
it came from. So while scripts run, such orphans become children of this process instead: what a
script has started is always found below the script or below ourselves.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.lifecycle.context import HookProcess
from agent.lifecycle.descendants import OtherProcesses
from agent.processes import start_ticks

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_PR_SET_CHILD_SUBREAPER = 36


@contextlib.contextmanager
def adopting_orphans() -> Iterator[int | None]:
    """Meanwhile orphans below this process become its children; gives its pid, or None where the kernel refuses."""
    prctl = ctypes.CDLL(None).prctl
    if prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        yield None
        return
    try:
        yield os.getpid()
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@contextlib.contextmanager
def hearing_of_children() -> Iterator[None]:
    """Meanwhile the exit status of a child waits for us to ask, also where whoever started us ignores SIGCHLD.

    Else the kernel drops it, and a script that failed could not be told from one that did not.
    """
    before = signal.getsignal(signal.SIGCHLD)
    if before is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def reap_orphans(*, spared: Collection[int]) -> None:
    """Reap adopted processes that have ended, up to the first that somebody else waits for."""
    with contextlib.suppress(ChildProcessError):
        while dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if dead.si_pid in spared:
                return
            os.waitpid(dead.si_pid, os.WNOHANG)


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierProcesses:
    """What this process, its children and theirs have left running before a script is started.

    Attributes:
        processes: each as it was then, since its pid may be another one's later.
        sessions: ids of the sessions that are none of the script's.
    """

    processes: frozenset[HookProcess]
    sessions: frozenset[int]

    def others(self) -> OtherProcesses:
        """Those that are still there."""
        pids = {process.pid for process in self.processes if _ticks(process.pid) == process.start_ticks}
        return OtherProcesses(pids=pids, sessions=self.sessions)


def find_earlier_processes(script_pids: Collection[int]) -> EarlierProcesses:
    """What is there before another script is started; no processes where the kernel was built without telling.

    Not only our children: an application that an earlier script has started may still be a child of
    its launcher. It becomes ours when that ends, and must not be taken for something of a later script.

    Args:
        script_pids: pids of the earlier scripts, which are the ids of their sessions, too.
    """
    pids = descendants_of(os.getpid())
    processes = {HookProcess(pid=pid, start_ticks=ticks) for pid in pids if (ticks := _ticks(pid))}
    sessions = {os.getsid(0), *script_pids}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            sessions.add(os.getsid(pid))
    return EarlierProcesses(processes=frozenset(processes), sessions=frozenset(sessions))


def descendants_of(pid: int) -> list[int]:
    """Pids of its children, their children and so on."""
    found = [pid]
    for parent in found:  # grows meanwhile
        found.extend(_children_of(parent))
    return found[1:]


def _children_of(pid: int) -> list[int]:
    # Each thread has children of its own.
    children: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            listed = Path(f"/proc/{pid}/task/{thread}/children").read_bytes()
            children.extend(int(child) for child in listed.split())
    return children


def _ticks(pid: int) -> int | None:
    try:
        return start_ticks(pid)
    except OSError:  # too many open files
        return None
