"""Staging planned files in two processes.

One process is busy with the calls of each file, and not with the disk: with two, an Install of many
files takes little more than half the time. Threads would wait for each other.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import pickle
import signal
import struct
from typing import TYPE_CHECKING, Any, NoReturn

from agent.install.staging import StepFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.install.plan import PlannedFiles
    from agent.install.staging import Staged, Stager

MIN_FILES = 1000
"""With fewer files, starting a process costs more than it saves."""

_NUMBER = struct.Struct("=I")
_PR_SET_PDEATHSIG = 1


def stage_all(stager: Stager, planned: Sequence[PlannedFiles], *, processes: int) -> list[Staged]:
    """What has become of each of the planned files, in their order.

    Args:
        stager: used in both processes.
        planned: what is to be staged.
        processes: 1 or 2.

    Raises:
        StepFailed: of either process; when it is raised, neither does anything any more.
    """
    if processes < 2 or sum(len(files.names) for files in planned) < MIN_FILES:
        return [stager.stage(files) for files in planned]
    queue = _Queue(len(planned))
    try:
        with _Helper(stager, planned, queue) as helper:
            staged = _stage_from(queue, stager, planned)
            staged.update(helper.results())
    finally:
        queue.close()
    return [staged[number] for number in range(len(planned))]


class _Queue:
    """Numbers of what is to be done. Each is taken once: all processes read from one open file."""

    def __init__(self, length: int) -> None:
        self._descriptor = os.memfd_create("install-queue")
        with open(self._descriptor, "wb", closefd=False) as stream:
            stream.writelines(map(_NUMBER.pack, range(length)))
        os.lseek(self._descriptor, 0, os.SEEK_SET)

    def take(self) -> int | None:
        """The next number; None when there are no more."""
        taken = os.read(self._descriptor, _NUMBER.size)
        return int(_NUMBER.unpack(taken)[0]) if taken else None

    def close(self) -> None:
        """Forget it."""
        os.close(self._descriptor)


def _stage_from(queue: _Queue, stager: Stager, planned: Sequence[PlannedFiles]) -> dict[int, Staged]:
    staged = {}
    while (number := queue.take()) is not None:
        staged[number] = stager.stage(planned[number])
    return staged


class _Helper:
    """A second process that takes from the queue as well. It is gone when the block ends, and when we die."""

    def __init__(self, stager: Stager, planned: Sequence[PlannedFiles], queue: _Queue) -> None:
        reader, writer = os.pipe()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            _help(parent, writer, stager, planned, queue)
        os.close(writer)
        self._reader = reader

    def __enter__(self) -> _Helper:
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self._reader)
        os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    def results(self) -> dict[int, Staged]:
        """What it has staged, once it is through.

        Raises:
            StepFailed: it has failed, or died.
        """
        with open(self._reader, "rb", closefd=False) as stream:
            content = stream.read()
        if not content:
            raise StepFailed(b"", OSError(errno.ECHILD, "the second process of this Install was killed"))
        found: Any = pickle.loads(content)  # noqa: S301 - our own, through a pipe that nobody else has
        if isinstance(found, dict):
            return found
        path, number, reason = found
        raise StepFailed(path, OSError(number, reason))


def _help(
    parent: int, writer: int, stager: Stager, planned: Sequence[PlannedFiles], queue: _Queue
) -> NoReturn:
    """Stage what is in the queue, and say what came of it."""
    try:
        gc.disable()  # a collection would copy every page that we share with the other process
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        found: object
        try:
            found = _stage_from(queue, stager, planned)
        except StepFailed as failure:
            found = (failure.path, failure.error.errno, failure.error.strerror)
        with open(writer, "wb") as stream:
            pickle.dump(found, stream, protocol=pickle.HIGHEST_PROTOCOL)
    finally:
        os._exit(0)
