"""When an inode was made: its number alone does not tell it from one that has got the number of a removed one since.

Most file systems know that time, and nobody can set it; Python tells it from 3.15 on.
"""

from __future__ import annotations

import functools
import os
import struct
from typing import Any

from agent.install.posix.disks import kind_of_file_system

UNKNOWN = 0
"""Where a file system, or an old kernel, does not tell the time of birth, or not for good."""

_EMPTY_PATH, _BIRTH = 0x1000, 0x800
_ANSWER = struct.Struct("=I76xqI44xII")  # a struct statx, up to its device
_BYTES = 256
_OVERLAY = 0x794C7630  # the kind of file system, as statfs tells it
_NUMBERS = {"x86_64": 332, "aarch64": 291}  # of the system call, for C libraries that have no function


def born_ns(descriptor: int) -> int:
    """When the inode of an open file or directory was made, in ns since the epoch; `UNKNOWN` where nobody knows.

    Args:
        descriptor: it may stand for the place only.
    """
    call, answer = _statx()
    if call is None or call(descriptor, b"", _EMPTY_PATH, _BIRTH, answer) != 0:
        return UNKNOWN
    mask, seconds, nanoseconds, *device = _ANSWER.unpack_from(answer)
    if not mask & _BIRTH or not _is_lasting(tuple(device), descriptor):
        return UNKNOWN
    return int(seconds * 1_000_000_000 + nanoseconds)


_lasting: dict[tuple[int, ...], bool] = {}  # what was found out about each device


def _is_lasting(device: tuple[int, ...], descriptor: int) -> bool:
    """Whether births stay what they are on the device of this descriptor.

    On an overlay, what is in a lower layer is copied when it first changes: a directory of a container's image keeps its
    inode then, and gets the birth of the copy.
    """
    if device not in _lasting:
        _lasting[device] = kind_of_file_system(descriptor) not in {None, _OVERLAY}
    return _lasting[device]


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
