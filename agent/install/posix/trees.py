"""Removing whole directory trees."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 100  # levels of directories that are open at the same time


class NotOurs(Exception):
    """A directory that is not to be removed."""


def remove_tree(dir_fd: int, name: bytes, is_ours: Callable[[os.stat_result], bool]) -> None:
    """Afterwards nothing is there, whatever it was; links are removed, never followed.

    Args:
        dir_fd: of the directory where it is.
        name: in that.
        is_ours: whether a directory with this status may go, with all that is in it.

    Raises:
        NotOurs: it may not, and is as it was.
        OSError: something can't be removed.
    """
    if _unlinked(dir_fd, name):
        return
    top = os.open(name, _LIST, dir_fd=dir_fd)
    try:
        if not is_ours(os.fstat(top)):
            raise NotOurs
        while names := os.listdir(top):
            for inner in names:
                _remove_in(top, os.fsencode(inner), top, _DEEPEST)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=dir_fd)


def _remove_in(dir_fd: int, name: bytes, top: int, levels: int) -> None:
    """Remove something in a tree; what is more than so many levels below is brought up to the top, for the next round."""
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
