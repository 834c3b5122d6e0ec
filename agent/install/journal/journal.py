"""The undo journal: what an Install is about to do, on the disk before it does it.

New content is made under hidden names beside its destination, and changes names with what was
there. So whatever moment an Install is interrupted at, the names and inodes that exist tell how far
it had come, and the journal need not be written again for each step:

    install-journal 7 <phase> <token> <state of the group's records>
    y <directory>                   the first directory on each file system that there are changes on
    p <mount point>                 where that file system is mounted, if it may not be one day
    t <o if it is ours, or -> <inode> <born> <atime ns> <mtime ns> <mode> <uid> <gid> <access ACL, hex, or -> <default ACL> <path>
                                    a directory that was there, and how it was; hidden names are made in it
    k <inode> <born> <directory>    a directory that was there, and that something goes from in the end
    h <directory>                   hidden names have been made in it
    c <inode> <born> <directory>    a new directory; of those that lie in other new ones, the time is not told
    f <inode> <directory>           the files and links in a new directory: a line ` <inode> <name>` below for each
    n <number> <inode> <directory> <name>   will be created; nothing was there. The inode is that of the new one
    r <number> <inode> <old inode> <directory> <name>   will be replaced; and the inode of what was there
    m <inode> <atime ns> <mtime ns> <mode> <uid> <gid> <access ACL, hex, or -> <size> <new mtime ns> <directory> <name>
                                    a file that keeps its content, and how it was
    a <type> <user or -> <range or -> <path>        will get an SELinux rule, and had this one;
                                    - instead of the type when it had none, ? when it is not known
    x <directory> <name> <manifest fields, or ->    goes when the Install has succeeded
    D <path>                        a directory that goes then, if it is empty
    b <path>                        its SELinux rule goes then
    e <offset> <digest>             all that will change has been said: where that begins in the file, and its digest

Names are escaped as in the manifest. The time when an inode was made (`born`, in ns, 0 where it is not known) tells it
from another one that has got its number since. The hidden names are made of token and number. In the phase
`staging` only hidden names have been made, and the journal ends with the directories that were
there, and with the new ones that have hidden names. With the phase `switching` the rest is there, and everything new takes
its place; should the digest not fit, a loss of power has left only a part of it, before anything could.
"""

from __future__ import annotations

import contextlib
import os
from hashlib import blake2b
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from agent.errors import CommandFailure
from agent.files import sync_directory
from agent.install.journal.entries import Entry, decode, letter_of
from agent.install.posix.births import born_ns
from agent.listings import DIGEST_BYTES, content_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from agent.deployments.group_files import GroupFiles

E = TypeVar("E", bound=Entry)

_MAGIC = b"install-journal 7 "
_STAGING, _SWITCHING = b"staging  ", b"switching"
_END = b"e "  # what the last line begins with: then where the changes begin, and their digest
_LONGEST_END = 100
_NOT_WRITTEN = (
    b"\0"  # what a file has after a loss of power where the disk has got nothing; lines never have it
)
_CONTINUED = ord(" ")  # what each further line of an entry begins with


def write_journal(path: Path, token: bytes, records: bytes, lines: Iterable[bytes]) -> None:
    """Write a journal in the phase `staging`, and wait until it is on the disk. There must be none yet.

    Args:
        path: of the journal.
        token: what the hidden names have in common.
        records: from `state_of_records`.
        lines: what the journal begins with, `Touched`, `FirstOnDisk` and `MountPoint`.
    """
    with open(path, "xb") as stream:
        stream.write(_MAGIC + _STAGING + b" " + token + b" " + records + b"\n")
        stream.writelines(lines)
        stream.flush()
        os.fsync(stream.fileno())
    sync_directory(path.parent)


def complete_journal(path: Path, lines: Iterable[bytes]) -> None:
    """Append the changes, and mark the journal as `switching`; both are on the disk in the end.

    That takes one wait: should only a part of it get there, the digest in the last line does not fit, and the mark does not
    count.

    Args:
        path: of the journal.
        lines: from `encode`, or from batches.py.
    """
    with open(path, "r+b") as stream:
        begin = stream.seek(0, os.SEEK_END)
        digest = blake2b(digest_size=DIGEST_BYTES)
        for line in lines:
            stream.write(line)
            digest.update(line)
        stream.write(_END + b"%d %b\n" % (begin, digest.hexdigest().encode()))
        _mark(stream, _SWITCHING)


def note_in_journal(path: Path, lines: Iterable[bytes]) -> None:
    """Add lines in the phase `staging`. They need not survive the host: see `HiddenNames.discard`."""
    with open(path, "ab") as stream:
        stream.writelines(lines)


def mark_staging(path: Path) -> None:
    """Mark the journal as `staging` again, on the disk: nothing new has its place. Needs no space."""
    with open(path, "r+b") as stream:
        _mark(stream, _STAGING)


def _mark(stream: BinaryIO, phase: bytes) -> None:
    """Say that the journal is in this phase, and wait until all of it is on the disk."""
    stream.seek(len(_MAGIC))
    stream.write(phase)
    stream.flush()
    os.fsync(stream.fileno())


def _is_complete(stream: BinaryIO) -> bool:
    """Whether all that was appended with the last line is there."""
    stream.seek(-min(_LONGEST_END, stream.seek(0, os.SEEK_END)), os.SEEK_END)
    last = stream.read().rpartition(b"\n" + _END)[2]
    begin, _blank, digest = last.removesuffix(b"\n").partition(b" ")
    length = stream.tell() - len(_END + last) - int(begin) if begin.isdigit() else -1
    if not last.endswith(b"\n") or length < 0:
        return False
    stream.seek(int(begin))
    return content_digest(stream.read(length)) == digest


def mark_committed(path: Path, committed: Path) -> None:
    """Commit: from now on the rest of the Install is completed, not undone (I3)."""
    os.rename(path, committed)
    sync_directory(path.parent)


def state_of_records(files: GroupFiles) -> bytes:
    """Tells whether another agent has installed something in this group since: it would write these two anew.

    Raises:
        OSError: they can't be looked at.
    """
    return state_of(files.cleanup) + b"," + state_of(files.instructions)


def state_of(path: Path) -> bytes:
    """Size and time of a file, which survive a copy of the whole directory; `-` when it is not there."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return b"-"
    return b"%d:%d" % (status.st_size, status.st_mtime_ns)


class Journal:
    """A journal that an Install has left. A file that breaks off early counts as one with no entries.

    It breaks off only when the host died while it was written, before anything else was done; then
    entries of which only a part is there don't count, in the phase `staging`. It
    may be long, so it is read anew whenever it is asked for entries.

    Attributes:
        size: in bytes.
        begun_ns: when it was begun, in ns since the epoch; what was there before is not younger.
        is_whole: whether more than its beginning was written.
        is_switching: whether something may have taken its place.
        token: what the hidden names have in common.
        records: from `state_of_records`, as it was then.

    Raises:
        CommandFailure: `install-journal-unreadable`; asking for entries raises that, too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as stream:
            self.size = os.fstat(stream.fileno()).st_size
            self.begun_ns = born_ns(stream.fileno()) or os.fstat(stream.fileno()).st_mtime_ns
            head = stream.readline()
            self.is_switching = head.startswith(_MAGIC + _SWITCHING) and _is_complete(stream)
        self.is_whole = head.endswith(b"\n")
        if self.is_whole and not head.startswith(_MAGIC):
            message = (
                f"The journal {path} of an interrupted Install was written by another version of this agent. Start that"
                " version once, so that it puts the previous revision back; or look at what the journal names, and remove it."
            )
            raise CommandFailure("install-journal-unreadable", message)
        begin = len(_MAGIC) + len(_SWITCHING) + 1
        self.token, _blank, self.records = head[begin:].rstrip(b"\n").partition(b" ")

    def entries(self, *kinds: type[E]) -> Iterator[E]:
        """The entries of these kinds, in the order of the Install; not for `MadeFiles`, which has several lines."""
        letters = b"".join([letter_of(kind) for kind in kinds])
        with self._opened() as stream:
            stream.readline()
            for line in stream:
                if line[0] in letters and line.endswith(b"\n") and _NOT_WRITTEN not in line:
                    yield cast("E", decode(line[:-1]))

    def entries_newest_first(self, *kinds: type[E]) -> Iterator[E]:
        """The entries of these kinds, the last one of the Install first."""
        letters = b"".join([letter_of(kind) for kind in kinds])
        with self._opened() as stream:
            content = stream.read()
        end_of_entry = end = content.rfind(b"\n")
        while (start := content.rfind(b"\n", 0, end) + 1) > 0:
            end = start - 1
            if content[start] == _CONTINUED:
                continue
            if content[start] in letters and content.find(_NOT_WRITTEN, start, end_of_entry) < 0:
                yield cast("E", decode(content[start:end_of_entry]))
            end_of_entry = end

    @contextlib.contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        try:
            with open(self.path, "rb") as stream:
                yield stream
        except OSError as error:
            message = (
                f"The journal {self.path} of an interrupted Install can't be read: {error.strerror}. Make it readable:"
                " the next Install, or the next start of the agent, then puts the previous revision back."
            )
            raise CommandFailure("install-journal-unreadable", message) from error
