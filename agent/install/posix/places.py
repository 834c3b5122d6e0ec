"""Places: the directories of the host that an Install is about, each resolved once.

Every path is walked from `/` by descriptors, one component after the other, and no link is followed that `LinkRule`
does not let through. What was found at a path stays the answer for as long as the Install lasts, and the directory
that was found there stays *the* directory: whoever opens it later gets that one, by device and inode, or an error.
So it does not matter when somebody else moves directories or replaces them by links, or how often.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.install.posix.link_rule import Changer, LinkRule

PLACE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How directories are opened to reach what is in them; also those that can't be listed."""

_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_OPEN = 128
_MOST_LINKS = 40


NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
"""Errors that say that there is nothing at a path; others say that nobody knows."""


class PlaceChanged(OSError):
    """A directory that was found at a path is not there any more: it is gone, or something else has taken its place."""

    def __init__(self, real: bytes) -> None:
        super().__init__(errno.ESTALE, "it was replaced or removed meanwhile", real)


class Kind(Enum):
    """What stands at a path, every link followed that may be."""

    DIRECTORY = auto()
    ABSENT = auto()
    LINK = auto()
    """A link that is not followed, or leads to no directory."""
    OTHER = auto()


class Resolved(NamedTuple):
    """What was found at a path.

    Attributes:
        real: the path without links; of what is no directory, without links above it.
        kind: what it is.
        link: where the last component of the path is a link that was followed, the path of that, without links above it.
        why_not: of a LINK why it is not followed, as a clause; empty where it leads to no directory.
    """

    real: bytes
    kind: Kind
    link: bytes = b""
    why_not: str = ""

    @property
    def is_directory(self) -> bool:
        """Whether a directory is there."""
        return self.kind is Kind.DIRECTORY


class Places:
    """Directories by path. Close it in the end.

    Descriptors stand for the places only (O_PATH): good for everything that takes `dir_fd`, also where we may not list
    the directory. A bounded number of them is kept open: use each before the next call.

    Args:
        rule: which links are followed; None = none, which is for directories that are known by their real paths.
    """

    def __init__(self, rule: LinkRule | None = None) -> None:
        self._rule = rule
        root = Resolved(b"/", Kind.DIRECTORY)
        self._resolved: dict[bytes, Resolved] = {b"/": root, b"": root}
        self._open: OrderedDict[bytes, int] = OrderedDict()
        self._other_names: dict[bytes, bytes] = {}
        self._identities: dict[bytes, int] = {}
        self._inodes: dict[bytes, int] = {}
        self._writers: dict[bytes, frozenset[str]] = {}
        self._links_left = _MOST_LINKS

    def close(self) -> None:
        """Afterwards no descriptor is open."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def resolve(self, path: bytes) -> Resolved:
        """What was found at this absolute path, which has no `..` in it, when it was first asked for.

        Raises:
            OSError: that can't be told: a file server does not answer, a directory may not be searched.
        """
        return self.look(path)[0]

    def look(self, path: bytes) -> tuple[Resolved, os.stat_result | None]:
        """The same; and the status of what is there if it was looked at just now, and is no link.

        Raises:
            OSError: as `resolve`.
        """
        status = None
        missing, at = [], path
        while (known := self._resolved.get(at)) is None:
            missing.append(at)
            at = at.rpartition(b"/")[0]
        for at in reversed(missing):
            known, status = self._step(known, at.rpartition(b"/")[2])
            self._resolved[at] = known
        return known, status

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
        missing, at = [], real
        while at != b"/" and at not in self._open:
            missing.append(at)
            at = at.rpartition(b"/")[0] or b"/"
        if at not in self._open:
            self._keep(b"/", os.open(b"/", PLACE))
        for at in reversed(missing):
            self._keep(at, self._opened(at, PLACE))
        return self._open[real]

    def opened(self, real: bytes) -> int:
        """A new descriptor of a directory, to list it; it is the caller's to close.

        Raises:
            OSError: as `of`, and where we may not list it.
        """
        return os.open(b"/", _LIST) if real == b"/" else self._opened(real, _LIST)

    def status(self, real: bytes) -> os.stat_result:
        """Of a directory, as it is now.

        Raises:
            OSError: as `of`.
        """
        return os.fstat(self.of(real))

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

    def find(self, directory: bytes, name: bytes) -> os.stat_result | None:
        """Status of what has this name in a directory, a link or not, as it is now; None when nothing has.

        Raises:
            OSError: that can't be told, or the directory is not the one any more that was found. It names the whole path.
        """
        try:
            return os.stat(name, dir_fd=self.of(directory), follow_symlinks=False)
        except OSError as error:
            if error.errno in NOT_THERE:
                return None
            error.filename = directory.rstrip(b"/") + b"/" + name
            raise

    def is_made(self, real: bytes, status: os.stat_result) -> None:
        """We have just made this directory: no other one is taken for it."""
        self._identities[real] = _identity(status)

    def expect(self, real: bytes, inode: int) -> None:
        """A directory with another inode is not the one that this path stands for."""
        self._inodes[real] = inode

    def identity(self, real: bytes) -> int:
        """Tells this directory apart from all others that there are now, on any file system.

        Raises:
            OSError: as `of`.
        """
        if real not in self._identities:
            self._identities[real] = _identity(self.status(real))
        return self._identities[real]

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

    def changers(self, real: bytes, entry: os.stat_result) -> Iterator[Changer]:
        """Who besides root and the agent's user can put something else in the place of what lies in a directory.

        Args:
            real: the directory.
            entry: status of what lies in it.

        Raises:
            OSError: as `of`.
        """
        if self._rule is None:
            return
        while True:
            status = self.status(real)
            yield from self._rule.changers(real, self.of(real), status, entry)
            if real == b"/":
                return
            real, entry = real.rpartition(b"/")[0] or b"/", status

    def writers(self, real: bytes) -> frozenset[str]:
        """All besides root and the agent's user who can write to a directory, or to one that it lies in.

        Raises:
            OSError: as `of`.
        """
        known = self._writers.get(real)
        if known is None:
            found: set[str] = set()
            if self._rule is not None:
                found = {
                    changer.who for changer in self._rule.writers(real, self.of(real), self.status(real))
                }
            if real != b"/":
                found |= self.writers(real.rpartition(b"/")[0] or b"/")
            known = self._writers[real] = frozenset(found)
        return known

    def _keep(self, real: bytes, descriptor: int) -> None:
        self._open[real] = descriptor
        if len(self._open) > _MOST_OPEN:
            os.close(self._open.popitem(last=False)[1])

    def _opened(self, real: bytes, flags: int) -> int:
        above, _slash, name = real.rpartition(b"/")
        dir_fd = self.of(above or b"/")
        try:
            descriptor = os.open(self._other_names.get(real, name), flags, dir_fd=dir_fd)
        except OSError as error:
            if error.errno in NOT_THERE and real in self._identities:
                raise PlaceChanged(real) from error
            error.filename = real
            raise
        try:
            self._check(real, os.fstat(descriptor))
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _check(self, real: bytes, status: os.stat_result) -> None:
        """Afterwards it is known that this directory is the one that the path stands for, or from now on it is that."""
        known = self._identities.setdefault(real, _identity(status))
        if known != _identity(status) or self._inodes.get(real, status.st_ino) != status.st_ino:
            raise PlaceChanged(real)

    def _step(self, above: Resolved, name: bytes) -> tuple[Resolved, os.stat_result | None]:
        """What this name is in a directory that was found."""
        real = above.real.rstrip(b"/") + b"/" + name
        if not above.is_directory:
            return Resolved(real, Kind.ABSENT), None
        try:
            status = self.entry(above.real, name)
        except FileNotFoundError:
            return Resolved(real, Kind.ABSENT), None
        if stat.S_ISDIR(status.st_mode):
            self._check(real, status)
            return Resolved(real, Kind.DIRECTORY), status
        if stat.S_ISLNK(status.st_mode):
            return self._followed(above.real, real, status), None
        return Resolved(real, Kind.OTHER), status

    def _followed(self, directory: bytes, link: bytes, status: os.stat_result) -> Resolved:
        """What a link in a directory leads to."""
        if self._rule is None:
            return Resolved(link, Kind.LINK, why_not="links are not followed here")
        if self._links_left == 0:
            return Resolved(link, Kind.LINK, why_not="it leads from link to link without end")
        self._links_left -= 1
        try:
            end = self._end(directory, os.readlink(link.rpartition(b"/")[2], dir_fd=self.of(directory)))
        finally:
            self._links_left += 1
        if end.kind is Kind.LINK and end.why_not:
            return Resolved(link, Kind.LINK, why_not=end.why_not)
        if not end.is_directory:
            return Resolved(link, Kind.LINK)
        found = self.status(end.real)
        why_not = self._rule.why_not(link, status, found, self.changers(directory, status))
        if why_not:
            return Resolved(link, Kind.LINK, why_not=why_not)
        return Resolved(end.real, Kind.DIRECTORY, link=link)

    def _end(self, directory: bytes, target: bytes) -> Resolved:
        """What the target of a link in this directory is."""
        at = self._resolved[b"/"] if target.startswith(b"/") else Resolved(directory, Kind.DIRECTORY)
        for name in target.split(b"/"):
            if name in {b"", b"."}:
                continue
            if not at.is_directory:
                break
            if name == b"..":
                at = Resolved(at.real.rpartition(b"/")[0] or b"/", Kind.DIRECTORY)
            else:
                at = self.resolve(at.real.rstrip(b"/") + b"/" + name)
        return at


def _identity(status: os.stat_result) -> int:
    return status.st_dev << 64 | status.st_ino
