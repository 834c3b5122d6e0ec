"""What has become of planned files while they are compared and staged. There may be 100,000."""

from __future__ import annotations

import stat
import struct
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.install.journal.entries import Adjustment
from agent.listings import DIGEST_BYTES

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator


_DIGEST_LENGTH = 2 * DIGEST_BYTES  # in hexadecimal


def stage_broken_hard_links(all_findings: list[Findings]) -> None:
    """Stage all names of a file of the archive again, unless all are there, and are one file.

    Copies would fill the disk; and where there should be copies, a write to one would change the other.
    """
    groups: dict[int, list[tuple[Findings, KeptHardLink]]] = {}
    for findings in all_findings:
        for name in findings.kept_hard_links:
            groups.setdefault(name.source, []).append((findings, name))
    for group in groups.values():
        if len(group) == group[0][1].names and len({name.inode for _findings, name in group}) == 1:
            continue
        for findings, name in group:
            findings.lines[name.position] = b""
            findings.unchanged -= 1
            findings.note_pending(name.position, name.inode)


class NewFile(NamedTuple):
    """A file or link that waits under its hidden name.

    Attributes:
        position: in the planned files.
        inode: its own.
        old_inode: of what it replaces; 0 = nothing is there.
        digest: of its content, empty when not known; the target of a link.
    """

    position: int
    inode: int
    old_inode: int
    is_link: bool
    digest: bytes
    has_acl: bool


_ROW = struct.Struct("=IQQB")
_IS_LINK, _HAS_ACL = 1, 2


class NewFiles:
    """Many of them, as rows of numbers: a tuple for each of 100,000 takes three times the memory.

    Args:
        rows: position, inode, old inode, and what kind of file it is, of each.
        digests: of each.
    """

    def __init__(self, rows: bytearray | None = None, digests: list[bytes] | None = None) -> None:
        self.rows = bytearray() if rows is None else rows
        self.digests: list[bytes] = [] if digests is None else digests

    def __len__(self) -> int:
        return len(self.digests)

    def __iter__(self) -> Iterator[NewFile]:
        for digest, row in zip(self.digests, _ROW.iter_unpack(self.rows), strict=True):
            position, inode, old_inode, kind = row
            yield NewFile(position, inode, old_inode, bool(kind & _IS_LINK), digest, bool(kind & _HAS_ACL))

    def numbers(self) -> Iterator[tuple[int, int, int]]:
        """Position, inode and old inode of each; it takes half the time."""
        return ((position, inode, old_inode) for position, inode, old_inode, _ in _ROW.iter_unpack(self.rows))

    def append(
        self, position: int, inode: int, old_inode: int, digest: bytes, *, is_link: bool, has_acl: bool
    ) -> None:
        """Add one at the end; the arguments are those of `NewFile`."""
        self.rows += _ROW.pack(position, inode, old_inode, is_link * _IS_LINK | has_acl * _HAS_ACL)
        self.digests.append(digest)


class Adjusted(NamedTuple):
    """A file that has the right content already, but not the right attributes.

    Attributes:
        position: in the planned files.
        digest: of its content; empty when not known.
        ctime_ns: as it is now; with what `was` tells, it shows whether it has been written since.
        was: how it is now.
    """

    position: int
    digest: bytes
    ctime_ns: int
    was: Adjustment

    def is_still(self, status: os.stat_result) -> bool:
        """Whether this is the status of that very file, and nobody has changed it since."""
        return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns) == (
            self.was.inode,
            self.was.size,
            self.was.mtime_ns,
            self.ctime_ns,
        )


class AdjustedFiles:
    """Many of them in one directory, column by column, as above."""

    def __init__(self, directory: bytes, names: list[bytes]) -> None:
        self._directory = directory
        self._names = names
        self._positions = array("I")
        self._times = array("q")
        self._numbers = array("Q")
        self._acls: dict[int, bytes] = {}
        self._digests = bytearray()

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[Adjusted]:
        for number, position in enumerate(self._positions):
            inode, mode, uid, gid, size = self._numbers[5 * number : 5 * number + 5]
            atime_ns, mtime_ns, ctime_ns, new_ns = self._times[4 * number : 4 * number + 4]
            owner, acl = (mode, uid, gid), self._acls.get(position)
            name = self._names[position]
            was = Adjustment(inode, atime_ns, mtime_ns, *owner, acl, size, new_ns, self._directory, name)
            digest = bytes(self._digests[_DIGEST_LENGTH * number : _DIGEST_LENGTH * (number + 1)]).rstrip(
                b" "
            )
            yield Adjusted(position, digest, ctime_ns, was)

    def append(
        self, position: int, there: os.stat_result, acl: bytes | None, digest: bytes, *, new_mtime_ns: int
    ) -> None:
        """Add one at the end, of which this is the status and the ACL, and the time that it is to have."""
        self._positions.append(position)
        self._times.extend((there.st_atime_ns, there.st_mtime_ns, there.st_ctime_ns, new_mtime_ns))
        mode = stat.S_IMODE(there.st_mode)
        self._numbers.extend((there.st_ino, mode, there.st_uid, there.st_gid, there.st_size))
        if acl is not None:
            self._acls[position] = acl
        self._digests += digest.ljust(_DIGEST_LENGTH)


_DONE, _NOTHING_THERE = 0, 2**64 - 1


class PendingNames:
    """Names that have to be staged: positions, and the inodes of what they replace, 0 where nothing is.

    Args:
        numbers: of each planned name the inode, or 0 where there is nothing to do.
    """

    def __init__(self, numbers: array[int]) -> None:
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers) - self.numbers.count(_DONE)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for position, number in enumerate(self.numbers):
            if number != _DONE:
                yield position, 0 if number == _NOTHING_THERE else number

    def add(self, position: int, inode: int) -> None:
        """Note one, and what is there."""
        self.numbers[position] = inode or _NOTHING_THERE


class KeptHardLink(NamedTuple):
    """One of several names of a file of the archive, at which that file is there already.

    Attributes:
        position: in the planned files.
        source: inode in the archive.
        names: how many names the file has there.
        inode: of what is there.
    """

    position: int
    source: int
    names: int
    inode: int


@dataclass(slots=True)
class Findings:
    """What has become of planned files.

    There is one for each directory, and it goes from one process to another, so most of it is made when it is needed.

    Attributes:
        lines: for each name the fields of its manifest line; empty while it waits for the switch.
        pending: names that are not there yet as they are to be; None = all.
        trusts_index: some names are pending only because the archive's index says that their contents differ; those files
            may have been changed since.
        new: files that wait under hidden names.
        adjusted: files that wait for other attributes.
        overwritten: positions of files of ours that are replaced although somebody has changed them.
        hard_links: positions of names that are to be staged, and are one of several of their files in the archive.
        kept_hard_links: such names that are not to be staged, since the right content is there.
        created, replaced, unchanged: numbers of files and links.
        copied_bytes: content of the files that were written.
    """

    lines: list[bytes]
    pending: PendingNames | tuple[()] | None = None
    new: NewFiles | tuple[NewFile, ...] = ()
    adjusted: AdjustedFiles | tuple[Adjusted, ...] = ()
    overwritten: list[int] = field(default_factory=list)
    hard_links: list[int] = field(default_factory=list)
    kept_hard_links: list[KeptHardLink] = field(default_factory=list)
    created: int = 0
    replaced: int = 0
    unchanged: int = 0
    copied_bytes: int = 0
    trusts_index: bool = False

    def note_pending(self, position: int, inode: int) -> None:
        """This name is to be staged, and replaces that."""
        if not isinstance(self.pending, PendingNames):
            self.pending = PendingNames(array("Q", bytes(8 * len(self.lines))))
        self.pending.add(position, inode)

    def note_new(
        self, position: int, inode: int, old_inode: int, digest: bytes, *, is_link: bool, has_acl: bool
    ) -> None:
        """A file waits under its hidden name; the arguments are those of `NewFile`."""
        if not isinstance(self.new, NewFiles):
            self.new = NewFiles()
        self.new.append(position, inode, old_inode, digest, is_link=is_link, has_acl=has_acl)

    def counts(self) -> tuple[int, int, int, int]:
        """Those that `count` takes."""
        return self.created, self.replaced, self.unchanged, self.copied_bytes

    def count(self, created: int, replaced: int, unchanged: int, copied_bytes: int) -> None:
        """So many there have been."""
        self.created, self.replaced = created, replaced
        self.unchanged, self.copied_bytes = unchanged, copied_bytes

    def __getstate__(self) -> tuple[object, ...]:
        """Plain values, and few: the usual way takes ten times as long."""
        new = (self.new.rows, self.new.digests) if isinstance(self.new, NewFiles) else None
        pending = self.pending.numbers if isinstance(self.pending, PendingNames) else self.pending
        lists = (self.overwritten, self.hard_links, self.kept_hard_links)
        others = (self.adjusted, lists) if self.adjusted or any(lists) else None
        return (self.lines, new, pending, self.counts(), self.trusts_index, others)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.lines, new, pending, counts, self.trusts_index, others = state
        self.new = () if new is None else NewFiles(*new)
        self.pending = PendingNames(pending) if isinstance(pending, array) else pending
        self.count(*counts)
        self.adjusted, lists = others or ((), ([], [], []))
        self.overwritten, self.hard_links, self.kept_hard_links = lists
