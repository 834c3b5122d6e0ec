"""Giving names in one step: two names exchanged, and a name given only where nothing has it.

Both are flags of renameat2. Where the kernel, the C library or the file system does not know them,
there are older calls, which do the same in more steps.
"""

from __future__ import annotations

import errno
import os
from typing import Any

_NOREPLACE, _EXCHANGE = 1, 2
_UNKNOWN = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})


class Renames:
    """Renames within one directory."""

    def __init__(self) -> None:
        self._call = _renameat2()

    def exchange(self, dir_fd: int, one: bytes, other: bytes) -> bool:
        """Afterwards each name has what the other had. False where that is not possible in one step.

        Raises:
            OSError: one of them is not there, or may not be renamed.
        """
        return self._renamed(dir_fd, one, other, _EXCHANGE)

    def place(self, dir_fd: int, hidden: bytes, name: bytes) -> None:
        """Afterwards what had the hidden name has this one.

        Raises:
            FileExistsError: something has it already.
        """
        if self._renamed(dir_fd, hidden, name, _NOREPLACE):
            return
        if exists(dir_fd, name):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        os.rename(hidden, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    def _renamed(self, dir_fd: int, one: bytes, other: bytes, flags: int) -> bool:
        if self._call is None:
            return False
        number = self._call(dir_fd, one, dir_fd, other, flags)
        if number == 0:
            return True
        if number in _UNKNOWN:
            return False
        raise OSError(number, os.strerror(number), one)


def exists(dir_fd: int, name: bytes) -> bool:
    """Whether anything has this name."""
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _renameat2() -> Any:
    """The call, which returns 0 or an error number; None where there is none."""
    # Python has no such call of its own. ctypes costs some milliseconds.
    import ctypes  # noqa: PLC0415

    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)

    def call(*arguments: object) -> int:
        return 0 if function(*arguments) == 0 else ctypes.get_errno()

    return call
