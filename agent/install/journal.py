"""The undo journal: all that an Install is about to do, on the disk before it does any of it.

New content is made under hidden names beside its destination, then renamed into place, and what
was there is kept under another hidden name. So whatever moment an Install is interrupted at, the
names that exist tell how far it had come, and the journal need not be written again for each step:

    install-journal 1 <phase> <token>
    t <o if it is ours, or -> <atime ns> <mtime ns> <mode> <uid> <gid> <access ACL, hex, or -> <default ACL> <path>
                                    a directory that was there, and how it was
    n <number> <directory> <name>   will be created; nothing was there
    r <number> <directory> <name>   will be replaced
    a <path>                        will get an SELinux rule
    x <directory> <name> <manifest fields, or ->    goes when the Install has succeeded
    D <path>                        the same, a directory, if it is empty then
    b <path>                        the same, an SELinux rule

Names are escaped as in the manifest. The hidden names are made of token and number. Nothing has
its place yet in the phase `staging`; in the phase `switching`, what lacks its hidden new name has.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from agent.errors import CommandFailure
from agent.files import sync_directory
from agent.install.records import decode_record, encode_record, escape, unescape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from agent.install.records import Record

_MAGIC = b"install-journal 1 "
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
    """Something that is to get a new file, link or directory; `replaces` when something is there."""

    number: int
    directory: bytes
    name: bytes
    replaces: bool


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


Entry: TypeAlias = Touched | Change | Label | Leftover | LeftoverDirectory | LeftoverLabel


def new_name(token: bytes, number: int) -> bytes:
    """Hidden name of what is to have its place soon."""
    return b".install-%b-%d.new" % (token, number)


def old_name(token: bytes, number: int) -> bytes:
    """Hidden name of what had that place before."""
    return b".install-%b-%d.old" % (token, number)


def write_journal(path: Path, token: bytes, entries: Iterable[Entry]) -> None:
    """Afterwards the journal is on the disk, in the phase `staging`. There must be none yet."""
    with open(path, "xb") as stream:
        stream.write(_MAGIC + _STAGING + b" " + token + b"\n")
        stream.writelines(_encoded(entry) + b"\n" for entry in entries)
        stream.flush()
        os.fsync(stream.fileno())
    sync_directory(path.parent)


def mark_switching(path: Path) -> None:
    """Afterwards the journal on the disk says that new files take their places. Needs no space."""
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

    def entries(self, *, newest_first: bool = False) -> Iterator[Entry]:
        """All entries, in the order of the Install or the other way round."""
        lines = self._content.split(b"\n")[1:-1]
        for line in reversed(lines) if newest_first else lines:
            yield _decoded(line)


def _encoded(entry: Entry) -> bytes:
    match entry:
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
            kind = b"r" if entry.replaces else b"n"
            return b"%b %d %b %b" % (kind, entry.number, escape(entry.directory), escape(entry.name))
        case Label():
            return b"a " + escape(entry.path)
        case Leftover():
            fields = b"-" if entry.record is None else encode_record(entry.record)
            return b"x " + escape(entry.directory) + b" " + escape(entry.name) + b" " + fields
        case LeftoverDirectory():
            return b"D " + escape(entry.path)
        case LeftoverLabel():
            return b"b " + escape(entry.path)


def _decoded(line: bytes) -> Entry:
    kind, rest = line[:1], line[2:]
    if kind == b"t":
        ours, atime, mtime, mode, uid, gid, access, default, path = rest.split(b" ")
        times = (int(atime), int(mtime))
        numbers = (int(mode), int(uid), int(gid))
        return Touched(unescape(path), *times, *numbers, _unhex(access), _unhex(default), ours == b"o")
    if kind in {b"n", b"r"}:
        number, directory, name = rest.split(b" ")
        return Change(int(number), unescape(directory), unescape(name), kind == b"r")
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
