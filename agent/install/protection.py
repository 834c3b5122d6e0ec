"""Why even root may not change a file: attributes that ls does not show."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct

_GET_FLAGS = 0x80086601  # FS_IOC_GETFLAGS, where a long has 8 bytes
_FLAGS = {0x10: ("immutable", "i"), 0x20: ("append-only", "a")}
_REFUSED = frozenset({errno.EPERM, errno.EACCES})


def protection_of(path: str, error: OSError) -> str:
    """A sentence about what protects the path, or its directory, when the system refused to change it."""
    if error.errno == errno.EBUSY and path:
        return f"{path} is a mount point, and what is mounted over a file can't be replaced; mount its directory instead. "
    if error.errno not in _REFUSED or not path:
        return ""
    for place in (path, os.path.dirname(path)):
        for name, letter in _protections(place):
            return f"{place} is {name} (see lsattr -d {place}); only `chattr -{letter} {place}` lets anybody change that. "
    return ""


def check_changeable(descriptor: int) -> None:
    """Afterwards names in this open directory can be changed, as far as such attributes decide it.

    Raises:
        PermissionError: they can't.
    """
    if _protections_of(descriptor):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def _protections(path: str) -> list[tuple[str, str]]:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _protections_of(descriptor)
        finally:
            os.close(descriptor)
    return []


def _protections_of(descriptor: int) -> list[tuple[str, str]]:
    try:
        answer = fcntl.ioctl(descriptor, _GET_FLAGS, b"\0" * 8)
    except OSError:
        return []  # this file system has no such attributes
    flags = struct.unpack("=i4x", answer)[0]
    return [names for flag, names in _FLAGS.items() if flags & flag]
