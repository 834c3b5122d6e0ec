"""The headers of a tar: old, ustar, GNU and pax; pure.

Written for speed as well: tarfile alone takes twice as long over the headers of a large bundle as
tar takes for the whole of it.
"""

from __future__ import annotations

import re
import zlib
from functools import lru_cache
from typing import NamedTuple

BLOCK_BYTES = 512
_MAX_SIZE_BYTES = 1 << 60
_MAX_MTIME_NS = 1 << 62
_NANOSECONDS = 1_000_000_000
_REPEATED = frozenset([b"GNU.sparse.offset", b"GNU.sparse.numbytes"])
_RECORD = re.compile(rb"(\d{1,10}) ([^=]+)=")


class HeaderInvalid(ValueError):
    """These bytes are no tar header; the message is a clause for people."""


class Header(NamedTuple):
    """One header (a named tuple: one is made for each of 50,000 members).

    Attributes:
        type: its type flag, one byte.
        name: as written, joined with its prefix.
        size: of what follows, in bytes.
    """

    type: bytes
    name: bytes
    link: bytes
    mode: int
    size: int
    mtime_ns: int
    uid: int
    gid: int
    uname: bytes
    gname: bytes


def parse_header(block: bytes) -> Header:
    """The header in this block of 512 bytes.

    Raises:
        HeaderInvalid: the checksum is wrong, or a number can't be read.
    """
    if not _checksum_is_right(block):
        raise HeaderInvalid("a header's checksum is wrong")
    name = _text(block[:100])
    if block[345] and block[257:263] == b"ustar\0":  # GNU keeps other things there
        name = _text(block[345:500]) + b"/" + name
    size = parse_number(block[124:136])
    if not 0 <= size < _MAX_SIZE_BYTES:
        raise HeaderInvalid(f"a header says {size} bytes")
    return Header(
        block[156:157],
        name,
        _text(block[157:257]) if block[157] else b"",
        parse_number(block[100:108]) & 0o7777,
        size,
        _clamped(parse_number(block[136:148]) * _NANOSECONDS),
        *_owner(block[108:124], block[257:262] == b"ustar", block[265:329]),
    )


@lru_cache(maxsize=32)  # most bundles know one owner only
def _owner(numbers: bytes, has_names: bool, names: bytes) -> tuple[int, int, bytes, bytes]:  # noqa: FBT001 - private
    uid, gid = parse_number(numbers[:8]), parse_number(numbers[8:])
    return (uid, gid, _text(names[:32]), _text(names[32:])) if has_names else (uid, gid, b"", b"")


def parse_pax(content: bytes) -> dict[bytes, bytes]:
    """The records of a pax header; an empty value takes away what a header said.

    Of the two records that come once for each piece of a sparse file, all values, with commas between.

    Raises:
        HeaderInvalid: the records don't follow each other as their lengths say.
    """
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(content) and content[at]:
        found = _RECORD.match(content, at)
        if found is None:
            raise HeaderInvalid("a pax header can't be read")
        end = at + int(found[1])
        if not found.end() < end <= len(content) or content[end - 1 : end] != b"\n":
            raise HeaderInvalid("a pax header can't be read")
        key, value = found[2], content[found.end() : end - 1]
        if key in _REPEATED and key in records:
            value = records[key] + b"," + value
        records[key] = value
        at = end
    return records


def with_pax(header: Header, records: dict[bytes, bytes]) -> Header:
    """The header as these pax records change it.

    Raises:
        HeaderInvalid: a record's number can't be read.
    """
    mtime = records.get(b"mtime")
    return header._replace(
        name=records.get(b"path") or header.name,
        link=records.get(b"linkpath") or header.link,
        size=_decimal(records.get(b"size"), header.size),
        mtime_ns=_time_ns(mtime) if mtime else header.mtime_ns,
        uid=_decimal(records.get(b"uid"), header.uid),
        gid=_decimal(records.get(b"gid"), header.gid),
        uname=records.get(b"uname", header.uname),
        gname=records.get(b"gname", header.gname),
    )


def _checksum_is_right(block: bytes) -> bool:
    """adler32 adds up the bytes (modulo 65521, plus one) ten times as fast as sum() does."""
    field = block[148:156]
    try:
        stored = parse_number(field)
    except HeaderInvalid:
        return False
    if zlib.adler32(block) & 0xFFFF == (stored - 256 + sum(field) + 1) % 65521:
        return True
    # Some old programs added signed bytes up.
    rest = block[:148] + block[156:]
    return stored == 256 + sum(rest) - 256 * sum(byte > 127 for byte in rest)


def _text(field: bytes) -> bytes:
    end = field.find(b"\0")
    return field if end < 0 else field[:end]


def parse_number(field: bytes) -> int:
    """A header's number: octal digits, or, for what has too many of them, GNU's binary form.

    Raises:
        HeaderInvalid: it is neither.
    """
    try:
        return int(field.rstrip(b"\0 ") or b"0", 8)
    except ValueError:
        pass
    if field[0] in {0x80, 0xFF}:
        value = int.from_bytes(field, "big", signed=field[0] == 0xFF)
        return value if field[0] == 0xFF else value - (0x80 << 8 * (len(field) - 1))
    text = _text(field).strip()
    try:
        return int(text or b"0", 8)
    except ValueError:
        raise HeaderInvalid(f"a header has {text!r} where a number belongs") from None


def _decimal(text: bytes | None, otherwise: int) -> int:
    if not text:
        return otherwise
    if not text.isdigit() or len(text) > 19 or int(text) >= _MAX_SIZE_BYTES:
        raise HeaderInvalid(f"a pax header has {text[:40]!r} where a number belongs")
    return int(text)


def _time_ns(text: bytes) -> int:
    found = re.fullmatch(rb"(-?)(\d{1,18})(?:\.(\d*))?", text)
    if found is None:
        raise HeaderInvalid(f"a pax header has {text[:40]!r} where a time belongs")
    value = int(found[2]) * _NANOSECONDS + int((found[3] or b"")[:9].ljust(9, b"0"))
    return _clamped(-value if found[1] else value)


def _clamped(time_ns: int) -> int:
    return max(-_MAX_MTIME_NS, min(time_ns, _MAX_MTIME_NS))
