"""Where the data of a sparse file in a tar belong, in each of GNU tar's four ways to write that down; pure.

The oldest way has the map in the header and in blocks behind it, formats 0.0 and 0.1 have it in pax
records, 1.0 has it in front of the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.bundle.tar_headers import BLOCK_BYTES, HeaderInvalid, parse_number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PREFIX = b"GNU.sparse."
_ENTRY_BYTES, _NUMBER_BYTES = 24, 12
_IN_HEADER = (386, 4, 482)  # offset of the entries, their number, and where it says that more follow
_IN_BLOCK = (0, 21, 504)
_REAL_SIZE_AT = 483
_MOST_ENTRIES = 1_000_000
_MAX_SIZE_BYTES = 1 << 62


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseMap:
    """A file with holes.

    Attributes:
        size: of the file, holes included.
        segments: offset and length of each piece of data, in order, without overlaps.
    """

    size: int
    segments: tuple[tuple[int, int], ...]

    @property
    def data_bytes(self) -> int:
        """How many bytes of data there are."""
        return sum(length for _, length in self.segments)


def is_sparse(records: Mapping[bytes, bytes]) -> bool:
    """Whether pax records are about a sparse file."""
    return any(key.startswith(_PREFIX) for key in records)


def sparse_name(records: Mapping[bytes, bytes]) -> bytes | None:
    """The file's name, which stands beside the one that programs without sparse files are to see."""
    return records.get(_PREFIX + b"name")


def map_in_header(block: bytes, read_block: Callable[[], bytes]) -> SparseMap:
    """The map of a member of type `S`.

    Args:
        block: its header.
        read_block: gives the blocks that follow, one after the other.

    Raises:
        HeaderInvalid: it is no such map.
    """
    numbers: list[int] = []
    place = _IN_HEADER
    size = parse_number(block[_REAL_SIZE_AT : _REAL_SIZE_AT + _NUMBER_BYTES])
    while True:
        at, count, more_at = place
        for start in range(at, at + count * _ENTRY_BYTES, _NUMBER_BYTES):
            field = block[start : start + _NUMBER_BYTES]
            if field[0] == 0:  # the entries end here
                break
            numbers.append(parse_number(field))
        _check_count(len(numbers))
        if not block[more_at]:
            return _map(size, numbers)
        block, place = read_block(), _IN_BLOCK


def map_in_records(records: Mapping[bytes, bytes], read_block: Callable[[], bytes]) -> SparseMap:
    """The map that these pax records hold, or that the blocks in front of the data hold.

    Args:
        records: for which `is_sparse` is true; of records that come several times, all values, with commas.
        read_block: gives the blocks that follow, one after the other.

    Raises:
        HeaderInvalid: it is no such map.
    """
    values = {key[len(_PREFIX) :]: value for key, value in records.items() if key.startswith(_PREFIX)}
    size = _decimal(values.get(b"realsize") or values.get(b"size") or b"")
    if b"major" in values:
        version = (values[b"major"], values.get(b"minor"))
        if version != (b"1", b"0"):
            raise HeaderInvalid(f"a sparse file has the unknown format {version!r}")
        return _map(size, _numbers_before_data(read_block))
    if b"map" in values:
        return _map(size, [_decimal(text) for text in values[b"map"].split(b",") if values[b"map"]])
    offsets, lengths = (
        [_decimal(text) for text in values[key].split(b",")] if values.get(key) else []
        for key in (b"offset", b"numbytes")
    )
    if len(offsets) != len(lengths):
        raise HeaderInvalid("a sparse file has offsets without lengths")
    return _map(size, [number for pair in zip(offsets, lengths, strict=True) for number in pair])


def _numbers_before_data(read_block: Callable[[], bytes]) -> list[int]:
    """A count of entries, and the entries' numbers, each on a line of its own."""
    rest = read_block()
    numbers: list[int] = []
    wanted = 1
    while len(numbers) < wanted:
        line, found, after = rest.partition(b"\n")
        if not found:
            if len(rest) > BLOCK_BYTES:
                raise HeaderInvalid("a sparse file's map has no lines")
            rest += read_block()
            continue
        numbers.append(_decimal(line))
        if len(numbers) == 1:
            _check_count(2 * numbers[0])
            wanted += 2 * numbers[0]
        rest = after
    return numbers[1:]


def _map(size: int, numbers: list[int]) -> SparseMap:
    if len(numbers) % 2:
        raise HeaderInvalid("a sparse file has an offset without a length")
    segments = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    end = 0
    for offset, length in segments:
        if length < 0 or offset < end or offset + length > size:
            raise HeaderInvalid("a sparse file's map has pieces out of order, or behind its end")
        end = offset + length
    if not 0 <= size < _MAX_SIZE_BYTES:
        raise HeaderInvalid(f"a sparse file says {size} bytes")
    return SparseMap(size=size, segments=segments)


def _check_count(numbers: int) -> None:
    if numbers > 2 * _MOST_ENTRIES:
        raise HeaderInvalid(f"a sparse file has more than {_MOST_ENTRIES} pieces")


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise HeaderInvalid(f"a sparse file has {text[:40]!r} where a number belongs")
    return int(text)
