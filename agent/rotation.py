"""Log files that several processes append to, and that are rotated by size."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from agent.files import open_lock, write_all

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 64 * 2**20
KEPT_FILES = 8


class RotatingFile:
    """An append-only file: FILE, and its predecessors FILE.1 (the newest) to FILE.7.

    Any number of processes may write to it. Whoever finds it full renames it, under a lock; the
    others notice that the name stands for another file by now and go over to that.
    """

    def __init__(
        self, path: Path, *, max_bytes: int = MAX_BYTES, kept_files: int = KEPT_FILES, mode: int = 0o644
    ) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._kept_files = kept_files
        self._mode = mode
        self._descriptor = -1

    def write(self, lines: bytes) -> None:
        """Append whole lines; they stay together.

        Raises:
            OSError: they can't be written, as on a full disk.
        """
        self._follow_name()
        if os.fstat(self._descriptor).st_size + len(lines) > self._max_bytes:
            self._rotate()
        write_all(self._descriptor, lines)

    def close(self) -> None:
        """Let go of the file; the next write opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        # Whoever writes to a named pipe that somebody has put in its place would wait for a reader.
        flags |= os.O_NONBLOCK
        self._descriptor = os.open(self.path, flags, self._mode)

    def _follow_name(self) -> None:
        """Hold the file that the name stands for now."""
        if self._descriptor >= 0 and not self._is_current():
            self.close()
        if self._descriptor < 0:
            self._open()

    def _is_current(self) -> bool:
        try:
            named = os.stat(self.path)
        except FileNotFoundError:
            return False
        held = os.fstat(self._descriptor)
        return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)

    def _rotate(self) -> None:
        # Not the lock of the file itself, which everybody who may read it can hold for ever.
        lock = open_lock(self.path.with_name(f".{self.path.name}.lock"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._is_current() and os.fstat(self._descriptor).st_size > 0:
                self._move_along()
            self.close()
            self._open()
        finally:
            os.close(lock)

    def _move_along(self) -> None:
        for number in range(self._kept_files - 1, 0, -1):
            newer = self.path if number == 1 else self._numbered(number - 1)
            with contextlib.suppress(FileNotFoundError):
                os.replace(newer, self._numbered(number))

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")
