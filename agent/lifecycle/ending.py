"""Ending a script with everything that it has started.

A timeout must leave nothing behind, also not what has left the process group or the session.
Only loaded when a script has to be ended, or left something behind: psutil costs 12 ms.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from agent.lifecycle.descendants import Process, descendants
from agent.processes import start_ticks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from agent.lifecycle.context import HookProcess

TERM_GRACE_S = 5.0
KILL_GRACE_S = 2.0

_MAX_COMMAND_CHARACTERS = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What came of it.

    Attributes:
        running: what ran when it began, each as `pid 88 apt-get install nginx`.
        survivors: what was still there after SIGKILL: nobody can end it, or it belongs to another user.
    """

    running: tuple[str, ...]
    survivors: tuple[str, ...]


class HookProcesses:
    """Finds what belongs to one script.

    Args:
        leader: pid of the script, which is the id of its session, too.
        heir: pid of the process that adopts the script's orphans; None when nobody does.
        earlier: children of the heir that were there before the script.
    """

    def __init__(self, leader: int, *, heir: int | None, earlier: Iterable[int] = ()) -> None:
        self._leader = leader
        self._heir = heir
        self._earlier = frozenset(earlier)

    def find(self) -> list[psutil.Process]:
        """Those that live now; zombies do not."""
        handles = {}
        table = []
        for handle in psutil.process_iter(["ppid", "status"]):
            with contextlib.suppress(ProcessLookupError):
                session = os.getsid(handle.pid)
                handles[handle.pid] = handle
                is_alive = handle.info["status"] not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
                table.append(
                    Process(pid=handle.pid, parent=handle.info["ppid"], session=session, is_alive=is_alive)
                )
        found = descendants(table, leader=self._leader, heir=self._heir, earlier=self._earlier)
        return [handles[pid] for pid in found]


def end_processes(processes: HookProcesses, wait: Callable[[float], object]) -> Ending:
    """Afterwards none of the processes is left: TERM, 5 s, KILL, 2 s.

    Args:
        processes: found anew again and again, since they may start others meanwhile.
        wait: called with seconds; lets the time pass, and goes on reading what they print.
    """
    running = tuple(describe_process(process.pid) for process in processes.find())
    if not _signal_until_gone(processes, psutil.Process.terminate, TERM_GRACE_S, wait):
        _signal_until_gone(processes, psutil.Process.kill, KILL_GRACE_S, wait)
    survivors = tuple(describe_process(process.pid) for process in processes.find())
    return Ending(running=running, survivors=survivors)


def end_abandoned_hook(hook: HookProcess) -> Ending:
    """Afterwards nothing is left of a script whose worker has died.

    Only what still descends from the script, or is in its session, is found: nobody has adopted
    its orphans. To be called in a process that may load psutil.

    Args:
        hook: as `HookContext.on_started` was told, during the same boot.
    """
    if start_ticks(hook.pid) not in (None, hook.start_ticks):
        return Ending(running=(), survivors=())  # the pid is another process's by now
    return end_processes(HookProcesses(hook.pid, heir=None), time.sleep)


def _signal_until_gone(
    processes: HookProcesses,
    signal: Callable[[psutil.Process], None],
    within_s: float,
    wait: Callable[[float], object],
) -> bool:
    """Signal each process once; whether none was left at the end."""
    end = time.monotonic() + within_s
    signalled: set[psutil.Process] = set()
    pause_s = 0.005
    while found := processes.find():
        for process in [process for process in found if process not in signalled]:
            signalled.add(process)
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                signal(process)
        if time.monotonic() >= end:
            return False
        wait(pause_s)
        pause_s = min(pause_s * 2, 0.2)
    return True


def describe_process(pid: int) -> str:
    """`pid 88 apt-get install nginx`, cut to a line's length."""
    try:
        process = psutil.Process(pid)
        command = " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return f"pid {pid}"
    return f"pid {pid} {command[:_MAX_COMMAND_CHARACTERS]}"


def find_holders(pipes: set[str], *, spared: Collection[int]) -> tuple[int, ...]:
    """Pids of the processes that have one of these pipes open.

    Args:
        pipes: as /proc names them, `pipe:[123]`.
        spared: pids of processes that read them, and don't count.
    """
    others = (pid for pid in psutil.pids() if pid not in spared)
    return tuple(pid for pid in others if not pipes.isdisjoint(_open_files(pid)))


def _open_files(pid: int) -> Iterator[str]:
    directory = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for entry in os.listdir(directory):
            with contextlib.suppress(OSError):
                yield os.readlink(f"{directory}/{entry}")
