"""Standard output and standard error as they may be: a full disk, a reader that has gone, or not there at all."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STANDARD = (0, 1, 2)


class Outlet(io.RawIOBase):
    """A file descriptor to which writing never fails; what does not get through is dropped from then on.

    Work that has begun must be carried to its end, whoever reads what is said of it: a deployment
    does not stop in the middle because `| head` has seen enough.

    Attributes:
        error: why something was dropped; None when all has got through.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.error: OSError | None = None

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """For those who ask whether it is a terminal."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._descriptor)

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all of it, or drop it."""
        left = memoryview(data).cast("B")
        length = len(left)
        while left and self.error is None:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError as error:
                # Without its frames, which would keep alive whatever the callers hold.
                self.error = error.with_traceback(None)
        return length

    @property
    def is_incomplete(self) -> bool:
        """Whether a reader that is still there has not got all. One that has gone wanted no more."""
        return self.error is not None and self.error.errno != errno.EPIPE


def prepare_streams() -> Outlet:
    """Afterwards whatever is printed gets out or is dropped; returns what standard output writes to.

    A standard descriptor that is closed is opened on /dev/null, lest a bundle or a log takes its number.
    """
    for descriptor in _STANDARD:
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest number that is free is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    out = Outlet(1)
    sys.stdout = _text(out)
    sys.stderr = _text(Outlet(2))
    return out


def _text(outlet: Outlet) -> io.TextIOWrapper:
    # Messages hold names of files, and those hold what the locale may have no letters for.
    return io.TextIOWrapper(
        io.BufferedWriter(outlet), encoding=_encoding(), errors="backslashreplace", line_buffering=True
    )


def _encoding() -> str:
    return getattr(sys.__stdout__, "encoding", None) or "utf-8"
