"""Decompressors with one interface: `isal` where its wheel is there (2-4 times as fast), else zlib."""

from __future__ import annotations

import bz2
import importlib
import lzma
import re
import sys
import zlib
from typing import TYPE_CHECKING, Any, Protocol

igzip: Any
try:
    from isal import igzip_lib as igzip
    from isal.isal_zlib import crc32
except ImportError:  # no wheel for this processor
    from zlib import crc32

    igzip = None

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "DAMAGED",
    "Decompressor",
    "ZlibDecompressor",
    "bzip2_decompressor",
    "compression_of",
    "crc32",
    "deflate_decompressor",
    "gzip_decompressor",
    "has_checksums",
]

# What a decompressor raises on damaged data; bz2 says OSError.
DAMAGED: tuple[type[Exception], ...] = (zlib.error, lzma.LZMAError, OSError, EOFError)
if igzip is not None:
    DAMAGED = (*DAMAGED, igzip.IsalError)


_ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"


class Decompressor(Protocol):
    """Takes compressed bytes piece by piece; the shape of `bz2.BZ2Decompressor`."""

    @property
    def eof(self) -> bool:
        """Whether the end of the compressed data has been reached, and its checksum was right."""

    @property
    def needs_input(self) -> bool:
        """Whether `decompress` can't give more without more compressed bytes."""

    @property
    def unused_data(self) -> bytes:
        """What followed the end of the compressed data."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """At most `max_length` decompressed bytes; the rest stays for the next call."""


class ZstdDecompressor:
    """One frame of zstd in the shape of `bz2.BZ2Decompressor`, with its errors as those of the others."""

    def __init__(self) -> None:
        # Few bundles need it, and it is half a megabyte.
        zstd = importlib.import_module(_ZSTD)
        self._zstd: Any = zstd.ZstdDecompressor()
        self._error: type[Exception] = zstd.ZstdError

    @property
    def eof(self) -> bool:
        """See Decompressor."""
        return bool(self._zstd.eof)

    @property
    def needs_input(self) -> bool:
        """See Decompressor."""
        return bool(self._zstd.needs_input)

    @property
    def unused_data(self) -> bytes:
        """See Decompressor."""
        return bytes(self._zstd.unused_data)

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """See Decompressor."""
        try:
            return bytes(self._zstd.decompress(data, max_length))
        except self._error as error:
            raise EOFError(str(error)) from error


class ZlibDecompressor:
    """zlib in the shape of `bz2.BZ2Decompressor`."""

    def __init__(self, wbits: int) -> None:
        self._zlib = zlib.decompressobj(wbits)
        self._rest = b""
        self._filled = False

    @property
    def eof(self) -> bool:
        """See Decompressor."""
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        """See Decompressor."""
        # Output that was cut off at max_length may lie inside zlib with no input left over.
        return not (self.eof or self._rest or self._filled)

    @property
    def unused_data(self) -> bytes:
        """See Decompressor."""
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """See Decompressor."""
        piece = self._zlib.decompress(self._rest + data, max(max_length, 0))
        self._rest = self._zlib.unconsumed_tail
        self._filled = len(piece) == max_length
        return piece


def deflate_decompressor() -> Decompressor:
    """For the members of a zip: bare deflate data."""
    if igzip is None:
        return ZlibDecompressor(-zlib.MAX_WBITS)
    return igzip.IgzipDecompressor(flag=igzip.DECOMP_DEFLATE)  # type: ignore[no-any-return]


def gzip_decompressor() -> Decompressor:
    """For one gzip member, with its checksum verified."""
    if igzip is None:
        return ZlibDecompressor(zlib.MAX_WBITS + 16)
    return igzip.IgzipDecompressor(flag=igzip.DECOMP_GZIP)  # type: ignore[no-any-return]


# Beginning of a file → what decompresses it. tar has always recognised all of these by itself.
COMPRESSIONS: dict[bytes, Callable[[], Decompressor]] = {
    b"\x1f\x8b": gzip_decompressor,
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\x00": lzma.LZMADecompressor,
    b"\x28\xb5\x2f\xfd": ZstdDecompressor,
}
_ZSTD_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")  # frames of notes that some programs add


def compression_of(beginning: bytes) -> Callable[[], Decompressor] | None:
    """What decompresses a file that begins with these bytes; None = nothing does."""
    for magic, decompressor in COMPRESSIONS.items():
        if beginning.startswith(magic):
            return decompressor
    return ZstdDecompressor if _ZSTD_SKIPPABLE.match(beginning) else None


def bzip2_decompressor() -> Decompressor:
    """For the members of a zip that are compressed with bzip2."""
    return bz2.BZ2Decompressor()


def has_checksums(beginning: bytes) -> bool:
    """Whether a file that begins so is of a kind whose every byte is verified when it is unpacked.

    A zip is not: nothing verifies the names and modes of its members.
    """
    return beginning.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"))
