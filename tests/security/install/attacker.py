"""A user who attacks an Install of root's in its own directories: one action at a time, or in races.

A race is run by a compiled program, `racer.c`, which has given up all privileges; the Install runs in this process. So
that every part of an Install meets the race, it begins before the Install in every other round, and before another step
of it in the rest: there the first steps wait until the user has done something, however few processors the host has.
"""

from __future__ import annotations

import mmap
import os
import subprocess
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.install.children import ended, in_child, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.install.model.moments import Moment, Observer

T = TypeVar("T")

USER = 64_321
"""Number of the user and of its only group; no host has an account for it."""

ROUNDS = 1_000
STEPS = 16
"""An Install of a small revision has about so many."""

THEIRS = "the user's own"
"""What is in every file that the user has written."""

SECURITY = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as several users"),
]


def not_closed_yet(reason: str) -> pytest.MarkDecorator:
    """The attack succeeds; whoever closes the hole removes this mark."""
    return pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason)


def become(uid: int) -> None:
    """Afterwards this process is an ordinary user's, for ever: no groups but its own, no capabilities."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def step_of(number: int) -> int:
    """Before which step of this round the race begins: before all of them in every other one."""
    return number // 2 % STEPS if number % 2 else 0


def as_user(body: Callable[[], T], uid: int = USER) -> T:
    """What the body returns in a process of this user."""

    def unprivileged() -> T:
        become(uid)
        return body()

    return in_child(unprivileged)


def give_to_user(path: Path, content: str) -> None:
    """Afterwards there is a file with this content, and it is the user's."""
    path.unlink(missing_ok=True)
    path.write_text(content)
    os.chown(path, USER, USER)


@contextmanager
def held_open(path: Path) -> Iterator[None]:
    """The user holds the file open for writing meanwhile, and writes in the end."""
    (opened, tell_opened), (go_on, tell_go_on) = os.pipe(), os.pipe()

    def hold() -> None:
        become(USER)
        file = os.open(path, os.O_WRONLY)
        os.write(tell_opened, b"o")
        os.read(go_on, 1)
        os.pwrite(file, THEIRS.encode(), 0)

    child = start(hold)
    os.read(opened, 1)
    yield
    os.write(tell_go_on, b"g")
    assert not ended(child)
    for descriptor in (opened, tell_opened, go_on, tell_go_on):
        os.close(descriptor)


class Racer:
    """The program that races. It waits until a race begins, and it can run many.

    Args:
        program: compiled from `racer.c`.
        directory: where it acts; the user may write there.
        what: the kind of race and its arguments, as `racer.c` explains them.
    """

    def __init__(self, program: Path, directory: Path, *what: str) -> None:
        descriptor = os.memfd_create("racing")
        os.ftruncate(descriptor, mmap.PAGESIZE)
        self._memory = mmap.mmap(descriptor, mmap.PAGESIZE)
        self._process = subprocess.Popen(
            [program, str(USER), str(descriptor), directory, *what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pass_fds=[descriptor],
        )
        os.close(descriptor)
        self._is_on = False

    def start(self) -> None:
        """Afterwards the race is on."""
        if self._is_on:
            return
        self._memory[0] = 1
        self._is_on = True
        assert self._process.stdin is not None
        self._process.stdin.write(b"g")
        self._wait()

    def stop(self) -> None:
        """Afterwards nothing moves any more, and everything has its own name again."""
        if not self._is_on:
            return
        self._memory[0] = 0
        self._is_on = False
        self._wait()

    def close(self) -> None:
        """Afterwards the program has ended."""
        self._memory[0] = 0
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
        self._memory.close()

    def from_step(self, number: int) -> Observer:
        """An observer that starts the race before the step with this number; it is on already for number 0.

        That step and the next one wait for the user to act.
        """
        steps = count(1)
        if number == 0:
            self.start()

        def observe(_kind: Moment, _path: bytes) -> None:
            seen = next(steps)
            if 0 < number == seen:
                self.start()
            if 0 < number <= seen < number + 2:
                self._let_act()

        return observe

    def _let_act(self) -> None:
        self._memory[1] = 1
        self._wait()

    def _wait(self) -> None:
        assert self._process.stdout is not None
        if not self._process.stdout.read(1):
            raise RuntimeError("the racing program has ended")


@contextmanager
def racing(program: Path, directory: Path, *what: str) -> Iterator[Racer]:
    """A racer; in the end it is gone."""
    racer = Racer(program, directory, *what)
    try:
        yield racer
    finally:
        racer.close()
