"""Why even root may not change a file: attributes that ls does not show."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct

from agent.install.posix.mounts import mount_point
from agent.user_names import user_name

_GET_FLAGS = 0x80086601  # FS_IOC_GETFLAGS, where a long has 8 bytes
_FLAGS = {0x10: ("immutable", "i"), 0x20: ("append-only", "a")}
_REFUSED = frozenset({errno.EPERM, errno.EACCES})


def protection_of(path: str, error: OSError) -> str:
    """A sentence about what protects the path, or its directory, when the system refused to change it."""
    if error.errno == errno.EBUSY and path:
        return f"{path} is a mount point, and what is mounted over a file can't be replaced; mount its directory instead. "
    if error.errno == errno.EROFS and path:
        place = _mounted_at(path)
        return f"The file system mounted at {place} is mounted read-only, for root as well (see `findmnt {place}`, and dmesg for why). "
    if error.errno not in _REFUSED or not path:
        return ""
    for place in (path, os.path.dirname(path)):
        for name, letter in _protections(place):
            return f"{place} is {name} (see lsattr -d {place}); only `chattr -{letter} {place}` lets anybody change that. "
    return ""


def _mounted_at(path: str) -> str:
    """Where the file system is mounted that this path, or the nearest one above it that is there, is on."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return os.fsdecode(mount_point(os.path.realpath(os.fsencode(path))))


def remedy_for(path: str, error: OSError) -> str:
    """What to do when the system refused to change this path, without what to do then."""
    if error.errno in _REFUSED and not protection_of(path, error):
        if os.geteuid() == 0:
            return (
                "Root itself was refused: see whether SELinux or AppArmor (their audit log), a file server that trusts no root"
                " (root_squash), or a container without CAP_DAC_OVERRIDE is behind that"
            )
        return f"The agent runs as {own_name()}: give that user access to {os.path.dirname(path) or path}"
    return _REMEDIES.get(error.errno or 0, "Fix that")


def own_name() -> str:
    """Whom this process runs as."""
    return user_name(os.geteuid())


_WHO_REMOVES = (
    "Find out which program removes or replaces it, such as a hook's background process or a cleaner"
)
_REMEDIES = {
    errno.EROFS: "Make it writable again (`mount -o remount,rw`, after a check when the kernel has found errors)",
    errno.EIO: "The disk or its server reports errors: see dmesg, and repair or replace it",
    errno.ENOSPC: "Free some space there, or inodes (`df -h`, `df -i`)",
    errno.EDQUOT: "Raise the disk quota, or remove files that count for it",
    errno.EBUSY: "Unmount it",
    errno.ENOENT: (
        "Another program removes it at the same time, or it lies where nobody can make files (/proc, /sys): find out"
        " which of these it is"
    ),
    errno.EEXIST: "Another program has made it at the same time: find out which one",
    errno.EIDRM: _WHO_REMOVES,
    errno.ESTALE: _WHO_REMOVES,
    errno.EMFILE: "The agent may open too few files: raise LimitNOFILE of its service",
    errno.ENFILE: "The host has too many open files: see which program holds them (lsof)",
    errno.ENOMEM: "The host or the service is short of memory: free some, or raise MemoryMax of the service",
    errno.ENAMETOOLONG: "Give the file a shorter name, or the entry of the AppSpec a shorter destination",
    errno.ETXTBSY: "A program that runs is in the way: stop it in ApplicationStop",
    errno.EPERM: "Take that protection away",
    errno.EACCES: "Take that protection away",
}


def check_changeable(descriptor: int) -> None:
    """Check that names in this open directory can be changed, as far as such attributes decide it.

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
