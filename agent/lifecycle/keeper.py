"""Reading on where a hook has ended but something that it started still holds its output.

An application that is started in the background without a redirection must neither hang the hook
nor die of a broken pipe when we end, weeks later perhaps. So a process of its own, forked from the
worker and tied to nothing, reads what it prints until it ends.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from agent.lifecycle.capture import Capture
    from agent.lifecycle.script_log import ScriptLog

# How much of it still goes to the logs: what an application says while it starts. What it prints
# all its life belongs elsewhere, and must not fill the disk from a place where nobody looks.
LATE_OUTPUT_S = 900.0
LATE_OUTPUT_BYTES = 16 * 2**20

_NAME = b"hook-output"


def keep_reading(
    capture: Capture,
    log: ScriptLog,
    *,
    logged_s: float = LATE_OUTPUT_S,
    logged_bytes: int = LATE_OUTPUT_BYTES,
) -> int:
    """Hand the streams over to a new process, which logs the beginning of what comes and drops the rest.

    Args:
        capture: what of it was read already has been logged; still to be closed here.
        log: where it goes.
        logged_s: how long it is logged.
        logged_bytes: how much of it is logged.

    Returns:
        pid of the process. It ends when nobody can write to the streams any more.
    """
    capture.flush()
    keeper = os.fork()
    if keeper == 0:
        _keep(capture, log, logged_s, logged_bytes)
    return keeper


def _keep(capture: Capture, log: ScriptLog, logged_s: float, logged_bytes: int) -> NoReturn:
    """The whole life of the keeper."""
    try:
        log.close()
        log.leave_agent_log()
        _leave_worker(kept=set(capture.readers))
        end = time.monotonic() + logged_s
        while capture.readers and logged_bytes > 0 and (left_s := end - time.monotonic()) > 0:
            logged_bytes -= capture.read(left_s)
        capture.flush()
        if capture.readers:
            log.note("Output - what background processes print from here on is dropped")
            log.close()
            _become_small(capture)
    finally:
        os._exit(0)


def _become_small(capture: Capture) -> None:
    """Leave the reading to `cat`, which takes a hundredth of our memory; where there is none, go on."""
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    first, *others = capture.readers
    for descriptor in capture.readers:
        os.set_blocking(descriptor, True)
    try:
        for descriptor in others:
            taking = [(os.POSIX_SPAWN_DUP2, descriptor, 0), *silent]
            os.posix_spawnp("cat", ["cat"], os.environ, file_actions=taking)
        os.dup2(first, 0)
        os.execvp("cat", ["cat"])  # noqa: S606 - no shell is wanted
    except OSError:
        capture.discard()


def _leave_worker(*, kept: set[int]) -> None:
    """Keep nothing of the worker that somebody could wait for: no lock, socket, handler or session."""
    gc.disable()  # a collection would copy every page that we share with the worker
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    empty = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(empty, standard)
    for entry in os.listdir("/proc/self/fd"):
        if int(entry) not in kept | {0, 1, 2}:
            with contextlib.suppress(OSError):
                os.close(int(entry))
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_bytes(_NAME)
