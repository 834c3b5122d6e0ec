"""The bytes of a bundle in order, decompressed on the way, with a fixed amount of them in memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.bundle.failures import corrupt, printable
from agent.bundle.inflate import DAMAGED, compression_of
from agent.bundle.read_ahead import read_ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from agent.bundle.inflate import Decompressor

COMPRESSED_CHUNK_BYTES = 256 * 1024
CHUNK_BYTES = 1024 * 1024


class _Damaged(Exception):
    """What is wrong with the compressed data, as a clause."""


class ByteStream:
    """Reads a bundle from its beginning; whatever compression it has is recognised and taken off.

    Attributes:
        member: the one that was begun last: its name, and where its content starts and ends, in unpacked
            bytes; whoever reads members sets it.

    Args:
        descriptor: of the bundle, at its beginning; stays the caller's.
        bundle: its path, for messages.
    """

    def __init__(self, descriptor: int, bundle: Path) -> None:
        self.bundle = bundle
        self.member: tuple[bytes, int, int] | None = None
        self._descriptor = descriptor
        self._chunk = b""
        self._at = 0
        self._before = 0  # bytes in the chunks before this one
        self._compression = compression_of(os.pread(descriptor, 16, 0))
        self._chunks = self._contents()

    def _contents(self) -> Generator[bytes, None, None]:
        if self._compression is None:
            return self._plain()
        inflated = self._inflated(self._compression)
        # See `digests` for what a thread may cost where memory is short.
        is_small = os.fstat(self._descriptor).st_size <= COMPRESSED_CHUNK_BYTES
        return inflated if is_small else read_ahead(inflated)

    def close(self) -> None:
        """Afterwards nothing reads from the descriptor any more."""
        self._chunks.close()

    @property
    def position(self) -> int:
        """How many (decompressed) bytes were read."""
        return self._before + self._at

    @property
    def place(self) -> str:
        """Where among the members it stands, for messages."""
        if self.member is None:
            return "before its first member"
        name, start, end = self.member
        if self.position < end:
            return f"after {max(0, self.position - start)} of the {end - start} bytes of its member {printable(name)}"
        return f"after its member {printable(name)}"

    @property
    def is_compressed(self) -> bool:
        """Whether the bundle is compressed as a whole."""
        return self._compression is not None

    def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer only where the bundle ends."""
        end = self._at + size
        if end <= len(self._chunk):
            piece = self._chunk[self._at : end]
            self._at = end
            return piece
        return b"".join(self._available(size))

    def read_exactly(self, size: int) -> bytes:
        """The next `size` bytes, or a CommandFailure that the bundle ends too early."""
        content = self.read(size)
        if len(content) < size:
            raise self._cut_off()
        return content

    def pieces(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes, in pieces that are good until the next one is asked for."""
        rest = size
        for piece in self._available(size):
            rest -= len(piece)
            yield piece
        if rest:
            raise self._cut_off()

    def skip(self, size: int) -> None:
        """Go past the next `size` bytes."""
        end = self._at + size
        if end <= len(self._chunk):
            self._at = end
            return
        for _ in self.pieces(size):
            pass

    def drain(self) -> Iterator[int]:
        """Read to the end, which verifies the checksum; yields the sizes of what was read."""
        while self._next_chunk():
            yield len(self._chunk)

    def _available(self, size: int) -> Iterator[memoryview]:
        while size:
            if self._at == len(self._chunk) and not self._next_chunk():
                return
            piece = memoryview(self._chunk)[self._at : self._at + size]
            self._at += len(piece)
            size -= len(piece)
            yield piece

    def _next_chunk(self) -> bool:
        self._before += len(self._chunk)
        self._chunk, self._at = b"", 0
        try:
            self._chunk = next(self._chunks, b"")
        except _Damaged as damage:
            raise corrupt(self.bundle, f"{damage}, {self.place}") from damage
        return bool(self._chunk)

    def _plain(self) -> Generator[bytes, None, None]:
        while chunk := os.read(self._descriptor, CHUNK_BYTES):
            yield chunk

    def _inflated(self, compression: Callable[[], Decompressor]) -> Generator[bytes, None, None]:
        """All decompressed chunks of one compressed part after the other, as gzip allows."""
        compressed = os.read(self._descriptor, COMPRESSED_CHUNK_BYTES)
        while compressed:
            if compression_of(compressed) is not compression:
                raise _Damaged("something else follows the end of its compressed data")
            decompressor = compression()
            yield from self._one_part(decompressor, compressed)
            # Tapes and some tools fill up with zeros.
            compressed = decompressor.unused_data.lstrip(b"\0")
            while len(compressed) < 16 and (more := os.read(self._descriptor, COMPRESSED_CHUNK_BYTES)):
                compressed = (compressed + more).lstrip(b"\0")

    def _one_part(self, decompressor: Decompressor, compressed: bytes) -> Iterator[bytes]:
        while True:
            try:
                chunk = decompressor.decompress(compressed, CHUNK_BYTES)
            except DAMAGED as error:
                at = os.lseek(self._descriptor, 0, os.SEEK_CUR)
                raise _Damaged(f"its compressed data are damaged before byte {at} ({error})") from error
            if chunk:
                yield chunk
            if decompressor.eof:
                return
            compressed = b""
            if decompressor.needs_input:
                compressed = os.read(self._descriptor, COMPRESSED_CHUNK_BYTES)
                if not compressed:
                    size = os.fstat(self._descriptor).st_size
                    raise _Damaged(
                        f"it is cut off: it ends at byte {size}, in the middle of its compressed data"
                    )

    def _cut_off(self) -> Exception:
        return corrupt(
            self.bundle, f"it is cut off: it ends at (unpacked) byte {self.position}, {self.place}"
        )
