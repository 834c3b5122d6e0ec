"""Whether anybody opens a file: whoever runs a script has to.

sudo and login shells may end without ever coming to the script, and their exit code is then taken for its own.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_IN_OPEN, _IN_NONBLOCK, _IN_CLOEXEC = 0x20, os.O_NONBLOCK, os.O_CLOEXEC
_READ_BYTES = 2**12


class OpenWatch:
    """Watches one file from now on; to be closed.

    Where the kernel refuses, as when a user has too many such watches, nothing is known.
    """

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        if (
            self._descriptor >= 0
            and libc.inotify_add_watch(self._descriptor, os.fsencode(path), _IN_OPEN) < 0
        ):
            self.close()

    def was_opened(self) -> bool | None:
        """Whether the file has been opened since; None = not known."""
        if self._descriptor < 0:
            return None
        try:
            return bool(os.read(self._descriptor, _READ_BYTES))
        except BlockingIOError:
            return False
        except OSError:
            return None

    def close(self) -> None:
        """Watch no more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
