"""Forking a worker: a process of its own session, which needs no daemon from then on.

The daemon holds the first steps of a command (specification, acknowledgement, report), which every
command takes: half a megabyte that saves 8 ms each time. Whatever else a command needs is imported
after the fork, so that its memory goes when the worker ends.
"""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING

from agent.deployments import RecordedProcess
from agent.logs import Level, write_to_stderr
from agent.processes import boot_id, show_as, start_ticks

if TYPE_CHECKING:
    from collections.abc import Callable

# What a worker says to the daemon; see `agent.worker.service`.
TAKEN, DONE, LEAVING = b"T", b"D", b"L"

CRASHED = 70  # EX_SOFTWARE


def this_process() -> RecordedProcess:
    """Us, as a record names us.

    Raises:
        OSError: there are no file descriptors left to find out.
    """
    pid = os.getpid()
    return RecordedProcess(pid=pid, start_ticks=start_ticks(pid) or 0, boot_id=boot_id())


def fork_worker(work: Callable[[], None], *, leave_daemon: Callable[[], None]) -> int:
    """Start `work` in a detached process and return its pid.

    Args:
        work: what to do; its exceptions end the process with code 70.
        leave_daemon: called first in the child: closes what belongs to the daemon.
    """
    pid = os.fork()
    if pid:
        return pid
    code = CRASHED
    try:
        os.setsid()
        leave_daemon()
        show_as("worker")
        work()
        code = 0
    except BaseException:  # noqa: BLE001 - the edge of the process; the record tells the next one
        write_to_stderr(traceback.format_exc().rstrip(), Level.ERROR)
    finally:
        os._exit(code)
