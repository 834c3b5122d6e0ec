"""Waiting for something to happen, instead of sleeping."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def wait_until(condition: Callable[[], object], *, within_s: float = 20) -> None:
    """Return as soon as the condition holds; fail when it never does."""
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    """Whether this process lives; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def read(path: Path) -> str:
    """What the file holds; empty when there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def recorders() -> list[int]:
    """Pids of the processes that record for this one."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    names = {int(pid): Path(f"/proc/{pid}/comm") for pid in children}
    return [pid for pid, name in names.items() if is_running(pid) and name.read_text() == "hook-output\n"]
