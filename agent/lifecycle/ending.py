"""Ending a script with everything that it has started.

A timeout must leave nothing behind, also not what has left the process group or the session.
Only loaded when a script has to be ended: psutil costs 12 ms.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import psutil

from agent.lifecycle.context import MARKING_VARIABLES, ScriptPatience
from agent.lifecycle.hook_processes import AbandonedProcesses, describe_process, is_session_keeper
from agent.processes import start_ticks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agent.lifecycle.context import HookProcess

_SUDO_S = 10.0  # it may ask a directory service who we are


class Processes(Protocol):
    """Tells, again and again, which processes are to be ended."""

    def find(self) -> list[psutil.Process]:
        """Those that live now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What came of it; each process as `pid 88 apt-get install nginx`.

    Attributes:
        running: what ran when it began.
        ended: what of that is gone.
        survivors: what was still there after SIGKILL: nobody can end it, or it belongs to another user.
    """

    running: tuple[str, ...]
    ended: tuple[str, ...]
    survivors: tuple[str, ...]


def end_processes(
    processes: Processes, wait: Callable[[float], object], *, patience: ScriptPatience, sudo: str | None
) -> Ending:
    """Afterwards none of the processes is left: SIGTERM, 5 s, SIGKILL, 2 s.

    Args:
        processes: asked anew again and again, since they may start others meanwhile.
        wait: called with seconds; lets the time pass, and reaps what has ended.
        patience: the two times.
        sudo: path of the program through which we signal what we may not signal ourselves; None = don't.
    """
    # What keeps the session of a script is no news to anybody: it ends with the script.
    found = [process.pid for process in processes.find() if not is_session_keeper(process.pid)]
    running = {pid: describe_process(pid) for pid in found}
    if not _signal_until_gone(processes, signal.SIGTERM, patience.term_s, wait, sudo):
        _signal_until_gone(processes, signal.SIGKILL, patience.kill_s, wait, sudo)
    left = [process.pid for process in processes.find()]
    return Ending(
        running=tuple(running.values()),
        ended=tuple(text for pid, text in running.items() if pid not in left),
        survivors=tuple(map(describe_process, left)),
    )


def end_abandoned_hook(
    hook: HookProcess, *, deployment_id: str = "", event: str = "", patience: ScriptPatience | None = None
) -> Ending:
    """Afterwards nothing is left of a script whose worker has died.

    Found is what descends from the script, what is in its session, and what carries the event's
    DEPLOYMENT_ID and LIFECYCLE_EVENT in its environment and is no older than the script, with all that
    descends from that. What scripts left running that had ended before stays. To be called in a process
    that may load psutil.

    Args:
        hook: as `HookContext.on_started` was told, during the same boot.
        deployment_id: the deployment that its event belongs to; empty = nothing is found by its environment.
        event: name of the lifecycle event; the same.
        patience: how long to wait between signals.
    """
    marks: frozenset[bytes] = frozenset()
    if deployment_id and event:
        pairs = zip(MARKING_VARIABLES, (deployment_id, event), strict=True)
        marks = frozenset(f"{name}={value}".encode() for name, value in pairs)
    is_another = hook.pid == 0 or start_ticks(hook.pid) not in (None, hook.start_ticks)
    processes = AbandonedProcesses(
        script_pid=None if is_another else hook.pid, since_ticks=hook.start_ticks, marks=marks
    )
    # Whether the script had been started through sudo, nobody knows any more. An agent that is root needs none.
    sudo = shutil.which("sudo") if os.geteuid() != 0 else None
    return end_processes(processes, time.sleep, patience=patience or ScriptPatience(), sudo=sudo)


def _signal_until_gone(
    processes: Processes,
    number: signal.Signals,
    within_s: float,
    wait: Callable[[float], object],
    sudo: str | None,
) -> bool:
    """Signal each process once; whether none was left at the end."""
    end = time.monotonic() + within_s
    signalled: set[psutil.Process] = set()
    pause_s = 0.005
    while found := processes.find():
        _signal([process for process in found if process not in signalled], number, sudo)
        signalled.update(found)
        if time.monotonic() >= end:
            return False
        wait(pause_s)
        pause_s = min(pause_s * 2, 0.2)
    return True


def _signal(processes: Iterable[psutil.Process], number: signal.Signals, sudo: str | None) -> None:
    refused = []
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            refused.append(process)
    if refused and sudo:
        _signal_through_sudo(sudo, refused, number)


def _signal_through_sudo(sudo: str, processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Signal processes of other users, each as its own user: nothing more may be allowed to us."""
    by_user: dict[int, list[str]] = {}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            by_user.setdefault(process.uids().real, []).append(str(process.pid))
    for user, pids in by_user.items():
        command = [sudo, "-n", "-u", f"#{user}", "--", "kill", f"-{number.value}", *pids]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            # Not subprocess.run, which would wait for ever: a sudo that hangs we could not kill.
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ).wait(_SUDO_S)
