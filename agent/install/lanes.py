"""Doing the same with many things, in two processes.

One process is busy with the calls for each file, and not with the disk: with two, an Install of many
files takes little more than half the time. Threads would wait for each other.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import pickle
import struct
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

from agent.install.staged import StepFailed
from agent.processes import die_with, kill_child

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

MIN_FILES = 1000
"""With fewer files, starting a process costs more than it saves."""

_MOST_RANGES = 256  # so many are enough to keep both busy until the end
_RANGE = struct.Struct("=II")


def processes_for(count: int, processes: int) -> int:
    """How many of so many processes are to work on so many files."""
    return processes if count >= MIN_FILES else 1


def do_all(work: Callable[[int], T], length: int, *, processes: int) -> list[T]:
    """What `work` answers for 0, 1, and so on, below `length`; the arguments are those of `Lanes`.

    Args:
        work: as there.
        length: as there.
        processes: 1 or 2.

    Raises:
        StepFailed: of either process; when it is raised, neither does anything any more.
    """
    if processes < 2 or not length:
        return [work(number) for number in range(length)]
    with closing(Lanes(work, length)) as lanes:
        return lanes.answers()


class Lanes(Generic[T]):
    """The same in two steps: the other process begins at once, this one when the answers are needed.

    Args:
        work: called in either process, for each number once; its answers can be pickled, and it
            raises nothing but StepFailed and what ends a process.
        length: how many numbers.
    """

    def __init__(self, work: Callable[[int], T], length: int) -> None:
        self._work = work
        self._length = length
        self._queue = _Queue(length)
        self._helper: _Helper[T] | None = None
        with suppress(OSError):  # where there may not be another process, this one does it all
            self._helper = _Helper(work, self._queue)

    def close(self) -> None:
        """Neither process does anything any more."""
        if self._helper is not None:
            self._helper.close()
        self._queue.close()

    def answers(self) -> list[T]:
        """What has been answered for each number, in order. To be called once.

        Raises:
            StepFailed: of either process.
        """
        answers = _work_from(self._queue, self._work)
        if self._helper is not None:
            answers.update(self._helper.answers())
        return [answers[number] for number in range(self._length)]


class _Queue:
    """Ranges of numbers, of which each is taken once: all processes read from one pipe."""

    def __init__(self, length: int) -> None:
        self._reader, writer = os.pipe2(os.O_CLOEXEC)
        # Users with many pipes get small ones.
        room = min(fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ) // _RANGE.size // 2, _MOST_RANGES)
        each = max(1, -(-length // room))
        for start in range(0, length, each):
            os.write(writer, _RANGE.pack(start, min(start + each, length)))
        os.close(writer)

    def take(self) -> range:
        """The next numbers; empty when there are no more."""
        taken = os.read(self._reader, _RANGE.size)
        return range(*_RANGE.unpack(taken)) if taken else range(0)

    def close(self) -> None:
        """Forget it."""
        os.close(self._reader)


def _work_from(queue: _Queue, work: Callable[[int], T]) -> dict[int, T]:
    answers = {}
    while numbers := queue.take():
        for number in numbers:
            answers[number] = work(number)
    return answers


class _Helper(Generic[T]):
    """A second process that takes from the queue as well. It is gone when it is closed, and when we die."""

    def __init__(self, work: Callable[[int], T], queue: _Queue) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        try:
            self._pid = os.fork()
        except OSError:
            os.close(reader)
            os.close(writer)
            raise
        if self._pid == 0:
            _help(parent, writer, work, queue)
        os.close(writer)
        self._reader = reader

    def close(self) -> None:
        """End it."""
        os.close(self._reader)
        kill_child(self._pid)

    def answers(self) -> dict[int, T]:
        """What it has been answered, once it is through.

        Raises:
            StepFailed: it has failed, or died.
        """
        try:
            with open(self._reader, "rb", closefd=False) as stream:
                found = pickle.load(stream)  # noqa: S301 - our own, through a pipe that nobody else has
        except (EOFError, pickle.UnpicklingError) as error:
            killed = OSError(errno.ECHILD, "the second process of this Install was killed")
            raise StepFailed(b"", killed) from error
        if isinstance(found, dict):
            return found
        path, number, reason = found
        raise StepFailed(path, OSError(number, reason))


def _help(parent: int, writer: int, work: Callable[[int], T], queue: _Queue) -> NoReturn:
    """Work on what is in the queue, and say what came of it."""
    try:
        gc.disable()  # a collection would copy every page that we share with the other process
        die_with(parent)
        found: object
        try:
            found = _work_from(queue, work)
        except StepFailed as failure:
            found = (failure.path, failure.error.errno, failure.error.strerror)
        with open(writer, "wb") as stream:
            pickle.dump(found, stream, protocol=pickle.HIGHEST_PROTOCOL)
    finally:
        os._exit(0)
