"""Which processes belong to a script. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One line of the process table."""

    pid: int
    parent: int
    session: int
    is_alive: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherProcesses:
    """What was there before a script: neither it, nor what descends from it or is in its sessions, is the script's."""

    pids: Collection[int] = ()
    sessions: Collection[int] = ()


def descendants(
    table: Sequence[Process],
    *,
    script_pid: int | None,
    adopter: int | None,
    others: OtherProcesses,
    marked: Collection[int] = (),
) -> list[int]:
    """Pids of the living processes that the script started, itself among them, in the table's order.

    They are: what descends from the script; what is in its session; and, of what does not go back
    to other processes, what has become a child of the adopter or is marked, with all that descends from it.

    Args:
        table: all processes of the host.
        script_pid: pid of the script; None = it is another process's by now.
        adopter: the process that orphans become children of; None = init, which has many children.
        others: children of the adopter, and marked processes, that are none of this script's.
        marked: pids of processes that show by themselves that they are the script's.
    """
    by_pid = {process.pid: process for process in table}
    found = []
    for process in table:
        lineage = _lineage(process, by_pid, adopter)
        if process.is_alive and _belongs(lineage, script_pid, adopter, others, marked):
            found.append(process.pid)
    return found


def _lineage(process: Process, by_pid: dict[int, Process], adopter: int | None) -> list[Process]:
    """The process, its parent and so on; without the adopter and what is above it."""
    lineage: list[Process] = []
    seen: set[int] = set()
    line: Process | None = process
    while line is not None and line.pid not in seen and line.pid != adopter:
        lineage.append(line)
        seen.add(line.pid)
        line = by_pid.get(line.parent)
    return lineage


def _belongs(
    lineage: list[Process],
    script_pid: int | None,
    adopter: int | None,
    others: OtherProcesses,
    marked: Collection[int],
) -> bool:
    if script_pid is not None and any(script_pid in (process.pid, process.session) for process in lineage):
        return True
    if any(process.pid in others.pids or process.session in others.sessions for process in lineage):
        return False
    if adopter is not None and lineage and lineage[-1].parent == adopter:
        return True
    return any(process.pid in marked for process in lineage)
