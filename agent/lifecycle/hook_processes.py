"""Finding what belongs to a script in the process table, and naming it.

Only loaded when a script has to be ended, or left something behind: psutil costs 12 ms.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from agent.lifecycle.context import SESSION_KEEPER
from agent.lifecycle.descendants import OtherProcesses, Process, descendants
from agent.processes import start_ticks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

_MAX_COMMAND_CHARACTERS = 160
_MAX_ARGUMENT_CHARACTERS = 60
_ARGUMENT_HEAD, _ARGUMENT_TAIL = 12, 47
_DEAD = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


class HookProcesses:
    """What belongs to a script of ours.

    Args:
        script_pid: pid of the script, which is the id of its session, too; of what is to start it before that.
        adopter: pid of the process that adopts the script's orphans; None when nobody does.
        others: asked for what was there before the script.
    """

    def __init__(self, script_pid: int, *, adopter: int | None, others: Callable[[], OtherProcesses]) -> None:
        self._script_pid = script_pid
        self._adopter = adopter
        self._others = others

    def find(self) -> list[psutil.Process]:
        """Those that live now; zombies do not."""
        handles, table = _process_table()
        found = descendants(table, script_pid=self._script_pid, adopter=self._adopter, others=self._others())
        return [handles[pid] for pid in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class AbandonedProcesses:
    """What belongs to a script whose worker is gone, so that nobody has adopted its orphans.

    Attributes:
        script_pid: pid of the script; None = it is another process's by now, or was never known.
        since_ticks: when the script was started; what is older is not its.
        marks: variables that all processes of the script were started with, each as `NAME=value`;
            empty = there are none to tell them by.
    """

    script_pid: int | None
    since_ticks: int
    marks: frozenset[bytes]

    def find(self) -> list[psutil.Process]:
        """Those that live now; zombies do not."""
        handles, table = _process_table()
        marked, others = self._marked(table)
        found = descendants(table, script_pid=self.script_pid, adopter=None, others=others, marked=marked)
        return [handles[pid] for pid in found]

    def _marked(self, table: Iterable[Process]) -> tuple[set[int], OtherProcesses]:
        """Pids of what the environment shows to be the script's, and what earlier scripts of the event have left."""
        if not self.marks or self.marks <= _environment(os.getpid()):
            # In the second case such a script has started the agent itself, and so all that the agent starts.
            return set(), OtherProcesses()
        later: set[int] = set()
        earlier: list[Process] = []
        for process in table:
            if process.is_alive and self.marks <= _environment(process.pid):
                if (start_ticks(process.pid) or 0) >= self.since_ticks:
                    later.add(process.pid)
                else:
                    earlier.append(process)
        return later, OtherProcesses(
            pids={process.pid for process in earlier}, sessions={process.session for process in earlier}
        )


def describe_process(pid: int) -> str:
    """`pid 88 apt-get install nginx`, cut to a line's length; of long arguments both ends are left."""
    try:
        process = psutil.Process(pid)
        command = " ".join(map(_shortened, process.cmdline())) or process.name()
    except psutil.Error:
        return f"pid {pid}"
    if len(command) > _MAX_COMMAND_CHARACTERS:
        command = f"{command[:_MAX_COMMAND_CHARACTERS]}…"
    return f"pid {pid} {command}"


def is_session_keeper(pid: int) -> bool:
    """Whether this is a process of ours that keeps a session for a script, see `session`."""
    try:
        process = psutil.Process(pid)
        return process.name() == SESSION_KEEPER and process.uids().effective == 0
    except psutil.Error:
        return False


def find_holders(pipes: set[str], *, spared: Collection[int]) -> tuple[int, ...]:
    """Pids of the processes that have one of these pipes open.

    Args:
        pipes: as /proc names them, `pipe:[123]`.
        spared: pids of processes that read them, and don't count.
    """
    others = (pid for pid in psutil.pids() if pid not in spared)
    return tuple(pid for pid in others if not pipes.isdisjoint(_open_files(pid)))


def _process_table() -> tuple[dict[int, psutil.Process], list[Process]]:
    handles: dict[int, psutil.Process] = {}
    table = []
    for handle in psutil.process_iter(["ppid", "status"]):
        with contextlib.suppress(ProcessLookupError):
            session = os.getsid(handle.pid)
            handles[handle.pid] = handle
            is_alive = handle.info["status"] not in _DEAD
            table.append(
                Process(pid=handle.pid, parent=handle.info["ppid"], session=session, is_alive=is_alive)
            )
    return handles, table


def _environment(pid: int) -> frozenset[bytes]:
    """The variables that this process was started with; empty where we may not know."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return frozenset(file.read().split(b"\0"))
    except OSError:
        return frozenset()


def _open_files(pid: int) -> Iterator[str]:
    directory = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for entry in os.listdir(directory):
            with contextlib.suppress(OSError):
                yield os.readlink(f"{directory}/{entry}")


def _shortened(argument: str) -> str:
    """An argument without its middle: the name of a script stands at the end of a long path."""
    if len(argument) <= _MAX_ARGUMENT_CHARACTERS:
        return argument
    return f"{argument[:_ARGUMENT_HEAD]}…{argument[-_ARGUMENT_TAIL:]}"
