"""Everything that may wake the daemon, in one wait: signals, workers that end, a socket, the clock."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from agent.endpoint.waiting import Waitable


_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def _never() -> bool:
    return False


class PollAbandoned(Exception):
    """The poll under way is of no use any more: the daemon has been told to stop."""


class Wakeups:
    """Waits for a socket or a time, and meanwhile runs what the daemon has to do.

    Signals only leave a mark here and are handled in the daemon's own time. Only what is declared to
    be interruptible, because it can block where nothing else can wake it, is cut off by them.
    """

    def __init__(self, tick: Callable[[], None], *, tick_interval_s: float) -> None:
        self._tick = tick
        self._tick_interval_s = tick_interval_s
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._signals: list[int] = []
        self._is_interruptible = False
        self._is_abandoned = _never
        self.also_watched: Callable[[], Sequence[int]] = lambda: ()

    def catch(self, *numbers: int) -> None:
        """From now on these signals wake the daemon instead of ending it."""
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, self._note)

    def release(self) -> None:
        """Give every signal back its default meaning; for a forked worker."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        os.close(self._reader)
        os.close(self._writer)

    @contextlib.contextmanager
    def interruptible(self, unless: Callable[[], bool]) -> Iterator[None]:
        """Within the block, what waits raises PollAbandoned as soon as `unless` says so.

        A signal that asks for an end does so wherever the daemon is: for looking up names, sending, and asking
        the metadata service. Not while `tick` runs.
        """
        self._is_interruptible, self._is_abandoned = True, unless
        try:
            yield
        finally:
            self._is_interruptible, self._is_abandoned = False, _never

    def take_signals(self) -> list[int]:
        """The signals that came since the last call, oldest first."""
        taken, self._signals = self._signals, []
        return taken

    def wait_for_socket(self, sock: Waitable, timeout_s: float) -> None:
        """Return when the socket, or what stands for it, can be read.

        Raises:
            TimeoutError: nothing came in time.
            PollAbandoned: nobody wants the answer any more, as the caller of `interruptible` says.
        """
        deadline = time.monotonic() + timeout_s
        while not self._wait(sock, deadline):
            if self._is_abandoned():
                raise PollAbandoned
            if time.monotonic() >= deadline:
                raise TimeoutError("timed out")

    def sleep_until(self, moment: float, unless: Callable[[], bool]) -> None:
        """Return at this moment (monotonic seconds), or as soon as `unless` says so.

        Also where that moment has passed already, what has to be done is done first.
        """
        self._wait(None, time.monotonic())
        while time.monotonic() < moment and not unless():
            self._wait(None, moment)

    def _wait(self, sock: Waitable | None, deadline: float) -> bool:
        """One wait of at most a tick; True when the socket can be read."""
        wanted = [self._reader, *self.also_watched()]
        if sock is not None:
            wanted.append(sock.fileno())
        remaining = max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select(wanted, [], [], min(remaining, self._tick_interval_s))
        if self._reader in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._reader, 4096)
        was_interruptible, self._is_interruptible = self._is_interruptible, False
        self._tick()
        self._is_interruptible = was_interruptible
        return sock is not None and sock.fileno() in ready

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)
        if self._is_interruptible and number in _ENDING_SIGNALS:
            raise PollAbandoned
