"""When an inode was made: its number alone does not tell it from one that has got the number of a removed one since.

Most file systems know that time, and nobody can set it; Python tells it from 3.15 on.
"""

from __future__ import annotations

import functools
import os
import struct
from typing import Any

UNKNOWN = 0
"""Where a file system, or an old kernel, does not tell the time of birth."""

_EMPTY_PATH, _BIRTH = 0x1000, 0x800
_ANSWER = struct.Struct("=I76xqI")  # a struct statx, up to there
_BYTES = 256
_NUMBERS = {"x86_64": 332, "aarch64": 291}  # of the system call, for C libraries that have no function


def born_ns(descriptor: int) -> int:
    """When the inode of an open file or directory was made, in ns since the epoch; `UNKNOWN` where nobody knows.

    Args:
        descriptor: it may stand for the place only.
    """
    call, answer = _statx()
    if call is None or call(descriptor, b"", _EMPTY_PATH, _BIRTH, answer) != 0:
        return UNKNOWN
    mask, seconds, nanoseconds = _ANSWER.unpack_from(answer)
    return int(seconds * 1_000_000_000 + nanoseconds) if mask & _BIRTH else UNKNOWN


def may_be_same(one_ns: int, other_ns: int) -> bool:
    """Whether two inodes with the same number can be one, by their times of birth."""
    return one_ns == other_ns or UNKNOWN in {one_ns, other_ns}


@functools.cache
def _statx() -> tuple[Any, Any]:
    """The call, which returns 0 where it succeeds, None where there is none; and a place for its answers."""
    # ctypes costs some milliseconds, and only those need it who carry out an Install.
    import ctypes  # noqa: PLC0415

    library = ctypes.CDLL(None)
    types = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)
    function: Any
    try:
        function = library.statx
        function.argtypes = types
    except AttributeError:
        number = _NUMBERS.get(os.uname().machine)
        if number is None:
            return None, None
        library.syscall.argtypes = (ctypes.c_long, *types)
        function = functools.partial(library.syscall, number)
    return function, ctypes.create_string_buffer(_BYTES)
