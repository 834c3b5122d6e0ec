"""Removing whole directory trees."""

from __future__ import annotations

import errno
import os
import stat
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from agent.install.posix.acl import ACCESS, read_acl, writers

if TYPE_CHECKING:
    from collections.abc import Callable

_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR})
_DEEPEST = 100  # levels of directories that are open at the same time


class NotOurs(Exception):
    """A directory that is not to be removed, or that something has to stay in."""


def remove_tree(dir_fd: int, name: bytes, is_ours: Callable[[int], bool]) -> None:
    """Remove whatever is there; links are removed, never followed.

    Where others may write to a directory of the tree, they can bring in another one of theirs, and in that one there may
    be what only root can remove. So below what may have been brought in, only directories go that the same users may
    write to as the one that they lie in. What is mounted in it stays, whoever has done that.

    Args:
        dir_fd: of the directory where it is.
        name: in that.
        is_ours: whether the directory with this descriptor may go, with all that is in it.

    Raises:
        NotOurs: it may not; or something in it may not, and all else is gone.
        OSError: something can't be removed.
    """
    if _unlinked(dir_fd, name):
        return
    top = os.open(name, _LIST, dir_fd=dir_fd)
    try:
        if os.fstat(top).st_dev != os.fstat(dir_fd).st_dev or not is_ours(top):
            raise NotOurs
        if not _Tree(top).is_emptied():
            raise NotOurs
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=dir_fd)


class _Access(NamedTuple):
    """Who can change what is in a directory.

    Attributes:
        uid: of its owner.
        may_write: as `writers` tells them.
    """

    uid: int
    may_write: frozenset[tuple[int, int, bool]]

    @property
    def is_open(self) -> bool:
        """Whether anybody can, besides root and the agent's user."""
        return self.uid not in {0, os.geteuid()} or bool(self.may_write)

    def is_like(self, other: _Access) -> bool:
        """Whether those who can change what is in the other one can do so here."""
        return self.uid == other.uid and (
            self.uid not in {0, os.geteuid()} or (bool(self.may_write) and self.may_write == other.may_write)
        )


def _access(descriptor: int) -> _Access:
    status = os.fstat(descriptor)
    # The bits of the group are the mask of all that a list lets in.
    acl = read_acl(descriptor, ACCESS) if status.st_mode & stat.S_IWGRP else None
    return _Access(status.st_uid, writers(status.st_mode, status.st_gid, acl))


class _Tree:
    """A tree that is being removed.

    Whoever moves a directory into another one must be able to write to both. So what nobody else may write to was not
    brought into the tree; but it may lie in something that was.

    Args:
        top: its descriptor.
    """

    def __init__(self, top: int) -> None:
        self._top = top
        self._device = os.fstat(top).st_dev
        self._brought: set[int] = set()  # inodes of those that may have been, and are at the top now

    def is_emptied(self) -> bool:
        """Remove what is in it; whether that was all."""
        access, kept = _access(self._top), set[str]()
        while names := set(os.listdir(self._top)) - kept:
            for name in names:
                if not self._is_removed(self._top, os.fsencode(name), access, _DEEPEST, is_brought=False):
                    kept.add(name)
        return not kept

    def _is_removed(self, dir_fd: int, name: bytes, above: _Access, levels: int, *, is_brought: bool) -> bool:
        """Remove what has this name; what is more than so many levels below is brought up to the top, for the next round.

        Args:
            dir_fd: of the directory that it is in.
            name: in that.
            above: who can change what is in that directory.
            levels: so many.
            is_brought: whether that directory may have been brought into the tree.
        """
        try:
            if _unlinked(dir_fd, name):
                return True
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False  # another file is mounted over it
        descriptor = os.open(name, _LIST, dir_fd=dir_fd)
        try:
            status = os.fstat(descriptor)
            if status.st_dev != self._device:
                return False  # somebody has mounted something there
            inode, access = status.st_ino, _access(descriptor)
            if is_brought and not access.is_like(above) and os.listdir(descriptor):
                return False
            is_brought = is_brought or inode in self._brought or (above.is_open and access.is_open)
            if levels == 0:
                self._bring_up(dir_fd, name, inode, is_brought=is_brought)
                return True
            removed = [
                self._is_removed(descriptor, os.fsencode(inner), access, levels - 1, is_brought=is_brought)
                for inner in os.listdir(descriptor)
            ]
        finally:
            os.close(descriptor)
        if all(removed):
            os.rmdir(name, dir_fd=dir_fd)
        return all(removed)

    def _bring_up(self, dir_fd: int, name: bytes, inode: int, *, is_brought: bool) -> None:
        if is_brought:
            self._brought.add(inode)
        upper = self._moved_up(dir_fd, name, b"deeper-%d" % inode)
        if os.stat(upper, dir_fd=self._top, follow_symlinks=False).st_ino != inode:
            raise NotOurs  # somebody has put another one in its place meanwhile

    def _moved_up(self, dir_fd: int, name: bytes, wanted: bytes) -> bytes:
        """Give what has this name the wanted one at the top, or that with a number where somebody has taken it; that name."""
        upper = wanted
        for number in count(2):
            try:
                os.rename(name, upper, src_dir_fd=dir_fd, dst_dir_fd=self._top)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
                upper = b"%b-%d" % (wanted, number)
            else:
                break
        return upper


def _unlinked(dir_fd: int, name: bytes) -> bool:
    """Whether nothing is there any more, because it was no directory."""
    try:
        os.unlink(name, dir_fd=dir_fd)
    except IsADirectoryError:
        return False
    except FileNotFoundError:
        return True
    return True
