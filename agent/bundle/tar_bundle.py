"""A tar, compressed or not, into a tree."""

from __future__ import annotations

import grp
import os
import pwd
from typing import TYPE_CHECKING

from agent.bundle.failures import corrupt, printable
from agent.bundle.tar_headers import BLOCK_BYTES, Header, HeaderInvalid, parse_header, parse_pax, with_pax
from agent.bundle.tar_sparse import is_sparse, map_in_header, map_in_records, sparse_name
from agent.bundle.tree import KEEP_OWNER, MemberAttributes, clean_name
from agent.errors import CommandFailure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.bundle.stream import ByteStream
    from agent.bundle.tar_sparse import SparseMap
    from agent.bundle.tree import Tree

_SMALL_FILE_BYTES = 128 * 1024
_MAX_EXTENDED_HEADER_BYTES = 1024 * 1024
_MAX_ID = 2**32 - 2
_WITHOUT_CONTENT = frozenset([b"1", b"2", b"3", b"4", b"5", b"6", b"V"])
_REFUSED = {
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a named pipe",
    b"M": "the rest of a file from another volume",
}


def unpack_tar(stream: ByteStream, tree: Tree, *, keeps_owners: bool) -> None:
    """Afterwards all members are in the tree, which isn't finished yet.

    Raises:
        CommandFailure: `bundle-corrupt`, or what the tree refuses.
    """
    owners = _Owners() if keeps_owners else None
    for header, sparse in _members(stream):
        name = clean_name(header.name)
        if not name:  # `./`: the archive itself is ours, and so are its attributes
            continue
        uid, gid = (KEEP_OWNER, KEEP_OWNER) if owners is None else owners.of(header)
        attributes = MemberAttributes(header.mode, header.mtime_ns, uid, gid)
        if sparse is None:
            _add(header, name, attributes, stream, tree)
        else:
            content = ((offset, stream.pieces(length)) for offset, length in sparse.segments)
            tree.add_sparse_file(name, attributes, sparse.size, content)
    if stream.is_compressed:  # only at its end is the checksum verified
        for size in stream.drain():
            tree.count(size)


def _add(header: Header, name: bytes, attributes: MemberAttributes, stream: ByteStream, tree: Tree) -> None:
    if header.type in _REFUSED:
        raise CommandFailure(
            "archive-entry-unsupported",
            f"The bundle's member {printable(name)} is {_REFUSED[header.type]}."
            " A bundle may hold files, directories, symbolic links and hard links.",
        )
    if header.type in {b"5", b"D"} or header.name.endswith(b"/"):
        tree.add_directory(name, attributes)
    elif header.type == b"2":
        tree.add_symlink(name, header.link, attributes)
    elif header.type == b"1":
        tree.add_hard_link(name, clean_name(header.link))
    elif header.size <= _SMALL_FILE_BYTES:
        tree.add_file(name, attributes, header.size, (stream.read_exactly(header.size),))
    else:
        tree.add_file(name, attributes, header.size, stream.pieces(header.size))


class _Owners:
    """Who owns a member on this host: the user of that name if there is one, else the number."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int, bytes, bytes], tuple[int, int]] = {}
        self._own = (os.geteuid(), os.getegid())

    def of(self, header: Header) -> tuple[int, int]:
        key = (header.uid, header.gid, header.uname, header.gname)
        found = self._found.get(key)
        if found is None:
            found = (_uid(header), _gid(header))
            # A new file has our own without being asked.
            found = (KEEP_OWNER, KEEP_OWNER) if found == self._own else found
            self._found[key] = found
        return found


def _uid(header: Header) -> int:
    try:
        return pwd.getpwnam(os.fsdecode(header.uname)).pw_uid if header.uname else _bounded(header.uid)
    except (KeyError, ValueError):  # no such user, or no possible name of one
        return _bounded(header.uid)


def _gid(header: Header) -> int:
    try:
        return grp.getgrnam(os.fsdecode(header.gname)).gr_gid if header.gname else _bounded(header.gid)
    except (KeyError, ValueError):
        return _bounded(header.gid)


def _bounded(number: int) -> int:
    return max(0, min(number, _MAX_ID))


def _members(stream: ByteStream) -> Iterator[tuple[Header, SparseMap | None]]:
    """Each member's whole header; the stream then stands at its content, which need not be read."""
    common: dict[bytes, bytes] = {}
    own: dict[bytes, bytes] = {}
    while (block := _next_block(stream)) is not None:
        at = stream.position
        try:
            header = parse_header(block)
            if header.type in b"xgLKX":
                _extend(header, _extension(header, stream), common, own)
                continue
            records = {**common, **own} if common or own else own
            if records:
                header = with_pax(header, records)
            if header.type == b"S" or (records and is_sparse(records)):
                header, sparse, end = _sparse(header, block, records, stream)
            else:
                sparse = None
                end = stream.position + (0 if header.type in _WITHOUT_CONTENT else _padded(header.size))
        except HeaderInvalid as error:
            raise corrupt(stream.bundle, f"{error}, at (unpacked) byte {at - BLOCK_BYTES}") from error
        own = {}
        stream.member = (header.name, stream.position, stream.position + header.size)
        if header.type != b"V":  # a volume's label
            yield header, sparse
        stream.skip(end - stream.position)


def _sparse(
    header: Header, block: bytes, records: Mapping[bytes, bytes], stream: ByteStream
) -> tuple[Header, SparseMap, int]:
    """The header of a sparse file, its map, and where its data end; the stream then stands at the data."""

    def read_block() -> bytes:
        return stream.read_exactly(BLOCK_BYTES)

    start = stream.position
    if header.type == b"S":
        sparse = map_in_header(block, read_block)
        start = stream.position  # the blocks of its map don't count as content
    else:
        sparse = map_in_records(records, read_block)
        header = header._replace(name=sparse_name(records) or header.name)
    if stream.position - start + sparse.data_bytes != header.size:
        raise HeaderInvalid(
            f"a sparse file's map has {sparse.data_bytes} bytes, and its header {header.size}"
        )
    return header, sparse, start + _padded(header.size)


def _next_block(stream: ByteStream) -> bytes | None:
    """The next header's block; None at the end, which is a block of zeros."""
    block = stream.read(BLOCK_BYTES)
    if len(block) == BLOCK_BYTES:
        return None if block[0] == 0 and not block.strip(b"\0") else block
    if stream.position == 0:
        raise corrupt(stream.bundle, "it is empty")
    if block:
        raise corrupt(
            stream.bundle,
            f"it is cut off: it ends at (unpacked) byte {stream.position}, within a header {stream.place}",
        )
    # A tar that was cut off between two members looks like this; whole ones end with zeros.
    raise corrupt(
        stream.bundle,
        f"it is cut off: it ends at (unpacked) byte {stream.position}, {stream.place}, without the zeros that end every"
        " tar",
    )


def _extension(header: Header, stream: ByteStream) -> bytes:
    """What an extended header holds."""
    if header.size > _MAX_EXTENDED_HEADER_BYTES:
        raise HeaderInvalid(f"an extended header has {header.size} bytes")
    return stream.read_exactly(_padded(header.size))[: header.size]


def _extend(header: Header, content: bytes, common: dict[bytes, bytes], own: dict[bytes, bytes]) -> None:
    if header.type == b"g":
        common.update(parse_pax(content))
    elif header.type == b"L":
        own[b"path"] = content.partition(b"\0")[0]
    elif header.type == b"K":
        own[b"linkpath"] = content.partition(b"\0")[0]
    else:
        own.update(parse_pax(content))


def _padded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES
