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


def descendants(
    table: Sequence[Process], *, leader: int, heir: int | None, earlier: Collection[int]
) -> list[int]:
    """Pids of the living processes that the script started, itself among them, in the table's order.

    They are: what descends from the script; what is in its session; and what has become a child of
    the heir since the script was started, with all that descends from it.

    Args:
        table: all processes of the host.
        leader: pid of the script.
        heir: the process that orphans become children of; None = init, which has many others.
        earlier: children of the heir that are none of this script's.
    """
    by_pid = {process.pid: process for process in table}
    return [
        process.pid
        for process in table
        if process.is_alive and _belongs(process, by_pid, leader, heir, earlier)
    ]


def _belongs(
    process: Process, by_pid: dict[int, Process], leader: int, heir: int | None, earlier: Collection[int]
) -> bool:
    line: Process | None = process
    seen: set[int] = set()
    while line is not None and line.pid not in seen:
        if line.pid == heir or line.pid in earlier:
            return False
        if leader in (line.pid, line.session) or (heir is not None and line.parent == heir):
            return True
        seen.add(line.pid)
        line = by_pid.get(line.parent)
    return False
