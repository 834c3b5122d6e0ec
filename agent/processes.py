"""Processes that are still the ones that we mean, and forks that end with us."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import setproctitle

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4


def forbid_core_dumps() -> None:
    """Afterwards neither this process nor those that it forks leave core dumps, which would hold its keys.

    What it executes may leave them again: an application that a hook starts is none of our secrets.
    A process of an ordinary user can't read its own /proc/self/environ any more.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def die_with(parent: int) -> None:
    """Afterwards this process is killed as soon as the one that has forked it ends; at once if it has ended already."""
    # Python has no such call of its own; this is for the few forks that go on without an exec.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def kill_child(pid: int) -> None:
    """Afterwards this child, which nobody has waited for, is gone, whatever it was doing."""
    os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


def signal_name(number: int) -> str:
    """As in `signal 9 (SIGKILL)`; `signal 35` where there is no name."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


def show_as(role: str) -> None:
    """Afterwards `ps` and `systemctl status` show this process as `codedeploy-agent: <role>`.

    Cut to the room that the command line had. The environment, which lies behind it, stays readable for others.
    Names from elsewhere may hold anything; what a terminal would obey, or no command line can hold, becomes a `?`.
    """
    shown = "".join(character if character.isprintable() else "?" for character in role)
    os.environ["SPT_NOENV"] = "1"
    setproctitle.setproctitle(f"codedeploy-agent: {shown}")
    del os.environ["SPT_NOENV"]


def initial_environment() -> dict[str, str]:
    """The environment that this process was started with.

    os.environ is not quite that: where no locale is set, Python adds LC_CTYPE to it, which would
    then show up in every hook.
    """
    pairs = Path("/proc/self/environ").read_bytes().split(b"\0")
    split = (pair.partition(b"=") for pair in pairs if b"=" in pair)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in split}


def boot_id() -> str:
    """Differs after every boot of this host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def ticks_now() -> int:
    """Clock ticks since boot: what is started from now on has at least so many as its `start_ticks`."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def start_ticks(pid: int) -> int | None:
    """When this process started, in clock ticks since boot; None when it is gone, or a zombie.

    Raises:
        PermissionError: /proc, mounted with hidepid, does not show it to this user.
    """
    seen = state_and_start(pid)
    return None if seen is None or seen[0] in "ZX" else seen[1]


def state_and_start(pid: int) -> tuple[str, int] | None:
    """Letter of the kernel for what this process does, and when it started, in clock ticks since boot; None: it is gone.

    Raises:
        PermissionError: /proc, mounted with hidepid, does not show it to this user.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in parentheses, may itself hold blanks and parentheses.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return fields[0].decode(), int(fields[19])
