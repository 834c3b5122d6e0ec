"""Observers of an Install that do something at a certain step of it."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.install.model.request import Observer

MADE_UP = "a made-up error"


def at_step(kind: str, act: Callable[[], object], number: int = 1) -> Observer:
    """Act before the step of this kind and number, once."""
    count = 0

    def observe(seen: str, _path: bytes) -> None:
        nonlocal count
        count += seen == kind
        if seen == kind and count == number:
            act()

    return observe


def failing_at(kind: str, number: int = 1) -> Observer:
    """The step of this kind and number fails."""

    def fail() -> None:
        raise OSError(errno.EIO, MADE_UP)

    return at_step(kind, fail, number)


def killed_at(kind: str, number: int = 1) -> Observer:
    """The process is killed before the step of this kind and number."""
    return at_step(kind, lambda: os.kill(os.getpid(), signal.SIGKILL), number)


def both(first: Observer, second: Observer) -> Observer:
    """One after the other."""

    def observe(kind: str, path: bytes) -> None:
        first(kind, path)
        second(kind, path)

    return observe
