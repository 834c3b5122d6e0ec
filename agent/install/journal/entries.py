"""The entries of an undo journal, and the lines that they are written as; journal.py explains them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from agent.appspec import SelinuxContext
from agent.install.records.manifest import decode_record, encode_record
from agent.listings import escape, escaped, unescape

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.install.records.manifest import Record


class Touched(NamedTuple):
    """A directory that was there before, and how it was; of its ACLs only when it is ours."""

    path: bytes
    inode: int
    atime_ns: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int
    access_acl: bytes | None
    default_acl: bytes | None
    is_ours: bool


class FirstOnDisk(NamedTuple):
    """The first directory on a file system that there are changes on."""

    path: bytes


class MountPoint(NamedTuple):
    """Where a file system is mounted that there are changes on."""

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


class Losing(NamedTuple):
    """A directory that was there before, and that something goes from when the Install has succeeded."""

    path: bytes
    inode: int


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
    FirstOnDisk
    | MountPoint
    | Touched
    | Losing
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


def path_of(entry: Entry) -> bytes:
    """What the entry is about."""
    if isinstance(entry, Change | Adjustment | Leftover):
        return entry.directory.rstrip(b"/") + b"/" + entry.name
    return entry.path


def encode_changes(
    number: int, directory: bytes, names: list[bytes], new: Iterable[tuple[int, int, int]]
) -> bytes:
    """Lines of all `Change`s of one directory: there can be very many.

    Args:
        number: of the first of the names; the next one has the next number.
        directory: its real path.
        names: of all planned files in it.
        new: position in the names, inode, and inode of what is there, 0 when nothing is, of each that changes.
    """
    real, escaped_names = escape(directory), escaped(names)
    lines = [b"h " + real + b"\n"]
    for position, inode, old_inode in new:
        name = escaped_names[position]
        if old_inode:
            lines.append(b"r %d %d %d %b %b\n" % (number + position, inode, old_inode, real, name))
        else:
            lines.append(b"n %d %d %b %b\n" % (number + position, inode, real, name))
    return b"".join(lines)


def encode_new_files(names: list[bytes], lines: list[bytes]) -> bytes:
    """The lines of what was made in a new directory, below its own: there can be very much.

    Args:
        names: of the files and links in it.
        lines: the fields of their manifest lines.
    """
    return b"".join(
        [
            b" %b %b\n" % (fields.split(b" ", 2)[1], name)
            for fields, name in zip(lines, escaped(names), strict=True)
        ]
    )


def encode(entry: Entry) -> bytes:
    """The line of one entry."""
    return _encoded(entry) + b"\n"


def _encoded(entry: Entry) -> bytes:  # noqa: PLR0911, PLR0912, C901 - one for each kind
    match entry:
        case FirstOnDisk():
            return b"y " + escape(entry.path)
        case MountPoint():
            return b"p " + escape(entry.path)
        case Losing():
            return b"k %d %b" % (entry.inode, escape(entry.path))
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
            numbers = b"%b %d %d %d %d %d %d" % (
                ours,
                entry.inode,
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


def decode(line: bytes, inner: Iterable[bytes] = ()) -> Entry:  # noqa: PLR0911, PLR0912, C901 - one for each kind
    kind, rest = line[:1], line[2:]
    if kind == b"y":
        return FirstOnDisk(unescape(rest))
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
        ours, inode, atime, mtime, mode, uid, gid, access, default, path = rest.split(b" ")
        times = (int(inode), int(atime), int(mtime))
        numbers = (int(mode), int(uid), int(gid))
        return Touched(unescape(path), *times, *numbers, _unhex(access), _unhex(default), ours == b"o")
    if kind == b"k":
        number, path = rest.split(b" ")
        return Losing(unescape(path), int(number))
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
