"""Work done by a thread, where one can be had."""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class ThreadTask:
    """A function that a thread calls once, or nobody.

    `threading.Thread.start` waits for the thread's first step. Where memory is short, a thread can die before it, and
    whoever started it waits for ever. Here the first step is to claim the work: whoever waits for it in vain claims it
    in the thread's place, and knows from then on that no thread will ever do it.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        """Take the function; it must not let an exception out."""
        self._work = work
        self._claim = allocate_lock()
        self._begun = allocate_lock()
        self._begun.acquire()
        self._ended = allocate_lock()
        self._ended.acquire()
        self._is_started = False
        self._is_given_up = False

    def start(self) -> None:
        """Ask for a thread; to be called once. Never waits, and says nothing of whether it came to anything."""
        try:
            start_new_thread(self._run, ())
        except (RuntimeError, MemoryError):  # the system gives no thread
            return
        self._is_started = True

    def has_begun(self, within_s: float) -> bool:
        """Whether a thread does the work, or has done it. False is final: it never will.

        Args:
            within_s: how long it may take a thread to begin, in seconds.
        """
        if self._is_started and self._begun.acquire(timeout=within_s):
            self._begun.release()
            return True
        self._is_given_up = self._is_given_up or self._claim.acquire(blocking=False)
        return not self._is_given_up

    def wait(self, timeout_s: float = -1) -> bool:
        """Wait for the end of work that has begun; whether it was reached in time. Less than 0 = without a limit."""
        if not self._ended.acquire(timeout=timeout_s):
            return False
        self._ended.release()
        return True

    def _run(self) -> None:
        if not self._claim.acquire(blocking=False):
            return
        try:
            self._begun.release()
            self._work()
        finally:
            self._ended.release()
