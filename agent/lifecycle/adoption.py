"""Adopting the orphans of scripts.

A process whose parent has gone becomes a child of init, and nobody can tell any more which script
it came from. So while scripts run, such orphans become children of this process instead: what a
script has started is always found below the script or below ourselves.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def bury_orphans(*, spared: int) -> None:
    """Reap adopted processes that have ended, up to the one that somebody else waits for."""
    with contextlib.suppress(ChildProcessError):
        while dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if dead.si_pid == spared:
                return
            os.waitpid(dead.si_pid, os.WNOHANG)


def own_children() -> tuple[int, ...]:
    """Pids of the children of this process; empty where the kernel was built without telling."""
    try:
        listed = Path(f"/proc/self/task/{os.getpid()}/children").read_bytes()
    except OSError:
        return ()
    return tuple(int(pid) for pid in listed.split())
