"""Places: the directories of the host that an Install is about, each resolved once.

Every path is walked from `/` by descriptors, one component after the other, and no link is followed that `LinkRule`
does not let through. What was found at a path stays the answer for as long as the Install lasts, and the directory
that was found there stays *the* directory: whoever opens it later gets that one, by device and inode, or an error.
So it does not matter when somebody else moves directories or replaces them by links, or how often (I4).
"""

from __future__ import annotations

import os
import stat
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from agent.install.posix.open_directories import FEW_OPEN, OpenDirectories

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.install.posix.link_rule import Changer, LinkRule

_MOST_LINKS = 40


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


class Places(OpenDirectories):
    """What paths lead to, and those directories. Close it in the end.

    Args:
        rule: which links are followed; None = none, which is for directories that are known by their real paths.
        most_open: as of `OpenDirectories`.
    """

    def __init__(self, rule: LinkRule | None = None, most_open: int = FEW_OPEN) -> None:
        super().__init__(most_open)
        self._rule = rule
        root = Resolved(b"/", Kind.DIRECTORY)
        self._resolved: dict[bytes, Resolved] = {b"/": root, b"": root}
        self._writers: dict[bytes, frozenset[str]] = {}
        self._links_left = _MOST_LINKS

    def resolve(self, path: bytes) -> Resolved:
        """What was found at this absolute path, which has no `..` in it, when it was first asked for.

        Raises:
            OSError: that can't be told: a file server does not answer, a directory may not be searched.
        """
        return self.look(path)[0]

    def look(self, path: bytes) -> tuple[Resolved, os.stat_result | None]:
        """What `resolve` answers; and the status of what is there if it was looked at just now, and is no link.

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

    def brought(self, real: bytes, *, is_above_known: bool) -> str:
        """Why a directory may have been put where it is by somebody who may not write to it, as a clause; empty if not.

        Args:
            real: its path.
            is_above_known: the one that it lies in is the one that was there before, so that whoever moves that one changes
                nothing of what is in it.

        Raises:
            OSError: as `of`.
        """
        if self._rule is None or real == b"/":
            return ""
        above, status = real.rpartition(b"/")[0] or b"/", self.status(real)
        changers = self.changers(above, status)
        if is_above_known:
            changers = iter(self._rule.changers(above, self.of(above), self.status(above), status))
        return self._rule.why_brought(real, status, changers)

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
