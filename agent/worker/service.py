"""What a worker does: carries one command after the other, until the daemon sends it away or has gone.

It speaks with the daemon over a SEQPACKET socket, a message each:

    daemon → worker   path of a job record, with its file and lock   carry its command
    worker → daemon   T                                              it has begun with that
                      D                                              it is done, and waits
                      L                                              it is done, and leaves

Between two commands nothing of the first may be left. What could be is looked at: a worker that has grown, that
has a thread, a child or many files open, that would hand on to a script what it was not given itself, or whose command
failed, leaves.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import select
import time
from typing import TYPE_CHECKING

from agent.deployments import Job
from agent.processes import show_as
from agent.worker.process import DONE, LEAVING, TAKEN

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection, Sequence

# What commands need, in the order in which a deployment needs it; imported while there is nothing else to do.
IMPORTS = (
    ("agent.appspec", "agent.lifecycle.run", "agent.lifecycle.environment"),
    ("requests", "agent.worker.runs.download"),
    ("agent.worker.runs.install",),
    ("structlog", "agent.lifecycle.hook_processes", "agent.lifecycle.ending", "tenacity"),
    ("agent.lifecycle.session_script",),
)
# Twice what all imports take. Whatever a large Install leaves behind goes with its process.
_MAX_RESIDENT_BYTES = 96 * 2**20
_MAX_DESCRIPTORS = 64
# What records the output of scripts ends with the event, but not in that moment.
_CHILDREN_END_S, _CHILDREN_PAUSE_S = 0.03, 0.0005
_LIMITS = sorted({number for name, number in vars(resource).items() if name.startswith("RLIMIT_")})
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def serve(
    job: Job,
    connection: socket.socket,
    carry: Callable[[Job], bool],
    own: Callable[[], Collection[int]],
    imports: Sequence[Sequence[str]] = IMPORTS,
) -> None:
    """Carry the command of this record, and of those that come, until there are none any more.

    Args:
        job: the first record, held by this process.
        connection: to the daemon.
        carry: brings a command to its end; False = the process should carry no other one after it.
        own: pids of this process's children that are none of what scripts have left running.
        imports: rows of modules, each imported when there is no record to work on.
    """
    missing = list(imports)
    inherited = _inherited()
    next_job: Job | None = job
    while next_job is not None:
        is_clean = carry(next_job)
        next_job.let_go()
        is_leaving = not (is_clean and _is_as_new(inherited, own()))
        with contextlib.suppress(OSError):  # the daemon has gone
            connection.send(LEAVING if is_leaving else DONE)
        if is_leaving:
            return
        next_job = _wait(connection, missing)


def _wait(connection: socket.socket, missing: list[Sequence[str]]) -> Job | None:
    """The next record; None when the daemon has gone, or sends this worker away."""
    show_as("worker (waits for a command)")
    arrival = select.poll()
    arrival.register(connection, select.POLLIN)
    while missing and not arrival.poll(0):
        if not _import(missing.pop(0)):
            return None
    arrival.poll()
    try:
        job = Job.receive_from(connection)
        if job is not None:
            connection.send(TAKEN)
    except OSError:
        return None
    return job


def _import(names: Sequence[str]) -> bool:
    """Load these modules. Where that fails, as without a free descriptor, the command that needs them can say so."""
    try:
        for name in names:
            importlib.import_module(name)
    except Exception:  # noqa: BLE001 - whatever it is, this process is not as good as a new one
        return False
    return True


def _inherited() -> tuple[object, ...] | None:
    """What scripts get from this process, and could have changed in it; None where it can't be found out now."""
    umask = os.umask(0)
    os.umask(umask)
    try:
        return (
            umask,
            os.readlink("/proc/self/cwd"),
            [resource.getrlimit(limit) for limit in _LIMITS],
            os.getpriority(os.PRIO_PROCESS, 0),
            os.sched_getscheduler(0),
            os.sched_getaffinity(0),
            _content("/proc/self/oom_score_adj"),
            _content("/proc/self/cgroup"),
        )
    except OSError:
        return None


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _is_as_new(inherited: tuple[object, ...] | None, own: Collection[int]) -> bool:
    """Whether this process is as good for another command as one that is forked now."""
    try:
        if len(os.listdir("/proc/self/task")) > 1:
            return False
        with open("/proc/self/statm", "rb") as file:
            resident = int(file.read().split()[1]) * _PAGE_BYTES
        is_small = resident <= _MAX_RESIDENT_BYTES and len(os.listdir("/proc/self/fd")) <= _MAX_DESCRIPTORS
        is_unchanged = inherited is not None and _inherited() == inherited
    except OSError:
        return False
    return is_small and is_unchanged and not _has_children(own)


def _has_children(own: Collection[int]) -> bool:
    """Whether something that scripts have left running is a child of this process.

    It is to become one of init, as after any other command: who lives on below us would be taken for something
    of a later event, once its own parent ends meanwhile, and be ended with that.
    """
    end = time.monotonic() + _CHILDREN_END_S
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return False
        if _children() <= set(own):
            return False
        if time.monotonic() >= end:
            return True
        time.sleep(_CHILDREN_PAUSE_S)


def _children() -> set[int]:
    """Pids of all children of this process, which has one thread; where the kernel does not tell, one that is none."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
            return set(map(int, file.read().split()))
    except OSError:
        return {0}
