"""Directories, opened without following a link at any component of their path."""

from __future__ import annotations

import os
import re
from collections import OrderedDict

_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_OPEN = 128
_DEEPEST = 100  # levels of directories that are open at the same time


class Descriptors:
    """Descriptors of directories by real path, a bounded number of them kept open.

    They stand for the places only (O_PATH): good for everything that takes `dir_fd`, also where
    we may not list the directory. Use each descriptor before the next call, and close in the end.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[bytes, int] = OrderedDict()
        self._other_names: dict[bytes, bytes] = {}

    def close(self) -> None:
        """Afterwards none is open."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def of(self, real: bytes) -> int:
        """Descriptor of this directory.

        Raises:
            OSError: it is not there, or is not a directory; a link is none.
        """
        known = self._open.get(real)
        if known is not None:
            self._open.move_to_end(real)
            return known
        descriptor = self._opened(real, _FLAGS)
        self._open[real] = descriptor
        if len(self._open) > _MOST_OPEN:
            os.close(self._open.popitem(last=False)[1])
        return descriptor

    def opened(self, real: bytes) -> int:
        """A new descriptor of this directory, to list it; it is the caller's to close.

        Raises:
            OSError: as above, and where we may not list it.
        """
        return self._opened(real, _LIST)

    def _opened(self, real: bytes, flags: int) -> int:
        if real == b"/":
            return os.open(b"/", flags)
        above, _slash, name = real.rpartition(b"/")
        return os.open(self._other_names.get(real, name), flags, dir_fd=self.of(above or b"/"))

    def name_is(self, real: bytes, name: bytes | None) -> None:
        """Until told otherwise, the directory that is to be at `real` goes by another name there; None ends it."""
        if name is None:
            self._other_names.pop(real, None)
        else:
            self._other_names[real] = name

    def forget(self, real: bytes) -> None:
        """What was opened for this path is something else from now on."""
        descriptor = self._open.pop(real, None)
        if descriptor is not None:
            os.close(descriptor)


def remove_tree(dir_fd: int, name: bytes) -> None:
    """Afterwards nothing is there, whatever it was; links are removed, never followed."""
    if _unlinked(dir_fd, name):
        return
    top = os.open(name, _LIST, dir_fd=dir_fd)
    try:
        while names := os.listdir(top):
            for inner in names:
                _remove_in(top, os.fsencode(inner), top, _DEEPEST)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=dir_fd)


def _remove_in(dir_fd: int, name: bytes, top: int, levels: int) -> None:
    """The same; what is more than so many levels below is brought up to the top, for the next round."""
    if _unlinked(dir_fd, name):
        return
    if levels == 0:
        os.rename(name, b"deeper-%d" % os.stat(name, dir_fd=dir_fd).st_ino, src_dir_fd=dir_fd, dst_dir_fd=top)
        return
    descriptor = os.open(name, _LIST, dir_fd=dir_fd)
    try:
        for inner in os.listdir(descriptor):
            _remove_in(descriptor, os.fsencode(inner), top, levels - 1)
    finally:
        os.close(descriptor)
    os.rmdir(name, dir_fd=dir_fd)


def _unlinked(dir_fd: int, name: bytes) -> bool:
    """Whether nothing is there any more, because it was no directory."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except IsADirectoryError:
        return False
    except FileNotFoundError:
        return True
    return True


def mount_point(real: bytes) -> bytes:
    """The topmost directory above this one, or itself, that is on the same file system."""
    device = os.lstat(real).st_dev
    while real != b"/":
        above = real.rpartition(b"/")[0] or b"/"
        if os.lstat(above).st_dev != device:
            break
        real = above
    return real


def lasting_mount_point(real: bytes) -> bytes:
    """Where the file system of this directory is mounted, if it may be there again after it was not; else empty."""
    place = mount_point(real)
    return place if place != b"/" and is_mounted(place) and not is_volatile(place) else b""


def is_mounted(path: bytes) -> bool:
    """Whether another file system begins here than above."""
    try:
        return os.lstat(path).st_dev != os.lstat(path.rpartition(b"/")[0] or b"/").st_dev
    except (FileNotFoundError, NotADirectoryError):
        return False


def is_volatile(path: bytes) -> bool:
    """Whether this mount point's file system is gone for good when it is not mounted any more."""
    with open("/proc/self/mounts", "rb") as mounts:
        lines = [line.split(b" ") for line in mounts]
    kinds = [words[2] for words in lines if _unescaped(words[1]) == path]
    return bool(kinds) and kinds[-1] in {b"tmpfs", b"ramfs"}


def _unescaped(word: bytes) -> bytes:
    """Blanks and the like are octal numbers there."""
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), word)
