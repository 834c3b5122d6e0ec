"""Directories of the host that stay the ones that they were when they were first opened."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

from agent.install.posix.births import UNKNOWN, born_ns, may_be_same

PLACE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How directories are opened to reach what is in them; also those that can't be listed."""

_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FEW_OPEN, _MOST_OPEN = 128, 8192
_OPEN_BESIDE = 512
NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
"""Errors that say that there is nothing at a path; others say that nobody knows."""


class PlaceChanged(OSError):
    """A directory that was found at a path is not there any more: it is gone, or something else has taken its place."""

    def __init__(self, real: bytes) -> None:
        super().__init__(errno.ESTALE, "it was replaced or removed meanwhile", real)


@contextmanager
def many_open() -> Iterator[int]:
    """Let this process keep many directories open meanwhile; how many, as far as its limits let it.

    Programs that are started meanwhile would get the same limit, so nothing is.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_OPEN + _OPEN_BESIDE
    limit = max(soft, wanted if hard == resource.RLIM_INFINITY else min(hard, wanted))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield max(min(limit - _OPEN_BESIDE, _MOST_OPEN), FEW_OPEN)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class OpenDirectories:
    """Directories by their real paths, each component of which is opened without following a link.

    A path stands for the directory that was found there first, by device and inode: whoever opens it later gets that
    one, or an error. Descriptors stand for the places only (O_PATH): good for everything that takes `dir_fd`, also where
    we may not list the directory. A bounded number of them is kept open: use each before the next call. Close it in
    the end.

    Args:
        most_open: how many are kept open, so that they need not be found again.
    """

    def __init__(self, most_open: int = FEW_OPEN) -> None:
        self._most_open = most_open
        self._open: OrderedDict[bytes, int] = OrderedDict()
        self._other_names: dict[bytes, bytes] = {}
        self._identities: dict[bytes, int] = {}
        self._inodes: dict[bytes, int] = {}
        self._born_ns: dict[bytes, int] = {}

    def close(self) -> None:
        """Close all descriptors."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def of(self, real: bytes) -> int:
        """Descriptor of a directory by its real path.

        Raises:
            PlaceChanged: it was there, and is not any more.
            OSError: it is not there, or something else is.
        """
        known = self._open.get(real)
        if known is not None:
            self._open.move_to_end(real)
            return known
        descriptor = os.open(b"/", PLACE) if real == b"/" else self._opened(real, PLACE)
        self._open[real] = descriptor
        if len(self._open) > self._most_open:
            os.close(self._open.popitem(last=False)[1])
        return descriptor

    def opened(self, real: bytes) -> int:
        """A new descriptor of a directory, to list it; it is the caller's to close.

        Raises:
            OSError: as `of`, and where we may not list it.
        """
        return os.open(b"/", _LIST) if real == b"/" else self._opened(real, _LIST)

    def status(self, real: bytes) -> os.stat_result:
        """Of a directory, as it is now. It is not opened for that, since there may be many.

        Raises:
            OSError: as `of`.
        """
        if real in self._open or real in self._born_ns or real == b"/":
            return os.fstat(self.of(real))
        above, _slash, name = real.rpartition(b"/")
        dir_fd = self.of(above or b"/")
        try:
            status = os.stat(self._other_names.get(real, name), dir_fd=dir_fd, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        except OSError as error:
            self._fail(real, error)
        self._check(real, status)
        return status

    def find(self, directory: bytes, name: bytes) -> os.stat_result | None:
        """Status of what has this name in a directory, a link or not, as it is now; None when nothing has.

        Nothing has, either, where no directory was ever found and something else is there: real paths lead through no
        links and files.

        Raises:
            OSError: that can't be told, or the directory is not the one any more that was found.
        """
        try:
            return self.entry(directory, name)
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise
            return None

    def entry(self, directory: bytes, name: bytes) -> os.stat_result:
        """Status of what has this name in a directory, a link or not, as it is now.

        Raises:
            OSError: as `of`; or nothing has. It names the whole path.
        """
        dir_fd = self.of(directory)
        try:
            return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        except OSError as error:
            error.filename = directory.rstrip(b"/") + b"/" + name
            raise

    def is_made(self, real: bytes, status: os.stat_result) -> None:
        """We have just made this directory: no other one is taken for it."""
        self._identities[real] = _identity(status)

    def expect(self, real: bytes, inode: int, born: int = UNKNOWN) -> None:
        """A directory with another inode, or with another birth, is not the one that this path stands for."""
        self._inodes[real] = inode
        if born != UNKNOWN:
            self._born_ns[real] = born

    def identity(self, real: bytes) -> int:
        """Tells this directory apart from all others that there are now, on any file system.

        Raises:
            OSError: as `of`.
        """
        known = self._identities.get(real)
        return self._identities.setdefault(real, _identity(self.status(real))) if known is None else known

    def inode(self, real: bytes) -> int:
        """Number of this directory; it is not looked at again for that.

        Raises:
            OSError: as `of`.
        """
        return self.identity(real) & _INODE

    def name_is(self, real: bytes, name: bytes | None) -> None:
        """Until told otherwise, the directory that is to be at `real` goes by another name there; None ends it."""
        if name is None:
            self._other_names.pop(real, None)
        else:
            self._other_names[real] = name

    def forget(self, real: bytes) -> None:
        """What was opened for this path is something else from now on."""
        self._identities.pop(real, None)
        descriptor = self._open.pop(real, None)
        if descriptor is not None:
            os.close(descriptor)

    def _opened(self, real: bytes, flags: int) -> int:
        """A new descriptor of a directory.

        One that is known is first looked for by its whole path: wherever others have made that lead meanwhile, only that
        very directory is taken, and there is no need to have those above it open. What else is there, the walk says.
        """
        if real in self._identities and not self._other_names:
            try:
                descriptor = os.open(real, flags)
            except OSError:
                return self._walked(real, flags)
            if self._is_known(real, os.fstat(descriptor)) and self._has_birth(real, descriptor):
                return descriptor
            os.close(descriptor)
        return self._walked(real, flags)

    def _walked(self, real: bytes, flags: int) -> int:
        above, _slash, name = real.rpartition(b"/")
        dir_fd = self.of(above or b"/")
        try:
            descriptor = os.open(self._other_names.get(real, name), flags, dir_fd=dir_fd)
        except OSError as error:
            self._fail(real, error)
        try:
            self._check(real, os.fstat(descriptor))
            if not self._has_birth(real, descriptor):
                raise PlaceChanged(real)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _check(self, real: bytes, status: os.stat_result) -> None:
        """Check that this directory is the one that the path stands for; where none is known, from now on it is."""
        self._identities.setdefault(real, _identity(status))
        if not self._is_known(real, status):
            raise PlaceChanged(real)

    def _is_known(self, real: bytes, status: os.stat_result) -> bool:
        """Whether this is the status of the directory that the path stands for."""
        inode, is_same = status.st_ino, self._identities.get(real) == _identity(status)
        return is_same and self._inodes.get(real, inode) == inode

    def _has_birth(self, real: bytes, descriptor: int) -> bool:
        """Whether this open directory can be the one that the path stands for, by the time when it was made."""
        expected = self._born_ns.get(real, UNKNOWN) if self._born_ns else UNKNOWN
        return expected == UNKNOWN or may_be_same(expected, born_ns(descriptor))

    def _fail(self, real: bytes, error: OSError) -> NoReturn:
        """Say that this directory can't be reached, because a call has raised this error."""
        if error.errno in NOT_THERE and real in self._identities:
            raise PlaceChanged(real) from error
        error.filename = real
        raise error


_INODE = (1 << 64) - 1


def _identity(status: os.stat_result) -> int:
    return status.st_dev << 64 | status.st_ino
