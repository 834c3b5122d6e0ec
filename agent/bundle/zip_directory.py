"""The central directory of a zip: where its members are, and what they are called."""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from agent.bundle.failures import corrupt, printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_MEMBER = struct.Struct("<4s6H3L5H2L")
_SIZES = struct.Struct("<20x2L3H12x")  # of _MEMBER: both sizes, and the lengths of what follows it
_LOCAL_HEADER = struct.Struct(
    "<4s2xH10xL4x2H"
)  # flags, compressed size, and the lengths of name and extra field
_SIZES_FOLLOW = 0x8  # a flag: the sizes stand behind the content
_EXTRA = struct.Struct("<2H")
_TIMESTAMP = 0x5455
_MAX_COMMENT_BYTES = 65535
_FAT, _NTFS = 0, 10
_UTF8_NAME = 0x800
_NANOSECONDS = 1_000_000_000
_UNKNOWN_16, _UNKNOWN_32 = 0xFFFF, 0xFFFFFFFF


class ZipMember(NamedTuple):
    """One member (a named tuple: one is made for each of 50,000 members).

    Attributes:
        name: UTF-8, or whatever bytes the maker used; `/` between its components.
        unix_mode: file type and permissions; 0 = the maker didn't know such things.
        offset: of its local header, from the beginning of the file.
        method: 0 = stored, 8 = deflated; others exist.
    """

    name: bytes
    unix_mode: int
    mtime_ns: int
    method: int
    is_encrypted: bool
    crc32: int
    compressed_bytes: int
    size: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Extent:
    """Where the directory is: `start` as its maker counted, `ends_at` as it is in this file."""

    member_count: int
    length: int
    start: int
    ends_at: int


class ZipDirectory:
    """The central directory, read whole: about a hundred bytes per member.

    Raises:
        CommandFailure: `bundle-corrupt`; there is none, or it doesn't lie within the file.
    """

    def __init__(self, descriptor: int, bundle: Path) -> None:
        self.bundle = bundle
        size = os.fstat(descriptor).st_size
        extent = _find_extent(descriptor, size, bundle)
        # What stands in front of the zip (a self-extracting program) moves everything.
        self._moved_by = extent.ends_at - extent.length - extent.start
        if self._moved_by < 0:
            ends_at = extent.start + extent.length
            raise corrupt(
                bundle, f"a part of it is missing: its directory should end at byte {ends_at} of {size}"
            )
        if self._moved_by and os.pread(descriptor, 4, 0) == b"PK\3\4":
            # A zip that holds a zip and was cut off within it ends like the inner one.
            raise corrupt(
                bundle,
                f"it begins with a zip, and ends with another one whose first byte is {self._moved_by}",
            )
        self.member_count = extent.member_count
        self._start = extent.start + self._moved_by
        self._content = os.pread(descriptor, extent.length, self._start)

    def __iter__(self) -> Iterator[ZipMember]:
        at = 0
        for _ in range(self.member_count):
            try:
                member, end = self._member(at)
            except struct.error as error:
                raise corrupt(self.bundle, f"its directory is damaged at byte {self._start + at}") from error
            yield member
            at = end

    def totals(self) -> tuple[int, int]:
        """How many bytes all members have together, unpacked and compressed; quicker than reading them.

        Raises:
            CommandFailure: `bundle-corrupt`; the directory holds more or fewer members than it says.
        """
        size = compressed = at = count = 0
        try:
            # Where there are more than 65,535, old programs say how many there are beyond a multiple of 65,536.
            while count < self.member_count or self._content.startswith(b"PK\1\2", at):
                numbers = _SIZES.unpack_from(self._content, at)
                if _UNKNOWN_32 in numbers[:2]:
                    member, _ = self._member(at)
                    numbers = (member.compressed_bytes, member.size, *numbers[2:])
                compressed += numbers[0]
                size += numbers[1]
                at += _MEMBER.size + numbers[2] + numbers[3] + numbers[4]
                count += 1
        except struct.error as error:
            raise corrupt(self.bundle, f"its directory is damaged at byte {self._start + at}") from error
        if (count - self.member_count) % 0x10000:
            raise corrupt(
                self.bundle,
                f"its directory holds {count} members, and says that it holds {self.member_count}",
            )
        self.member_count = count
        return size, compressed

    def _member(self, at: int) -> tuple[ZipMember, int]:
        """The member whose record is at this byte of the directory, and where the next one is."""
        record = _MEMBER.unpack_from(self._content, at)
        magic, made_by, _, flags, method, dos_time, dos_date, checksum, compressed, size = record[:10]
        name_length, extra_length, comment_length, _, _, attributes, offset = record[10:]
        if magic != b"PK\1\2":
            raise struct.error
        name_end = at + _MEMBER.size + name_length
        raw_name = self._content[at + _MEMBER.size : name_end]
        extra = self._content[name_end : name_end + extra_length]
        if _UNKNOWN_32 in {size, compressed, offset}:
            size, compressed, offset = _zip64_sizes(_extra_field(extra, 1), size, compressed, offset)
        unix_mode = attributes >> 16
        name = _name(raw_name, made_by >> 8, flags)
        if attributes & 0x10 and not unix_mode and not name.endswith(b"/"):
            name += b"/"  # a directory, by its attribute of old
        member = ZipMember(
            name,
            unix_mode,
            _mtime_ns(extra, dos_date, dos_time),
            method,
            bool(flags & 1),
            checksum,
            compressed,
            size,
            offset + self._moved_by,
        )
        return member, name_end + extra_length + comment_length


def _find_extent(descriptor: int, size: int, bundle: Path) -> _Extent:
    end_at, end = _find_end(descriptor, size, bundle)
    disk, _, here, count, length, start, _ = end
    if disk not in {0, _UNKNOWN_16} or here != count:
        raise corrupt(bundle, "it is one part of a zip in several parts")
    locator = b""
    if {count, length, start} & {_UNKNOWN_16, _UNKNOWN_32} and end_at >= _END64_LOCATOR.size:
        locator = os.pread(descriptor, _END64_LOCATOR.size, end_at - _END64_LOCATOR.size)
    if not locator.startswith(b"PK\6\7"):
        return _Extent(member_count=count, length=length, start=start, ends_at=end_at)
    # Where it says, or, with something in front of the zip, where it usually is.
    for record_at in (_END64_LOCATOR.unpack(locator)[2], end_at - _END64_LOCATOR.size - _END64.size):
        record = os.pread(descriptor, _END64.size, record_at) if 0 <= record_at < size else b""
        if len(record) == _END64.size and record.startswith(b"PK\6\6"):
            values = _END64.unpack(record)
            if values[6] != values[7]:
                raise corrupt(bundle, "it is one part of a zip in several parts")
            return _Extent(member_count=values[7], length=values[8], start=values[9], ends_at=record_at)
    raise corrupt(bundle, "its zip64 directory record is missing")


def _find_end(descriptor: int, size: int, bundle: Path) -> tuple[int, tuple[int, ...]]:
    """Where the end record is, and its numbers; where the directory ends is where it starts."""
    if size == 0:
        raise corrupt(bundle, "it is empty")
    tail_at = max(0, size - _END.size - _MAX_COMMENT_BYTES)
    tail = os.pread(descriptor, size - tail_at, tail_at)
    at = tail.rfind(b"PK\5\6")
    while at >= 0:
        if len(tail) - at >= _END.size:
            values = _END.unpack_from(tail, at)
            if at + _END.size + values[7] <= len(tail):
                return tail_at + at, values[1:]
        at = tail.rfind(b"PK\5\6", 0, at)
    raise corrupt(bundle, f"it has no zip directory at its end: {_where_it_ends(descriptor, size)}")


def _where_it_ends(descriptor: int, size: int) -> str:
    """For messages: what the last member is whose beginning is there, as far as local headers lead to it."""
    at, name = 0, b""
    beginning = os.pread(descriptor, 16, 0)
    if not beginning.startswith(b"PK\3\4"):
        return f"it is none, and begins with {printable(beginning)}"
    while True:
        header = os.pread(descriptor, _LOCAL_HEADER.size, at)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
            break
        _, flags, compressed, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        name = os.pread(descriptor, name_length, at + _LOCAL_HEADER.size)
        at += _LOCAL_HEADER.size + name_length + extra_length + compressed
        if flags & _SIZES_FOLLOW or compressed == _UNKNOWN_32:
            return f"it is cut off, and ends at byte {size}, somewhere after the beginning of its member {printable(name)}"
    place = "within" if at > size else "after"
    return f"it is cut off, and ends at byte {size}, {place} its member {printable(name)}"


def _extra_field(extra: bytes, wanted: int) -> bytes:
    """The content of one of the extra fields; empty without it."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = _EXTRA.unpack_from(extra, at)
        if kind == wanted:
            return extra[at + 4 : at + 4 + length]
        at += 4 + length
    return b""


def _zip64_sizes(extra: bytes, *numbers: int) -> tuple[int, int, int]:
    """Only those that didn't fit are in the extra field, in this order."""
    found = []
    at = 0
    for number in numbers:
        if number == _UNKNOWN_32:
            found.append(struct.unpack_from("<Q", extra, at)[0])
            at += 8
        else:
            found.append(number)
    return found[0], found[1], found[2]


def _name(raw: bytes, system: int, flags: int) -> bytes:
    """UTF-8 where the maker says so, or where it is; else what a PC of old means by it.

    A backslash is part of a name to Unix; only a zip from elsewhere that has no slashes means a
    directory by it.
    """
    from_pc = system in {_FAT, _NTFS}
    name = raw
    if from_pc and not flags & _UTF8_NAME and not _is_utf8(raw):
        name = raw.decode("cp437").encode()
    if from_pc and b"\\" in name and b"/" not in name:
        name = name.replace(b"\\", b"/")
    return name


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _mtime_ns(extra: bytes, dos_date: int, dos_time: int) -> int:
    """From the extended timestamp if there is one; else from DOS's local time, good to two seconds."""
    extended = _extra_field(extra, _TIMESTAMP)
    if len(extended) >= 5 and extended[0] & 1:
        return int(struct.unpack_from("<l", extended, 1)[0]) * _NANOSECONDS
    return _dos_time_ns(dos_date, dos_time)


@lru_cache(maxsize=64)  # a build writes many files in the same two seconds
def _dos_time_ns(dos_date: int, dos_time: int) -> int:
    date = (1980 + (dos_date >> 9), dos_date >> 5 & 15, dos_date & 31)
    clock = (dos_time >> 11, dos_time >> 5 & 63, 2 * (dos_time & 31))
    return int(time.mktime((*date, *clock, 0, 0, -1))) * _NANOSECONDS
