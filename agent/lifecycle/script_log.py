"""The script logs: what hooks print, in the deployment's own log and in that of all deployments.

    scripts.log       2025-03-01 12:00:00 [stdout]text
    deployments log   [2025-03-01 12:00:00.123] [d-ABC][stdout]text

The format is that of the existing agents; tools read it. Both are rotated by size.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from agent.files import open_at_once
from agent.lifecycle.output import Tail, marked, recalled
from agent.rotation import MAX_BYTES, RotatingFile

if TYPE_CHECKING:
    from agent.lifecycle.streams import Stream


_RECALLED_BYTES = 2**16  # more than a tail, as each line has the time before it


class ScriptLog:
    """Takes what the hooks of one event print.

    A log that can't be written, as on a full disk, is no reason to fail a deployment: the lines
    are dropped.

    Args:
        scripts_log: the deployment's own log.
        deployments_log: the log of all deployments; None = not wanted.
        deployment_id: whose output it is.
        max_bytes: size at which either log is rotated.

    Attributes:
        trouble: why a log could not be written last; None = all lines are there.
    """

    def __init__(
        self,
        scripts_log: Path,
        deployments_log: Path | None,
        deployment_id: str,
        *,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._facts = (str(scripts_log), str(deployments_log or ""), deployment_id, max_bytes)
        self._scripts = RotatingFile(scripts_log, max_bytes=max_bytes)
        self._deployments = RotatingFile(deployments_log, max_bytes=max_bytes) if deployments_log else None
        self._deployment_id = deployment_id.encode()
        self._tail = Tail()
        self._is_interrupted = False
        self._before = _end_of(scripts_log)
        self.trouble: str | None = None
        for path in filter(None, (scripts_log, deployments_log)):
            with contextlib.suppress(OSError):
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)

    def describe(self) -> bytes:
        """What `described` makes another one of, in another process."""
        return json.dumps(self._facts).encode()

    @classmethod
    def described(cls, text: bytes) -> ScriptLog:
        """A log for the same files and deployment; nothing has been logged yet."""
        scripts_log, deployments_log, deployment_id, max_bytes = json.loads(text)
        deployments = Path(deployments_log) if deployments_log else None
        return cls(Path(scripts_log), deployments, deployment_id, max_bytes=max_bytes)

    @property
    def tail(self) -> str:
        """The end of all that was logged, without times, as it goes into a report."""
        return self._tail.text()

    @property
    def failure_tail(self) -> str:
        """The end of all that was logged, for the report of a failed event.

        It begins with the first error of the last script where that would be cut off.
        """
        return self._tail.failure_text()

    @property
    def last_words(self) -> str:
        """The end of what the last script printed, as one line, and where it printed that."""
        return self._tail.last_words()

    def note_interruption(self) -> None:
        """Remember that the process that wrote this log so far has gone, and took the tail along."""
        self._is_interrupted = True

    def recall_tail(self) -> None:
        """After an interruption, the tail is again what it was, as far as that had been written."""
        if not self._is_interrupted:
            return
        with contextlib.suppress(OSError), open_at_once(self._scripts.path) as file:
            now, (*known, size_before) = os.fstat(file.fileno()), self._before
            # What was there before is of other events, also where nothing of this one could be written.
            begin = size_before if known == [now.st_dev, now.st_ino] else 0
            file.seek(max(now.st_size - _RECALLED_BYTES, begin))
            self._tail = recalled(file.read())

    def note(self, line: bytes) -> None:
        """Log a line of our own, such as `Script - start.sh`; without a line end."""
        self._write(line + b"\n", b"")

    def output(self, stream: Stream, lines: bytes) -> None:
        """Log whole lines of a script."""
        if lines:
            self._write(lines, stream.value)

    def close(self) -> None:
        """Let go of the files."""
        self._scripts.close()
        if self._deployments:
            self._deployments.close()

    def _write(self, lines: bytes, mark: bytes) -> None:
        self._tail.append(lines, mark)
        now = time.time()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)).encode()
        self._append(self._scripts, marked(lines, b"%b %b" % (stamp, mark)))
        if self._deployments:
            milliseconds = int(now % 1 * 1000)
            prefix = b"[%b.%03d] [%b]%b" % (stamp, milliseconds, self._deployment_id, mark)
            self._append(self._deployments, marked(lines, prefix))

    def _append(self, file: RotatingFile, lines: bytes) -> None:
        try:
            file.write(lines)
        except OSError as error:
            self.trouble = f"{file.path}: {error.strerror or error}"


def _end_of(path: Path) -> tuple[int, int, int]:
    """Device and inode of this file, and how long it is; zeros where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0, 0
    return status.st_dev, status.st_ino, status.st_size
