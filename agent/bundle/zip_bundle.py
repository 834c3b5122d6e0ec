"""A zip into a tree."""

from __future__ import annotations

import os
import stat
import struct
from typing import TYPE_CHECKING

from agent.bundle.failures import corrupt, printable
from agent.bundle.inflate import DAMAGED, bzip2_decompressor, crc32, deflate_decompressor
from agent.bundle.tree import MemberAttributes, clean_name
from agent.errors import CommandFailure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.bundle.inflate import Decompressor
    from agent.bundle.tree import Tree
    from agent.bundle.zip_directory import ZipDirectory, ZipMember

_STORED = 0
_DECOMPRESSORS = {8: deflate_decompressor, 12: bzip2_decompressor}
_METHODS = {
    1: "shrink",
    6: "implode",
    9: "deflate64",
    14: "lzma",
    20: "zstd",
    93: "zstd",
    95: "xz",
    98: "PPMd",
}
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_PIECE_BYTES = 1024 * 1024
# The local header's extra field is as long as the central one's or a few bytes longer: one read mostly.
_EXTRA_GUESS_BYTES = 64
_MAX_TARGET_BYTES = 4096


def unpack_zip(descriptor: int, directory: ZipDirectory, tree: Tree) -> None:
    """Afterwards all members are in the tree, which isn't finished yet.

    Owners are never set: zips are made by programs that don't mean them.

    Raises:
        CommandFailure: `bundle-corrupt`, `bundle-encrypted`, or what the tree refuses.
    """
    for member in directory:
        name = clean_name(member.name)
        if name:
            _add(member, name, _Content(descriptor, directory.bundle, member), tree)


def _add(member: ZipMember, name: bytes, content: _Content, tree: Tree) -> None:
    file_type = stat.S_IFMT(member.unix_mode)
    # As unzip does it: setuid, setgid and sticky bits of a zip don't count.
    permissions = member.unix_mode & 0o777
    if member.name.endswith(b"/") or file_type == stat.S_IFDIR:
        tree.add_directory(name, MemberAttributes(permissions or 0o755, member.mtime_ns))
    elif file_type == stat.S_IFLNK:
        if not 0 < member.size <= _MAX_TARGET_BYTES:
            raise corrupt(content.bundle, f"its symbolic link {printable(name)} has {member.size} bytes")
        tree.add_symlink(name, b"".join(content.pieces()), MemberAttributes(0o777, member.mtime_ns))
    elif file_type in {0, stat.S_IFREG}:
        tree.add_file(
            name, MemberAttributes(permissions or 0o644, member.mtime_ns), member.size, content.pieces()
        )
    else:
        raise CommandFailure(
            "archive-entry-unsupported",
            f"The bundle's member {printable(name)} is a device, a named pipe or a socket."
            " A bundle may hold files, directories and symbolic links.",
        )


class _Content:
    """What one member holds, verified while it is read."""

    def __init__(self, descriptor: int, bundle: Path, member: ZipMember) -> None:
        self.bundle = bundle
        self._descriptor = descriptor
        self._member = member

    def pieces(self) -> Iterator[bytes]:
        """All of it; raises CommandFailure if it isn't what the directory says."""
        member = self._member
        if member.is_encrypted:
            raise CommandFailure(
                "bundle-encrypted",
                f"The bundle's member {printable(member.name)} is encrypted, and there is no password for"
                " bundles. Build the zip without one.",
            )
        if member.method in _DECOMPRESSORS:
            pieces = self._inflated(_DECOMPRESSORS[member.method]())
        elif member.method == _STORED:
            pieces = self._raw()
        else:
            raise CommandFailure(
                "archive-entry-unsupported",
                f"The bundle's member {printable(member.name)} is compressed with"
                f" {_METHODS.get(member.method, 'an unknown method')} (method {member.method}), which this agent can't"
                " read. Build the zip with deflate, which is the usual method, or with bzip2.",
            )
        checksum = size = 0
        for piece in pieces:
            checksum = crc32(piece, checksum)
            size += len(piece)
            if size > member.size:
                break
            yield piece
        if size != member.size or checksum != member.crc32:
            raise self._damaged("its content is not what the directory says")

    def _inflated(self, decompressor: Decompressor) -> Iterator[bytes]:
        # Never more than one byte more than there should be, however much the data would give.
        rest = self._member.size + 1
        for compressed in self._raw():
            given = compressed
            while rest and not decompressor.eof:
                try:
                    piece = decompressor.decompress(given, min(rest, _PIECE_BYTES))
                except DAMAGED as error:
                    raise self._damaged(f"its compressed data are damaged ({error})") from error
                rest -= len(piece)
                if piece:
                    yield piece
                if decompressor.needs_input:
                    break
                given = b""

    def _raw(self) -> Iterator[bytes]:
        """The bytes between the local header and whatever follows."""
        rest = self._member.compressed_bytes
        at = self._member.offset
        guess = _LOCAL_HEADER.size + len(self._member.name) + _EXTRA_GUESS_BYTES + min(rest, _PIECE_BYTES)
        beginning = os.pread(self._descriptor, guess, at)
        if len(beginning) < _LOCAL_HEADER.size or not beginning.startswith(b"PK\3\4"):
            raise self._damaged("its local header is missing")
        _, name_length, extra_length = _LOCAL_HEADER.unpack_from(beginning)
        start = _LOCAL_HEADER.size + name_length + extra_length
        piece = beginning[start : start + rest]
        at += start
        while rest:
            piece = piece or os.pread(self._descriptor, min(rest, _PIECE_BYTES), at)
            if not piece:
                raise self._damaged("it is cut off")
            yield piece
            rest -= len(piece)
            at += len(piece)
            piece = b""

    def _damaged(self, what: str) -> Exception:
        member = self._member
        return corrupt(self.bundle, f"{printable(member.name)} at byte {member.offset} is damaged: {what}")
