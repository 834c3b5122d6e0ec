"""Reading what a script prints, while it runs and for a moment after.

The output goes through pipes, and not straight to files, although pipes need a reader for as long
as anything holds them (see `keeper`): a script may open /dev/stderr again, and in a file that cuts
off all that was written before; a full disk would make the script's own `echo` fail; and a file
that a script writes to can't be rotated.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import time
from typing import TYPE_CHECKING

from agent.lifecycle.output import LineCutter, Stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.lifecycle.script_log import ScriptLog

# A line without its end, such as a prompt, is shown after this time as if it were a whole one.
UNFINISHED_LINE_S = 10.0

_PIPE_BYTES = 2**18  # a chatty script is not slowed down by waiting for us; a quarter of what users may have
_READ_BYTES = 2**18


class Capture:
    """Both output streams of one script, on their way into the script log."""

    def __init__(self, log: ScriptLog) -> None:
        self._log = log
        self._poll = select.poll()
        self._readers: dict[int, tuple[Stream, LineCutter]] = {}
        self._writers: list[int] = []
        self.pipes: set[str] = set()
        self.last_output_at: float | None = None
        for stream in Stream:
            self._open(stream)

    @property
    def stdout(self) -> int:
        """What the script gets as its standard output."""
        return self._writers[0]

    @property
    def stderr(self) -> int:
        """What the script gets as its standard error."""
        return self._writers[1]

    @property
    def readers(self) -> tuple[int, ...]:
        """Descriptors of the streams that somebody may still write to."""
        return tuple(self._readers)

    def close_writers(self) -> None:
        """Leave the writing ends to the script."""
        for descriptor in self._writers:
            os.close(descriptor)
        self._writers.clear()

    @contextlib.contextmanager
    def waking_on(self, descriptor: int | None) -> Iterator[None]:
        """Meanwhile `read` also returns when this descriptor, if any, becomes readable."""
        if descriptor is None:
            yield
            return
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
        """Log what comes until nobody can write any more, or until the time is up."""
        end = time.monotonic() + within_s
        while self._readers and (left := end - time.monotonic()) > 0:
            self.read(left)

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

    def close(self) -> None:
        """Stop reading; afterwards whoever writes there gets a broken pipe."""
        self.flush()
        self.close_writers()
        for descriptor in self.readers:
            self._let_go(descriptor)

    def _open(self, stream: Stream) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reader, False)
        # A script may change its user and then open /dev/stderr. Only its own processes get so far.
        os.fchmod(writer, 0o622)
        with contextlib.suppress(OSError):  # the user may have too many large pipes
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.pipes.add(f"pipe:[{os.fstat(reader).st_ino}]")
        self._readers[reader] = (stream, LineCutter())
        self._writers.append(writer)
        self._poll.register(reader, select.POLLIN)

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
