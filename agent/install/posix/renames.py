"""Giving names in one step: two names exchanged, and a name given only where nothing has it.

Both are flags of renameat2. Where the kernel, the C library or the file system does not know them,
there are older calls, which do the same in more steps.
"""

from __future__ import annotations

import errno
import os
import stat
from functools import partial
from itertools import count
from typing import Any

_NOREPLACE, _EXCHANGE = 1, 2
# EXDEV: overlay file systems, about a directory of the lower layer.
_UNKNOWN = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EXDEV})
_NO_HARD_LINK = frozenset({errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})
_NUMBERS = {"x86_64": 316, "aarch64": 276}  # of the system call, for C libraries that have no function


class Renames:
    """Renames within one directory, by which a name stands for one whole thing or another at every moment (I1)."""

    def __init__(self) -> None:
        self._call = _renameat2()

    def exchange(self, dir_fd: int, one: bytes, other: bytes) -> bool:
        """Let each name have what the other has. False where that is not possible in one step.

        Raises:
            OSError: one of them is not there, or may not be renamed.
        """
        return self._renamed(dir_fd, one, other, _EXCHANGE)

    def place(self, dir_fd: int, hidden: bytes, name: bytes) -> None:
        """Give this name to what has the hidden one.

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


def name_beside(renames: Renames, dir_fd: int, name: bytes, wanted: bytes) -> bytes:
    """Give what has this name the wanted one; where others have something there, that with a number. The name it has then.

    Raises:
        OSError: the system refuses.
    """
    free = wanted
    for number in count(2):
        try:
            renames.place(dir_fd, name, free)
        except FileExistsError:
            free = b"%b-%d" % (wanted, number)
        else:
            break
    return free


def has_two_names(dir_fd: int, name: bytes, other: bytes) -> bool:
    """Give what has this name the other one, too. False where two are impossible.

    A file that has both is there at every moment, whatever is then renamed over one of them.
    """
    try:
        os.link(name, other, src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
    except OSError as error:
        # Directories have one name only; so has everything on file systems without hard links.
        if error.errno not in _NO_HARD_LINK:
            raise
        return False
    return True


def exists(dir_fd: int, name: bytes) -> bool:
    """Whether anything has this name."""
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def inode_of(dir_fd: int, name: bytes) -> int:
    """Of what has this name; 0 when nothing has."""
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return 0


def is_directory(dir_fd: int, name: bytes) -> bool:
    """Whether a directory has this name."""
    return stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode)


def _renameat2() -> Any:
    """The call, which returns 0 or an error number; None where there is none."""
    # Python has no such call of its own. ctypes costs some milliseconds.
    import ctypes  # noqa: PLC0415

    library = ctypes.CDLL(None, use_errno=True)
    types = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    function: Any
    try:
        function = library.renameat2
        function.argtypes = types
    except AttributeError:
        number = _NUMBERS.get(os.uname().machine)
        if number is None:
            return None
        library.syscall.argtypes = (ctypes.c_long, *types)
        function = partial(library.syscall, number)

    def call(*arguments: object) -> int:
        return 0 if function(*arguments) == 0 else ctypes.get_errno()

    return call
