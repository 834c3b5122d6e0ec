"""Observers of an Install that do something at a certain step of it."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agent.install.model.moments import Moment, Observer

MADE_UP = "a made-up error"


def at_step(moment: Moment, act: Callable[[], object], number: int = 1) -> Observer:
    """Act before the moment of this kind and number, once."""
    count = 0

    def observe(seen: Moment, _path: bytes) -> None:
        nonlocal count
        count += seen == moment
        if seen == moment and count == number:
            act()

    return observe


def failing_at(moment: Moment, number: int = 1) -> Observer:
    """The moment of this kind and number fails."""

    def fail() -> None:
        raise OSError(errno.EIO, MADE_UP)

    return at_step(moment, fail, number)


def failing_at_each(moments: Iterable[tuple[Moment, int]], met: set[Moment]) -> Observer:
    """The disk fails at these moments, of each kind at the one with this number; those that come are met."""
    left = dict(moments)

    def observe(moment: Moment, _path: bytes) -> None:
        if moment in left:
            left[moment] -= 1
            if left[moment] == 0:
                met.add(moment)
                raise OSError(errno.EIO, MADE_UP)

    return observe


def killed_at(moment: Moment, number: int = 1) -> Observer:
    """The process is killed before the moment of this kind and number."""
    return at_step(moment, lambda: os.kill(os.getpid(), signal.SIGKILL), number)


def both(first: Observer, second: Observer) -> Observer:
    """One after the other."""

    def observe(moment: Moment, path: bytes) -> None:
        first(moment, path)
        second(moment, path)

    return observe
