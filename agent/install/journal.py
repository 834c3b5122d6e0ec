"""The undo journal: what an Install is about to do, on the disk before it does it.

New content is made under hidden names beside its destination, and changes names with what was
there. So whatever moment an Install is interrupted at, the names and inodes that exist tell how far
it had come, and the journal need not be written again for each step:

    install-journal 2 <phase> <token>
    t <o if it is ours, or -> <atime ns> <mtime ns> <mode> <uid> <gid> <access ACL, hex, or -> <default ACL> <path>
                                    a directory that was there, and how it was; hidden names are made in it
    h <directory>                   hidden names have been made in it
    n <number> <directory> <name>   will be created; nothing was there
    r <number> <inode> <directory> <name>   will be replaced; the inode is that of what was there
    m <inode> <atime ns> <mtime ns> <mode> <uid> <gid> <access ACL, hex, or -> <directory> <name>
                                    a file that keeps its content, and how it was
    a <path>                        will get an SELinux rule
    x <directory> <name> <manifest fields, or ->    goes when the Install has succeeded
    D <path>                        the same, a directory, if it is empty then
    b <path>                        the same, an SELinux rule

Names are escaped as in the manifest. The hidden names are made of token and number. In the phase
`staging` only hidden names have been made, and the journal ends with the directories that were
there. Before the phase `switching`, the rest is added, and then everything new takes its place.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from agent.errors import CommandFailure
from agent.files import sync_directory
from agent.install.records import decode_record, encode_record
from agent.listings import escape, unescape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from agent.install.records import Record
    from agent.install.staging import NewFiles

_MAGIC = b"install-journal 2 "
_STAGING, _SWITCHING = b"staging  ", b"switching"


class Touched(NamedTuple):
    """A directory that was there before, and how it was; of its ACLs only when it is ours."""

    path: bytes
    atime_ns: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int
    access_acl: bytes | None
    default_acl: bytes | None
    is_ours: bool


class Change(NamedTuple):
    """Something that is to get a new file, link or directory; `inode` of what is there, 0 when nothing is."""

    number: int
    inode: int
    directory: bytes
    name: bytes


class Adjustment(NamedTuple):
    """A file that keeps its content, and how it was before its attributes were changed."""

    inode: int
    atime_ns: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int
    access_acl: bytes | None
    directory: bytes
    name: bytes


class Hiding(NamedTuple):
    """A directory in which hidden names have been made."""

    path: bytes


class Label(NamedTuple):
    """A path that gets an SELinux rule."""

    path: bytes


class Leftover(NamedTuple):
    """A file or link of the previous revision that goes."""

    directory: bytes
    name: bytes
    record: Record | None


class LeftoverDirectory(NamedTuple):
    """A directory of an earlier revision that goes, if it is empty."""

    path: bytes


class LeftoverLabel(NamedTuple):
    """A path whose SELinux rule goes."""

    path: bytes


Entry: TypeAlias = (
    Touched | Hiding | Change | Adjustment | Label | Leftover | LeftoverDirectory | LeftoverLabel
)


def hidden_prefix(token: bytes) -> bytes:
    """What all hidden names of an Install begin with."""
    return b".install-%b-" % token


def new_name(token: bytes, number: int) -> bytes:
    """Hidden name of what is to have its place soon; afterwards, of what had it before."""
    return b".install-%b-%d.new" % (token, number)


def old_name(token: bytes, number: int) -> bytes:
    """Hidden name of what had that place before, where names can't be exchanged."""
    return b".install-%b-%d.old" % (token, number)


def write_journal(path: Path, token: bytes, entries: Iterable[Touched]) -> None:
    """Afterwards the journal is on the disk, in the phase `staging`. There must be none yet."""
    with open(path, "xb") as stream:
        stream.write(_MAGIC + _STAGING + b" " + token + b"\n")
        stream.writelines(map(encode, entries))
        stream.flush()
        os.fsync(stream.fileno())
    sync_directory(path.parent)


def complete_journal(path: Path, lines: Iterable[bytes]) -> None:
    """Afterwards the journal on the disk says all, and is in the phase `switching`.

    Args:
        path: of the journal.
        lines: from `encode` and `encode_changes`.
    """
    with open(path, "ab") as stream:
        stream.writelines(lines)
        stream.flush()
        os.fsync(stream.fileno())
    _mark(path, _SWITCHING)


def mark_staging(path: Path) -> None:
    """Afterwards the journal on the disk says that nothing new has its place. Needs no space."""
    _mark(path, _STAGING)


def _mark(path: Path, phase: bytes) -> None:
    with open(path, "r+b") as stream:
        stream.seek(len(_MAGIC))
        stream.write(phase)
        stream.flush()
        os.fsync(stream.fileno())


def mark_committed(path: Path, committed: Path) -> None:
    """Afterwards there is no way back: from now on the rest of the Install is completed, not undone."""
    os.rename(path, committed)
    sync_directory(path.parent)


class Journal:
    """A journal that an Install has left. A file that breaks off early counts as one with no entries.

    It breaks off only when the host died while it was written, before anything else was done.

    Raises:
        CommandFailure: `install-journal-unreadable`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open(path, "rb") as stream:
                self._content = stream.read()
        except OSError as error:
            message = (
                f"The journal {path} of an interrupted Install can't be read: {error.strerror}. Make it readable:"
                " the next Install, or the next start of the agent, then puts the previous revision back."
            )
            raise CommandFailure("install-journal-unreadable", message) from error
        head = self._content.partition(b"\n")[0]
        self.is_switching = head.startswith(_MAGIC + _SWITCHING)
        self.token = head[len(_MAGIC) + len(_SWITCHING) + 1 :]

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self._content)

    def entries(self, kinds: bytes) -> Iterator[Entry]:
        """The entries of these kinds, which are letters, in the order of the Install."""
        for line in self._lines():
            if line[0] in kinds:
                yield _decoded(line)

    def entries_newest_first(self, kinds: bytes) -> Iterator[Entry]:
        """The same, the other way round."""
        end = self._content.rfind(b"\n")
        while (start := self._content.rfind(b"\n", 0, end) + 1) > 0:
            if self._content[start] in kinds:
                yield _decoded(self._content[start:end])
            end = start - 1

    def _lines(self) -> Iterator[bytes]:
        start = self._content.find(b"\n") + 1
        while (end := self._content.find(b"\n", start)) >= 0:
            yield self._content[start:end]
            start = end + 1


def encode_changes(number: int, directory: bytes, names: list[bytes], new: NewFiles) -> Iterator[bytes]:
    """Lines of all `Change`s of one directory: there can be very many."""
    if not len(new):
        return
    real = escape(directory)
    yield b"h " + real + b"\n"
    for position, inode, _is_link, _digest, _has_acl in new:
        name = escape(names[position])
        if inode:
            yield b"r %d %d %b %b\n" % (number + position, inode, real, name)
        else:
            yield b"n %d %b %b\n" % (number + position, real, name)


def encode(entry: Entry) -> bytes:
    """The line of one entry."""
    return _encoded(entry) + b"\n"


def _encoded(entry: Entry) -> bytes:  # noqa: PLR0911 - one for each kind
    match entry:
        case Hiding():
            return b"h " + escape(entry.path)
        case Touched():
            acls = _hex(entry.access_acl) + b" " + _hex(entry.default_acl)
            ours = b"o" if entry.is_ours else b"-"
            numbers = b"%b %d %d %d %d %d" % (
                ours,
                entry.atime_ns,
                entry.mtime_ns,
                entry.mode,
                entry.uid,
                entry.gid,
            )
            return b"t " + numbers + b" " + acls + b" " + escape(entry.path)
        case Change():
            place = escape(entry.directory) + b" " + escape(entry.name)
            if entry.inode:
                return b"r %d %d %b" % (entry.number, entry.inode, place)
            return b"n %d %b" % (entry.number, place)
        case Adjustment():
            place = escape(entry.directory) + b" " + escape(entry.name)
            return b"m %d %d %d %d %d %d %b %b" % (*entry[:6], _hex(entry.access_acl), place)
        case Label():
            return b"a " + escape(entry.path)
        case Leftover():
            fields = b"-" if entry.record is None else encode_record(entry.record)
            return b"x " + escape(entry.directory) + b" " + escape(entry.name) + b" " + fields
        case LeftoverDirectory():
            return b"D " + escape(entry.path)
        case LeftoverLabel():
            return b"b " + escape(entry.path)


def _decoded(line: bytes) -> Entry:  # noqa: PLR0911 - one for each kind
    kind, rest = line[:1], line[2:]
    if kind == b"t":
        ours, atime, mtime, mode, uid, gid, access, default, path = rest.split(b" ")
        times = (int(atime), int(mtime))
        numbers = (int(mode), int(uid), int(gid))
        return Touched(unescape(path), *times, *numbers, _unhex(access), _unhex(default), ours == b"o")
    if kind == b"h":
        return Hiding(unescape(rest))
    if kind == b"n":
        number, directory, name = rest.split(b" ")
        return Change(int(number), 0, unescape(directory), unescape(name))
    if kind == b"r":
        number, inode, directory, name = rest.split(b" ")
        return Change(int(number), int(inode), unescape(directory), unescape(name))
    if kind == b"m":
        *given, acl, directory, name = rest.split(b" ")
        facts = [int(number) for number in given]
        place = (unescape(directory), unescape(name))
        return Adjustment(facts[0], facts[1], facts[2], facts[3], facts[4], facts[5], _unhex(acl), *place)
    if kind == b"x":
        directory, name, fields = rest.split(b" ", 2)
        return Leftover(
            unescape(directory), unescape(name), None if fields == b"-" else decode_record(fields)
        )
    if kind == b"D":
        return LeftoverDirectory(unescape(rest))
    if kind == b"b":
        return LeftoverLabel(unescape(rest))
    return Label(unescape(rest))


def _hex(value: bytes | None) -> bytes:
    return b"-" if value is None else value.hex().encode()


def _unhex(value: bytes) -> bytes | None:
    return None if value == b"-" else bytes.fromhex(value.decode())
