"""Waiting for something to happen, instead of sleeping."""

from __future__ import annotations

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
