"""What scripts and recorders have left to look at."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from tests.waiting import is_running

if TYPE_CHECKING:
    from collections.abc import Callable


def read(path: Path) -> str:
    """What the file holds; empty when there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def recorders() -> list[int]:
    """Pids of the processes that record for this one."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    names = {int(pid): Path(f"/proc/{pid}/comm") for pid in children}
    return [pid for pid, name in names.items() if is_running(pid) and name.read_text() == "hook-output\n"]


def killing_recorder(ready: Path) -> Callable[[], bool]:
    """The `cancelled` of an event whose recorder is killed as soon as its script has made that file, which then goes."""

    def kill_recorder() -> bool:
        if ready.exists():
            os.kill(recorders()[0], signal.SIGKILL)
            ready.unlink()
        return False

    return kill_recorder
