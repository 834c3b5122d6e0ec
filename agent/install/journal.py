"""The undo journal: what an Install is about to do, on the disk before it does it.

New content is made under hidden names beside its destination, and changes names with what was
there. So whatever moment an Install is interrupted at, the names and inodes that exist tell how far
it had come, and the journal need not be written again for each step:

    install-journal 3 <phase> <token> <state of the group's records>
    p <mount point>                 a file system that there are changes on
    t <o if it is ours, or -> <atime ns> <mtime ns> <mode> <uid> <gid> <access ACL, hex, or -> <default ACL> <path>
                                    a directory that was there, and how it was; hidden names are made in it
    h <directory>                   hidden names have been made in it
    c <inode> <directory>           a new directory
    f <inode> <directory>           the same again, with ` <inode> <name>` below for files and links in it
    n <number> <inode> <directory> <name>   will be created; nothing was there. The inode is that of the new one
    r <number> <inode> <old inode> <directory> <name>   will be replaced; and the inode of what was there
    m <inode> <atime ns> <mtime ns> <mode> <uid> <gid> <access ACL, hex, or -> <directory> <name>
                                    a file that keeps its content, and how it was
    a <type> <user or -> <range or -> <path>        will get an SELinux rule, and had this one;
                                    - instead of the type when it had none, ? when it is not known
    x <directory> <name> <manifest fields, or ->    goes when the Install has succeeded
    D <path>                        the same, a directory, if it is empty then
    b <path>                        the same, an SELinux rule

Names are escaped as in the manifest. The hidden names are made of token and number. In the phase
`staging` only hidden names have been made, and the journal ends with the directories that were
there. Before the phase `switching`, the rest is added, and then everything new takes its place.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, TypeAlias

from agent.appspec import SelinuxContext
from agent.errors import CommandFailure
from agent.files import sync_directory
from agent.install.records import decode_record, encode_record
from agent.listings import escape, unescape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from agent.deployments.group_files import GroupFiles
    from agent.install.records import Record
    from agent.install.staging import NewFiles

_MAGIC = b"install-journal 3 "
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


class MountPoint(NamedTuple):
    """A file system that there are changes on."""

    path: bytes


class Change(NamedTuple):
    """Something that is to get a new file, link or directory.

    Attributes:
        inode: of the new one.
        old_inode: of what is there, 0 when nothing is.
    """

    number: int
    inode: int
    old_inode: int
    directory: bytes
    name: bytes


class NewDirectory(NamedTuple):
    """A new directory."""

    inode: int
    path: bytes


class MadeFiles(NamedTuple):
    """Files and links that were made in a new directory, each with its inode."""

    inode: int
    path: bytes
    inodes: dict[bytes, int]


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
    """A path that gets an SELinux rule.

    Attributes:
        had_rule: whether an earlier Install has added one.
        was: that one, None when it is not known.
    """

    path: bytes
    had_rule: bool
    was: SelinuxContext | None


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
    MountPoint
    | Touched
    | Hiding
    | NewDirectory
    | MadeFiles
    | Change
    | Adjustment
    | Label
    | Leftover
    | LeftoverDirectory
    | LeftoverLabel
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


def write_journal(path: Path, token: bytes, records: bytes, entries: Iterable[Touched | MountPoint]) -> None:
    """Afterwards the journal is on the disk, in the phase `staging`. There must be none yet.

    Args:
        path: of the journal.
        token: what the hidden names have in common.
        records: from `state_of_records`.
        entries: what the journal begins with.
    """
    with open(path, "xb") as stream:
        stream.write(_MAGIC + _STAGING + b" " + token + b" " + records + b"\n")
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

    It breaks off only when the host died while it was written, before anything else was done. It
    may be long, so it is read when it is asked for something, which raises the same.

    Attributes:
        size: in bytes.
        is_whole: whether more than its beginning was written.
        is_switching: whether something may have taken its place.
        token: what the hidden names have in common.
        records: from `state_of_records`, as it was then.

    Raises:
        CommandFailure: `install-journal-unreadable`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as stream:
            self.size = os.fstat(stream.fileno()).st_size
            head = stream.readline()
        self.is_whole = head.endswith(b"\n")
        self.is_switching = head.startswith(_MAGIC + _SWITCHING)
        begin = len(_MAGIC) + len(_SWITCHING) + 1
        self.token, _blank, self.records = head[begin:].rstrip(b"\n").partition(b" ")

    def entries(self, kinds: bytes) -> Iterator[Entry]:
        """The entries of these kinds, which are letters, in the order of the Install; not for `f`."""
        with self._opened() as stream:
            stream.readline()
            for line in stream:
                if line[0] in kinds and line.endswith(b"\n"):
                    yield _decoded(line[:-1])

    def entries_newest_first(self, kinds: bytes) -> Iterator[Entry]:
        """The same, the other way round."""
        with self._opened() as stream:
            content = stream.read()
        end = content.rfind(b"\n")
        inner: list[bytes] = []
        while (start := content.rfind(b"\n", 0, end) + 1) > 0:
            line = content[start:end]
            if line.startswith(b" "):
                inner.append(line)
            else:
                if line[0] in kinds:
                    yield _decoded(line, inner)
                inner = []
            end = start - 1

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


def encode_changes(number: int, directory: bytes, names: list[bytes], new: NewFiles) -> Iterator[bytes]:
    """Lines of all `Change`s of one directory: there can be very many."""
    if not len(new):
        return
    real = escape(directory)
    yield b"h " + real + b"\n"
    for position, inode, old_inode, _is_link, _digest, _has_acl in new:
        name = escape(names[position])
        if old_inode:
            yield b"r %d %d %d %b %b\n" % (number + position, inode, old_inode, real, name)
        else:
            yield b"n %d %d %b %b\n" % (number + position, inode, real, name)


def encode_new_files(names: list[bytes], lines: list[bytes]) -> bytes:
    """The lines of what was made in a new directory, below its own: there can be very much.

    Args:
        names: of the files and links in it.
        lines: the fields of their manifest lines.
    """
    return b"".join(
        [
            b" %b %b\n" % (fields.split(b" ", 2)[1], escape(name))
            for fields, name in zip(lines, names, strict=True)
        ]
    )


def encode(entry: Entry) -> bytes:
    """The line of one entry."""
    return _encoded(entry) + b"\n"


def _encoded(entry: Entry) -> bytes:  # noqa: PLR0911, C901 - one for each kind
    match entry:
        case MountPoint():
            return b"p " + escape(entry.path)
        case Hiding():
            return b"h " + escape(entry.path)
        case NewDirectory():
            return b"c %d %b" % (entry.inode, escape(entry.path))
        case MadeFiles():
            inner = [b"\n %d %b" % (inode, escape(name)) for name, inode in entry.inodes.items()]
            return b"f %d %b%b" % (entry.inode, escape(entry.path), b"".join(inner))
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
            if entry.old_inode:
                return b"r %d %d %d %b" % (entry.number, entry.inode, entry.old_inode, place)
            return b"n %d %d %b" % (entry.number, entry.inode, place)
        case Adjustment():
            place = escape(entry.directory) + b" " + escape(entry.name)
            return b"m %d %d %d %d %d %d %b %b" % (*entry[:6], _hex(entry.access_acl), place)
        case Label():
            return b"a " + _encoded_rule(entry) + b" " + escape(entry.path)
        case Leftover():
            fields = b"-" if entry.record is None else encode_record(entry.record)
            return b"x " + escape(entry.directory) + b" " + escape(entry.name) + b" " + fields
        case LeftoverDirectory():
            return b"D " + escape(entry.path)
        case LeftoverLabel():
            return b"b " + escape(entry.path)


def _decoded(line: bytes, inner: Iterable[bytes] = ()) -> Entry:  # noqa: PLR0911, C901 - one for each kind
    kind, rest = line[:1], line[2:]
    if kind == b"p":
        return MountPoint(unescape(rest))
    if kind == b"c":
        number, path = rest.split(b" ")
        return NewDirectory(int(number), unescape(path))
    if kind == b"f":
        number, path = rest.split(b" ")
        found = (item.split(b" ") for item in inner)
        inodes = {unescape(name): int(inode) for _blank, inode, name in found}
        return MadeFiles(int(number), unescape(path), inodes)
    if kind == b"t":
        ours, atime, mtime, mode, uid, gid, access, default, path = rest.split(b" ")
        times = (int(atime), int(mtime))
        numbers = (int(mode), int(uid), int(gid))
        return Touched(unescape(path), *times, *numbers, _unhex(access), _unhex(default), ours == b"o")
    if kind == b"h":
        return Hiding(unescape(rest))
    if kind == b"n":
        number, inode, directory, name = rest.split(b" ")
        return Change(int(number), int(inode), 0, unescape(directory), unescape(name))
    if kind == b"r":
        number, inode, old, directory, name = rest.split(b" ")
        return Change(int(number), int(inode), int(old), unescape(directory), unescape(name))
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
    return _decoded_label(rest)


def _encoded_rule(label: Label) -> bytes:
    if not label.had_rule or label.was is None:
        return (b"?" if label.had_rule else b"-") + b" - -"
    return " ".join((label.was.type, label.was.user or "-", label.was.range or "-")).encode()


def _decoded_label(rest: bytes) -> Label:
    kind, user, level, path = rest.split(b" ")
    if kind in {b"-", b"?"}:
        return Label(unescape(path), kind == b"?", None)
    context = SelinuxContext(
        type=kind.decode(),
        user=None if user == b"-" else user.decode(),
        range=None if level == b"-" else level.decode(),
    )
    return Label(unescape(path), True, context)


def _hex(value: bytes | None) -> bytes:
    return b"-" if value is None else value.hex().encode()


def _unhex(value: bytes) -> bytes | None:
    return None if value == b"-" else bytes.fromhex(value.decode())
