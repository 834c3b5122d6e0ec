"""Two processes that share what is to be done, step after step."""

from __future__ import annotations

import errno
import os
import resource
import signal
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from agent.install.model.failures import StepFailed
from agent.install.posix.two_processes import Crew, SecondProcessKilled, SharedNumbers, do_all
from tests.install.children import own_children

if TYPE_CHECKING:
    from collections.abc import Iterator

LENGTH = 1000


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Neither a process nor an open file."""
    before = own_children(), len(os.listdir("/proc/self/fd"))
    yield
    assert before == (own_children(), len(os.listdir("/proc/self/fd")))


def who(_number: int) -> int:
    """The process that has done it."""
    return os.getpid()


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("length", [0, 1, 2, 255, 256, 257, LENGTH])
def test_each_number_is_answered_once_in_order(processes: int, length: int) -> None:
    """An answer in another place would be about another file."""
    assert [number * 2 for number in range(length)] == do_all(
        lambda number: number * 2, length, processes=processes
    )


def test_what_a_process_has_done_it_goes_on_with() -> None:
    """It knows what it has found out; the other one does not."""
    seen: dict[int, int] = {}

    def find(number: int) -> int:
        seen[number] = os.getpid()
        return os.getpid()

    def is_known(number: int) -> bool:
        return seen.get(number) == os.getpid()

    with closing(Crew(find, is_known, who, processes=2)) as crew:
        found = crew.begin(find, LENGTH)()
        known = crew.begin_again(is_known)()
        again = crew.begin_again(who)()

    assert [True] * LENGTH == known
    assert found == again


@pytest.mark.parametrize("length", [0, 1, 3])
def test_shared_numbers_are_seen_by_both_processes(length: int) -> None:
    """What one writes when both are there, the other one reads."""
    numbers = SharedNumbers(length)

    def read(_number: int) -> list[int]:
        return list(numbers)

    with closing(Crew(read, processes=2)) as crew:
        for index in range(length):
            numbers[index] = 2**64 - 1 - index
        answers = crew.begin(read, LENGTH)()

    assert [[2**64 - 1 - index for index in range(length)]] * LENGTH == answers


def test_both_processes_work() -> None:
    """With one alone, an Install takes twice the time."""
    waiting, told = os.pipe()

    def wait_for_the_other(number: int) -> int:
        # Each takes its first number, and goes on only when the other one has taken one, too.
        if number == 0:
            assert b"x" == os.read(waiting, 1)
        elif number == 1:
            os.write(told, b"x")
        return os.getpid()

    with closing(Crew(wait_for_the_other, processes=2)) as crew:
        pids = crew.begin(wait_for_the_other, 2)()
    os.close(waiting)
    os.close(told)

    assert 2 == len(set(pids))


def test_the_other_process_works_while_this_one_does_something_else() -> None:
    """That is what it has been told to begin for."""
    waiting, told = os.pipe()

    def tell(number: int) -> int:
        os.write(told, b"x")
        return number

    with closing(Crew(tell, processes=2)) as crew:
        complete = crew.begin(tell, LENGTH)
        assert b"x" == os.read(waiting, 1)
        assert list(range(LENGTH)) == complete()
    os.close(waiting)
    os.close(told)


@pytest.mark.parametrize("failing", ["this one", "the other one"])
def test_a_failure_of_either_process_is_told(failing: str) -> None:
    """With its path and its reason."""
    me = os.getpid()
    waiting, told = os.pipe()
    heard: list[bytes] = []

    def fail(_number: int) -> int:
        is_me = os.getpid() == me
        if is_me == (failing == "this one"):
            os.write(told, b"x")
            raise StepFailed(b"/path", OSError(errno.EDQUOT, "too much"))
        if failing == "this one" and not heard:
            heard.append(os.read(waiting, 1))  # it has taken something
        return 0

    with closing(Crew(fail, who, processes=2)) as crew:
        complete = crew.begin(fail, LENGTH)
        if failing == "the other one":
            os.read(waiting, 1)  # it has taken something
        with pytest.raises(StepFailed) as raised:
            complete()
    os.close(waiting)
    os.close(told)

    assert (b"/path", errno.EDQUOT) == (raised.value.path, raised.value.error.errno)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_when_the_other_process_is_killed_that_is_told_at_whatever_step(step: int) -> None:
    """Half of the files would be missing."""

    def same(number: int) -> int:
        return number

    before = own_children()
    with closing(Crew(who, same, processes=2)) as crew:
        for _ in range(step):
            assert LENGTH == len(crew.begin(who, LENGTH)())
        (helper,) = own_children() - before
        os.kill(helper, signal.SIGKILL)
        os.waitid(os.P_PID, helper, os.WEXITED | os.WNOWAIT)

        with pytest.raises(SecondProcessKilled, match="the second process of this Install was killed"):
            (crew.begin_again(same) if step == 2 else crew.begin(who, LENGTH))()


def test_after_it_is_closed_the_other_process_does_nothing() -> None:
    """What it would do then, an undo would not know of."""
    waiting, told = os.pipe()

    def work(_number: int) -> int:
        os.write(told, b"x")
        signal.pause()
        return 0

    crew = Crew(work, processes=2)
    crew.begin(work, LENGTH)
    os.read(waiting, 1)
    crew.close()
    os.close(told)

    assert b"" == os.read(waiting, 1), "nobody has the pipe open any more"
    os.close(waiting)
    crew.close()


@pytest.mark.parametrize("room", range(7))
def test_where_descriptors_are_short_one_process_does_it_all_and_leaves_none_open(room: int) -> None:
    """Each step would take some more away, just where there are few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    held = [os.dup(0) for _ in range(highest)]  # so that there are no gaps below the limit
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1 + room, hard))
        assert [0, 1, 2] == do_all(lambda number: number, 3, processes=2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)
