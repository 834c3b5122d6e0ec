"""Threads that may not be had, or die before their first step: nobody waits for them, and nothing is done twice."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

import agent.threads
from agent.threads import ThreadTask

if TYPE_CHECKING:
    from collections.abc import Callable

LONG_S = 20.0


def test_a_thread_does_the_work_and_can_be_waited_for() -> None:
    """As with any thread."""
    gate, done = threading.Event(), []

    def work() -> None:
        gate.wait(LONG_S)
        done.append(1)

    task = ThreadTask(work)
    task.start()
    assert task.has_begun(LONG_S)
    assert not task.wait(0)
    gate.set()
    assert task.wait(LONG_S)
    assert task.wait()
    assert task.has_begun(0)
    assert [1] == done


def refuse(_function: object, _arguments: object) -> int:
    """What Python does when the system gives no thread."""
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("start", [refuse, lambda _function, _arguments: 1], ids=["refused", "dead"])
def test_work_without_a_thread_has_not_begun(
    monkeypatch: pytest.MonkeyPatch, start: Callable[[object, object], int]
) -> None:
    """And so it stays, however often one asks."""
    monkeypatch.setattr(agent.threads, "start_new_thread", start)
    task = ThreadTask(lambda: None)
    task.start()
    assert not task.has_begun(0.01)
    assert not task.has_begun(0)
    assert not task.wait(0)


def test_a_thread_that_comes_too_late_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waited has done the work by then, or has gone on without it."""
    late: list[Callable[[], None]] = []
    monkeypatch.setattr(agent.threads, "start_new_thread", lambda function, _arguments: late.append(function))
    done: list[int] = []
    task = ThreadTask(lambda: done.append(1))
    task.start()
    assert not task.has_begun(0)
    late[0]()
    assert [] == done
    assert not task.has_begun(0)


_PROGRAM = """
import resource, sys
from agent.threads import ThreadTask
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
task = ThreadTask(lambda: None)
task.start()
task.wait() if task.has_begun(0.2) else None
"""


@pytest.mark.timeout(120)
def test_where_memory_is_just_short_nobody_waits_for_ever() -> None:
    """Python's own threads wait here for a first step that never comes, in a window of some pages."""
    page = resource.getpagesize()
    # From too little for the stack of a thread to enough for all of it.
    stack = 8 * 2**20
    for spare in [*range(stack - 8 * page, stack + 48 * page, 4 * page), 2 * stack]:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(spare)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode in (0, 1), done.stderr
