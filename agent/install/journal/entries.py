"""The entries of an undo journal: each kind with its letter, and with the fields of its line; journal.py explains them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, TypeVar

from agent.appspec import SelinuxContext
from agent.install.records.manifest import decode_record, encode_record
from agent.listings import escape, unescape

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.install.records.manifest import Record


class _Codec(Protocol):
    """What each kind of entry has."""

    def fields(self) -> bytes:
        """The line, without its letter and its end."""

    @classmethod
    def decoded(cls, fields: bytes) -> Entry:
        """The entry of such a line."""


_C = TypeVar("_C", bound=_Codec)
_P = TypeVar("_P", bound="_PathEntry")
_KINDS: dict[bytes, type[_Codec]] = {}
_LETTERS: dict[type[_Codec], bytes] = {}


def _begins_with(letter: bytes) -> Callable[[type[_C]], type[_C]]:
    """Lines about this kind of entry begin with that letter and a blank."""

    def enter(kind: type[_C]) -> type[_C]:
        _KINDS[letter], _LETTERS[kind] = kind, letter
        return kind

    return enter


class _PathEntry(NamedTuple):
    """An entry that holds nothing but a path."""

    path: bytes

    def fields(self) -> bytes:
        return escape(self.path)

    @classmethod
    def decoded(cls: type[_P], fields: bytes) -> _P:
        return cls(unescape(fields))


@_begins_with(b"y")
class FirstOnDisk(_PathEntry):
    """The first directory on a file system that there are changes on."""

    __slots__ = ()


@_begins_with(b"p")
class MountPoint(_PathEntry):
    """Where a file system is mounted that there are changes on."""

    __slots__ = ()


@_begins_with(b"t")
class Touched(NamedTuple):
    """A directory that was there before, and how it was; of its ACLs only when it is ours.

    Of inodes that may be given to something else before the journal is read, it is told when they were made:
    `born_ns`, as `posix/births.py` has it.
    """

    path: bytes
    inode: int
    born_ns: int
    atime_ns: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int
    access_acl: bytes | None
    default_acl: bytes | None
    is_ours: bool

    def fields(self) -> bytes:
        acls = _hex(self.access_acl) + b" " + _hex(self.default_acl)
        ours = b"o" if self.is_ours else b"-"
        return b"%b %d %d %d %d %d %d %d %b %b" % (ours, *self[1:8], acls, escape(self.path))

    @classmethod
    def decoded(cls, fields: bytes) -> Touched:
        ours, inode, born, atime, mtime, mode, uid, gid, access, default, path = fields.split(b" ")
        times, owner = (int(atime), int(mtime)), (int(mode), int(uid), int(gid))
        acls = (_unhex(access), _unhex(default))
        return cls(unescape(path), int(inode), int(born), *times, *owner, *acls, ours == b"o")


NO_DIRECTORY = 0
"""An inode that none has."""


@_begins_with(b"k")
class Losing(NamedTuple):
    """A directory that was there before, and that something goes from when the Install has succeeded.

    The inode is `NO_DIRECTORY` where it had gone by then.
    """

    path: bytes
    inode: int
    born_ns: int

    def fields(self) -> bytes:
        return b"%d %d %b" % (self.inode, self.born_ns, escape(self.path))

    @classmethod
    def decoded(cls, fields: bytes) -> Losing:
        inode, born, path = fields.split(b" ")
        return cls(unescape(path), int(inode), int(born))


@_begins_with(b"h")
class Hiding(_PathEntry):
    """A directory in which hidden names have been made."""

    __slots__ = ()


@_begins_with(b"c")
class NewDirectory(NamedTuple):
    """A new directory.

    Attributes:
        born_ns: `UNKNOWN` where it lies in another new one: nobody reaches it but through that.
    """

    inode: int
    born_ns: int
    path: bytes

    def fields(self) -> bytes:
        return b"%d %d %b" % (self.inode, self.born_ns, escape(self.path))

    @classmethod
    def decoded(cls, fields: bytes) -> NewDirectory:
        inode, born, path = fields.split(b" ")
        return cls(int(inode), int(born), unescape(path))


@_begins_with(b"f")
class MadeFiles(NamedTuple):
    """Files and links that were made in a new directory, each with its inode, on lines of their own that begin with a blank."""

    inode: int
    path: bytes
    inodes: dict[bytes, int]

    def fields(self) -> bytes:
        inner = [b"\n %d %b" % (inode, escape(name)) for name, inode in self.inodes.items()]
        return b"%d %b%b" % (self.inode, escape(self.path), b"".join(inner))

    @classmethod
    def decoded(cls, fields: bytes) -> MadeFiles:
        own, *inner = fields.split(b"\n")
        inode, path = own.split(b" ")
        found = (line.split(b" ") for line in inner)
        return cls(int(inode), unescape(path), {unescape(name): int(number) for _, number, name in found})


@_begins_with(b"n")
class Addition(NamedTuple):
    """A new file, link or directory that gets a name at which nothing is.

    Attributes:
        number: of its hidden name.
        inode: its own.
    """

    number: int
    inode: int
    directory: bytes
    name: bytes

    @property
    def path(self) -> bytes:
        return _joined(self.directory, self.name)

    @property
    def old_inode(self) -> int:
        """None, as a number."""
        return 0

    def fields(self) -> bytes:
        return b"%d %d %b %b" % (self.number, self.inode, escape(self.directory), escape(self.name))

    @classmethod
    def decoded(cls, fields: bytes) -> Addition:
        number, inode, directory, name = fields.split(b" ")
        return cls(int(number), int(inode), unescape(directory), unescape(name))


@_begins_with(b"r")
class Replacement(NamedTuple):
    """A new file, link or directory that gets the name of something else.

    Attributes:
        number: of its hidden name.
        inode: its own.
        old_inode: of what has the name now.
    """

    number: int
    inode: int
    old_inode: int
    directory: bytes
    name: bytes

    @property
    def path(self) -> bytes:
        return _joined(self.directory, self.name)

    def fields(self) -> bytes:
        return b"%d %d %d %b %b" % (*self[:3], escape(self.directory), escape(self.name))

    @classmethod
    def decoded(cls, fields: bytes) -> Replacement:
        number, inode, old_inode, directory, name = fields.split(b" ")
        return cls(int(number), int(inode), int(old_inode), unescape(directory), unescape(name))


@_begins_with(b"m")
class Adjustment(NamedTuple):
    """A file that keeps its content, and how it was before its attributes were changed.

    Attributes:
        size: of its content, in bytes.
        new_mtime_ns: the time that it is given.
    """

    inode: int
    atime_ns: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int
    access_acl: bytes | None
    size: int
    new_mtime_ns: int
    directory: bytes
    name: bytes

    @property
    def path(self) -> bytes:
        return _joined(self.directory, self.name)

    def fields(self) -> bytes:
        place = escape(self.directory) + b" " + escape(self.name)
        now = (_hex(self.access_acl), self.size, self.new_mtime_ns)
        return b"%d %d %d %d %d %d %b %d %d %b" % (*self[:6], *now, place)

    @classmethod
    def decoded(cls, fields: bytes) -> Adjustment:
        inode, atime, mtime, mode, uid, gid, acl, size, new_mtime, directory, name = fields.split(b" ")
        times, owner = (int(atime), int(mtime)), (int(mode), int(uid), int(gid))
        content = (int(size), int(new_mtime))
        return cls(int(inode), *times, *owner, _unhex(acl), *content, unescape(directory), unescape(name))


@_begins_with(b"a")
class Label(NamedTuple):
    """A path that gets an SELinux rule.

    Attributes:
        had_rule: whether an earlier Install has added one.
        was: that one, None when it is not known.
    """

    path: bytes
    had_rule: bool
    was: SelinuxContext | None

    def fields(self) -> bytes:
        if not self.had_rule or self.was is None:
            rule = (b"?" if self.had_rule else b"-") + b" - -"
        else:
            rule = " ".join((self.was.type, self.was.user or "-", self.was.range or "-")).encode()
        return rule + b" " + escape(self.path)

    @classmethod
    def decoded(cls, fields: bytes) -> Label:
        kind, user, level, path = fields.split(b" ")
        if kind in {b"-", b"?"}:
            return cls(unescape(path), kind == b"?", None)
        context = SelinuxContext(
            type=kind.decode(),
            user=None if user == b"-" else user.decode(),
            range=None if level == b"-" else level.decode(),
        )
        return cls(unescape(path), True, context)


@_begins_with(b"x")
class Leftover(NamedTuple):
    """A file or link of the previous revision that goes."""

    directory: bytes
    name: bytes
    record: Record | None

    @property
    def path(self) -> bytes:
        return _joined(self.directory, self.name)

    def fields(self) -> bytes:
        record = b"-" if self.record is None else encode_record(self.record)
        return b"%b %b %b" % (escape(self.directory), escape(self.name), record)

    @classmethod
    def decoded(cls, fields: bytes) -> Leftover:
        directory, name, record = fields.split(b" ", 2)
        return cls(unescape(directory), unescape(name), None if record == b"-" else decode_record(record))


@_begins_with(b"D")
class LeftoverDirectory(_PathEntry):
    """A directory of an earlier revision that goes, if it is empty."""

    __slots__ = ()


@_begins_with(b"b")
class LeftoverLabel(_PathEntry):
    """A path whose SELinux rule goes."""

    __slots__ = ()


Change: TypeAlias = Addition | Replacement

Entry: TypeAlias = (
    FirstOnDisk
    | MountPoint
    | Touched
    | Losing
    | Hiding
    | NewDirectory
    | MadeFiles
    | Addition
    | Replacement
    | Adjustment
    | Label
    | Leftover
    | LeftoverDirectory
    | LeftoverLabel
)


def letter_of(kind: type[_Codec]) -> bytes:
    """What lines about this kind of entry begin with."""
    return _LETTERS[kind]


def encode(entry: Entry) -> bytes:
    """The line of one entry, or its lines, where it has more."""
    return b"%b %b\n" % (_LETTERS[type(entry)], entry.fields())


def decode(line: bytes) -> Entry:
    """The entry of a line, or of its lines, without the last end of a line."""
    return _KINDS[line[:1]].decoded(line[2:])


def _joined(directory: bytes, name: bytes) -> bytes:
    return directory.rstrip(b"/") + b"/" + name


def _hex(value: bytes | None) -> bytes:
    return b"-" if value is None else value.hex().encode()


def _unhex(value: bytes) -> bytes | None:
    return None if value == b"-" else bytes.fromhex(value.decode())
