"""Whether a process that says that it is the daemon is there, and whether it works."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from agent.processes import boot_id, state_and_start

if TYPE_CHECKING:
    from agent.deployments import DaemonStatus

# Looking up a name and connecting may block the daemon, one server after the other; its watchdog is more patient.
SILENT_S = 60.0
# A living daemon goes to sleep once a second; one that has just gone to sleep for ever was seen to do so once.
_SAMPLE_S, _SAMPLE_STEP_S, _NAPS = 4.0, 0.1, 2
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting for a disk or another device",
    "T": "stopped by a signal",
    "t": "held by a debugger",
}


class Life(Enum):
    """What is to be said of the daemon's process. The values are part of the output of `agentctl status`."""

    WORKING = "working"
    STOPPED = "stopped"
    """By SIGSTOP, by a terminal's Ctrl-Z, or by a debugger."""
    HUNG = "hung"
    """It is there, and does nothing of what it does every second."""
    GONE = "gone"
    HIDDEN = "hidden"
    """A process of that number is there, but this user may not see which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitality:
    """What the kernel and the heartbeat tell of a daemon.

    Attributes:
        process_state: as the kernel has it, in words; empty when there is none.
        heartbeat_age_s: time since its last sign of life; None when nobody knows.
        is_silent: it works, but has long not been able to say so.
    """

    life: Life
    process_state: str = ""
    heartbeat_age_s: float | None = None
    is_silent: bool = False

    @property
    def is_frozen(self) -> bool:
        """Whether it is there and does not work."""
        return self.life in {Life.STOPPED, Life.HUNG}


def examine(status: DaemonStatus, heartbeat_at: float) -> Vitality:
    """What has become of the daemon that wrote this status. Takes four seconds where it seems to hang.

    Args:
        status: what it said of itself last.
        heartbeat_at: when it last gave a sign of life, in seconds since the epoch.
    """
    age = max(0.0, time.time() - heartbeat_at) if status.heartbeat_s and heartbeat_at else None
    if status.state == "stopped" or not status.start_ticks or status.boot_id not in {"", boot_id()}:
        return Vitality(life=Life.GONE, heartbeat_age_s=age)
    try:
        seen = state_and_start(status.pid)
    except PermissionError:
        return Vitality(life=Life.HIDDEN, heartbeat_age_s=age)
    if seen is None:
        life = Life.HIDDEN if _is_hidden(status.pid) else Life.GONE
        return Vitality(life=life, heartbeat_age_s=age)
    letter, ticks = seen
    # A pid alone may be somebody else's by now. A zombie has ended; nobody has taken note of it yet.
    if ticks != status.start_ticks or letter in "ZX":
        return Vitality(life=Life.GONE, heartbeat_age_s=age)
    is_late = age is not None and age > SILENT_S
    if letter in "Tt":
        life = Life.STOPPED
    elif is_late and not _wakes_up(status.pid):
        life = Life.HUNG
    else:
        life = Life.WORKING
    return Vitality(
        life=life,
        process_state=_STATES.get(letter, letter),
        heartbeat_age_s=age,
        is_silent=is_late and life is Life.WORKING,
    )


def _is_hidden(pid: int) -> bool:
    """Whether there is such a process although /proc, mounted with hidepid, does not show it to this user."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _wakes_up(pid: int) -> bool:
    """Whether the process does what a living daemon does every second: go to sleep, and wake up again."""
    before = _naps(pid)
    end = time.monotonic() + _SAMPLE_S
    while time.monotonic() < end:
        time.sleep(_SAMPLE_STEP_S)
        if _naps(pid) - before >= _NAPS:
            return True
    return False


def _naps(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return -1
    return next((int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches:")), -1)
