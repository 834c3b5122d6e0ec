"""Reading what scripts print, on its way into the script log."""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import TYPE_CHECKING

from agent.lifecycle.output import LineCutter
from agent.lifecycle.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agent.lifecycle.script_log import ScriptLog

# A line without its end, such as a prompt, is shown after this time as if it were a whole one.
UNFINISHED_LINE_S = 10.0

_READ_BYTES = 2**18


class Capture:
    """The output of the script that runs now, and of what earlier ones have left behind."""

    def __init__(self, log: ScriptLog) -> None:
        self._log = log
        self._poll = select.poll()
        self._readers: dict[int, tuple[Stream, LineCutter]] = {}
        self._current: set[int] = set()
        self.last_output_at: float | None = None

    @property
    def readers(self) -> tuple[int, ...]:
        """Descriptors of all streams that somebody may still write to."""
        return tuple(self._readers)

    @property
    def is_open(self) -> bool:
        """Whether somebody may still write to the streams that were added last."""
        return not self._current.isdisjoint(self._readers)

    def add(self, readers: Sequence[int]) -> None:
        """Read the streams of a new script, too; from now on they are the current ones."""
        self._current = set(readers)
        self.last_output_at = None
        for stream, descriptor in zip(Stream, readers, strict=True):
            self._readers[descriptor] = (stream, LineCutter())
            self._poll.register(descriptor, select.POLLIN)

    @contextlib.contextmanager
    def waking_on(self, descriptor: int) -> Iterator[None]:
        """Meanwhile `read` also returns when this descriptor becomes readable."""
        self._poll.register(descriptor, select.POLLIN)
        try:
            yield
        finally:
            self._poll.unregister(descriptor)

    def read(self, wait_s: float) -> int:
        """Log what there is to read, waiting at most so long for it; how many bytes it was."""
        size = sum(self._take(descriptor) for descriptor, _ in self._poll.poll(wait_s * 1000))
        now = time.monotonic()
        if size:
            self.last_output_at = now
        elif self.last_output_at is not None and now - self.last_output_at > UNFINISHED_LINE_S:
            self.flush()
        return size

    def read_to_end(self, *, within_s: float) -> None:
        """Log what comes until nobody can write to the current streams, or until the time is up.

        What has been printed by now is logged in any case.
        """
        end = time.monotonic() + within_s
        while self.is_open:
            size = self.read(max(end - time.monotonic(), 0))
            if not size and time.monotonic() >= end:
                break
            if time.monotonic() >= end + within_s:  # a background process that prints all the time
                break
        if not self.is_open:
            return
        for descriptor in self._current & set(self._readers):
            stream, lines = self._readers[descriptor]
            self._log.output(stream, lines.flush())

    def discard(self) -> None:
        """Read and drop everything until nobody can write any more."""
        while self._readers:
            for descriptor, _ in self._poll.poll():
                with contextlib.suppress(BlockingIOError):
                    if not os.read(descriptor, _READ_BYTES):
                        self._let_go(descriptor)

    def flush(self) -> None:
        """Log lines that have no end yet."""
        for stream, lines in self._readers.values():
            self._log.output(stream, lines.flush())

    def _take(self, descriptor: int) -> int:
        if descriptor not in self._readers:
            return 0
        stream, lines = self._readers[descriptor]
        try:
            chunk = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return 0
        if chunk:
            self._log.output(stream, lines.feed(chunk))
        else:
            self._log.output(stream, lines.flush())
            self._let_go(descriptor)
        return len(chunk)

    def _let_go(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        del self._readers[descriptor]
        os.close(descriptor)
