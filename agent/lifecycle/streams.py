"""The pipes that a script prints into.

Pipes, and not files: a script may open /dev/stderr again, and in a file that cuts off all that was
written before; a full disk would make the script's own `echo` fail; and a file that a script writes
to can't be rotated. What pipes need is a reader that does not end with us: see `recorder_client`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from enum import Enum

_PIPE_BYTES = 2**18  # a chatty script is not slowed down by waiting for us; a quarter of what users may have


class Stream(Enum):
    """Where a script printed something; the value is how its lines are marked in the logs."""

    STDOUT = b"[stdout]"
    STDERR = b"[stderr]"


class ScriptStreams:
    """Both output streams of one script, in the order of `Stream`.

    Raises:
        OSError: too many files are open.
    """

    def __init__(self) -> None:
        self.pipes: set[str] = set()
        self.readers: list[int] = []
        self._writers: list[int] = []
        try:
            for _ in Stream:
                self._open()
        except OSError:
            self.close()
            raise

    @property
    def stdout(self) -> int:
        """What the script gets as its standard output."""
        return self._writers[0]

    @property
    def stderr(self) -> int:
        """What the script gets as its standard error."""
        return self._writers[1]

    def close_writers(self) -> None:
        """Leave the writing ends to the script."""
        _close_all(self._writers)

    def close(self) -> None:
        """Keep nothing of the pipes in this process."""
        self.close_writers()
        _close_all(self.readers)

    def _open(self) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self.readers.append(reader)
        os.set_blocking(reader, False)
        # A script may change its user and then open /dev/stderr. Only its own processes get so far.
        os.fchmod(writer, 0o622)
        with contextlib.suppress(OSError):  # the user may have too many large pipes
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.pipes.add(f"pipe:[{os.fstat(reader).st_ino}]")
        self._writers.append(_unbreakable(writer))


def _unbreakable(writer: int) -> int:
    """The writing end, exchanged for one that also counts as a reader.

    Whoever holds that never gets a broken pipe, even if all processes of the agent are killed.
    Where /proc is closed to us, as to an agent that is not root, it stays as it is.
    """
    try:
        both = os.open(f"/proc/self/fd/{writer}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return writer
    os.close(writer)
    return both


def _close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
    descriptors.clear()
