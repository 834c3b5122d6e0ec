"""One piece of work for each of many numbers, in two processes.

Nothing here knows what is done, or what the numbers stand for. One process is busy with the calls for each file, and not with the disk: with two, an Install of many
files takes little more than half the time. Threads would wait for each other.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import mmap
import os
import pickle
import struct
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeVar

from agent.processes import die_with, kill_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from io import BufferedReader

T = TypeVar("T")

MIN_FILES = 1000
"""With fewer files, starting a process costs more than it saves."""

_MOST_RANGES = 256  # so many are enough to keep both busy until the end
_RANGE, _COMMAND, _NUMBER = struct.Struct("=II"), struct.Struct("=B?"), struct.Struct("=Q")
_PROCESSES = 2


class SecondProcessKilled(ChildProcessError):
    """The second process has died before it has said what came of its part."""

    def __init__(self) -> None:
        super().__init__(errno.ECHILD, "the second process of this Install was killed")


def processes_for(count: int, processes: int) -> int:
    """How many of so many processes are to work on so many files."""
    return processes if count >= MIN_FILES else 1


def do_all(work: Callable[[int], T], length: int, *, processes: int) -> list[T]:
    """What `work` answers for 0, 1, and so on, below `length`.

    Args:
        work: called in either process, as those of a `Crew`.
        length: how many numbers.
        processes: 1, so that this one does it all, or 2.

    Raises:
        SecondProcessKilled: it has not done its part.
        Exception: what `work` has raised in either process. Neither does anything any more.
    """
    crew = Crew(work, processes=processes if length else 1)
    try:
        return crew.begin(work, length)()
    finally:
        crew.close()


class Crew:
    """This process, and another one that is forked from it: they share what is to be done, one step after the other.

    What either has found out in one step, it knows in the next ones; the other does not. Close it in the end.

    Args:
        works: what the steps consist of: called in either process, for one number at a time. What they
            answer, and what they raise, can be pickled.
        processes: 1, so that this one does it all, or 2.
    """

    def __init__(self, *works: Callable[[int], object], processes: int) -> None:
        self._works = works
        self._length = 0
        self._mine: Sequence[int] = ()
        self._helper: _Helper | None = None
        if processes >= _PROCESSES:
            with suppress(OSError):  # where there may not be another process, this one does it all
                self._helper = _Helper(works)

    def close(self) -> None:
        """Neither process does anything any more."""
        if self._helper is not None:
            self._helper.close()
            self._helper = None

    def begin(self, work: Callable[[int], T], length: int) -> Callable[[], list[T]]:
        """Let the other process begin with one of the works, for the numbers below `length`, each once.

        Returns:
            What is to be called once: then this process works, too, and it gives the answers for each number, in order.

        It raises what the work has raised in either process, or SecondProcessKilled.
        """
        self._length = length
        helper = self._helper
        if helper is not None:
            helper.queue.put(length)
            helper.begin(_Command(self._works.index(work), is_again=False))

        def complete() -> list[T]:
            taken = range(length) if helper is None else helper.queue.taken()
            answers = {number: work(number) for number in taken}
            self._mine = list(answers)
            return self._completed(answers)

        return complete

    def begin_again(self, work: Callable[[int], T]) -> Callable[[], list[T]]:
        """Let each process do one of the works for the numbers that it has just had; the answer is used as that of `begin`."""
        if self._helper is not None:
            self._helper.begin(_Command(self._works.index(work), is_again=True))
        return lambda: self._completed({number: work(number) for number in self._mine})

    def _completed(self, answers: dict[int, T]) -> list[T]:
        if self._helper is not None:
            answers.update(self._helper.answers())
        return [answers[number] for number in range(self._length)]


class SharedNumbers:
    """Numbers from 0 to 2**64 - 1 that a process and all that are forked from it later see alike; 0 at first.

    Args:
        length: how many.
    """

    def __init__(self, length: int) -> None:
        self._size = _NUMBER.size * length
        self._memory = mmap.mmap(-1, self._size or 1)

    def __setitem__(self, index: int, number: int) -> None:
        _NUMBER.pack_into(self._memory, _NUMBER.size * index, number)

    def __iter__(self) -> Iterator[int]:
        return (number for (number,) in _NUMBER.iter_unpack(self._memory[: self._size]))


class _Command(NamedTuple):
    """What the other process is to do next: the number of a work, and whether for the numbers that it has just had."""

    work: int
    is_again: bool


class _Queue:
    """Ranges of numbers, of which each is taken once: both processes read from one pipe."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC)
        # Users with many pipes get small ones.
        room = fcntl.fcntl(self._writer, fcntl.F_GETPIPE_SZ) // _RANGE.size // 2 - _PROCESSES
        self._most = min(room, _MOST_RANGES)

    def put(self, length: int) -> None:
        """Put in all numbers below that. It must have been emptied by both."""
        each = max(1, -(-length // self._most))
        ranges = [(start, min(start + each, length)) for start in range(0, length, each)]
        # An empty one for each process says that there is no more.
        ranges += [(0, 0)] * _PROCESSES
        os.write(self._writer, b"".join([_RANGE.pack(*item) for item in ranges]))

    def taken(self) -> Iterable[int]:
        """Numbers, taken when they are asked for, until there are no more."""
        while numbers := range(*_RANGE.unpack(os.read(self._reader, _RANGE.size))):
            yield from numbers

    def close(self) -> None:
        """Forget it."""
        os.close(self._reader)
        os.close(self._writer)


class _Helper:
    """The second process. It is gone when it is closed, and when we die."""

    def __init__(self, works: Sequence[Callable[[int], object]]) -> None:
        parent = os.getpid()
        with ExitStack() as undo:
            self.queue = _Queue()
            undo.callback(self.queue.close)
            commands, self._commands = _pipe(undo)
            reader, answers = _pipe(undo)
            self._pid = os.fork()
            undo.pop_all()
        if self._pid == 0:
            _help(parent, commands, answers, works, self.queue)
        os.close(commands)
        os.close(answers)
        self._answers: BufferedReader = open(reader, "rb")  # noqa: SIM115 - closed by close()

    def close(self) -> None:
        """End it."""
        os.close(self._commands)
        self._answers.close()
        self.queue.close()
        kill_child(self._pid)

    def begin(self, command: _Command) -> None:
        """Let it do something."""
        with suppress(BrokenPipeError):  # it has died; whoever wants its answers will learn that
            os.write(self._commands, _COMMAND.pack(*command))

    def answers(self) -> dict[int, T]:
        """What has come of the last command, once it is through.

        Raises:
            SecondProcessKilled: it has died.
            Exception: what the work has raised there.
        """
        try:
            found = pickle.load(self._answers)  # noqa: S301 - our own, through a pipe that nobody else has
        except (EOFError, pickle.UnpicklingError) as error:
            raise SecondProcessKilled from error
        if isinstance(found, Exception):
            raise found
        answers: dict[int, T] = found
        return answers


def _pipe(undo: ExitStack) -> tuple[int, int]:
    """Both ends of a new pipe, which are closed when it comes to that."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    undo.callback(os.close, reader)
    undo.callback(os.close, writer)
    return reader, writer


def _help(
    parent: int, commands: int, answers: int, works: Sequence[Callable[[int], object]], queue: _Queue
) -> NoReturn:
    """Do what we are told, and say what came of it."""
    try:
        gc.disable()  # a collection would copy every page that we share with the other process
        die_with(parent)
        mine: Iterable[int] = ()
        with open(answers, "wb") as stream:
            while command := os.read(commands, _COMMAND.size):
                number, is_again = _COMMAND.unpack(command)
                found: object
                try:
                    done = {item: works[number](item) for item in (mine if is_again else queue.taken())}
                    found, mine = done, list(done)
                except Exception as error:  # noqa: BLE001 - it is raised where the answers are waited for
                    found = error
                pickle.dump(found, stream, protocol=pickle.HIGHEST_PROTOCOL)
                stream.flush()
                if len(works) == 1:
                    break  # it takes a while to end, and nobody has to wait for that
    finally:
        os._exit(0)
