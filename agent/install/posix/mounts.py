"""Where file systems are mounted."""

from __future__ import annotations

import os
import re


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
    if b"\\" not in word:
        return word
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), word)
