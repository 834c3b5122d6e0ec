"""Telling contents of install.json apart."""

from __future__ import annotations

from hashlib import blake2b
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, BinaryIO

from agent.listings import DIGEST_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

_PIECE_BYTES = 128 * 1024  # so that what is done next with a piece finds it in the processor's cache


_BEGIN, _COPY = b'{"type":', b'{"type":"copy","source":'


def moved(stream: BinaryIO, before: bytes, after: bytes) -> Iterator[bytes]:
    """What it says of one archive, said of another one with the same things in it.

    Args:
        stream: install.json, from its beginning.
        before: path of the one.
        after: path of the other.
    """
    old, new = _begin_of_copies(before), _begin_of_copies(after)
    return (piece.replace(old, new) for piece in _whole_instructions(stream))


class InstructionsDigest:
    """Tells contents of install.json apart, but for the path of the archive that they are about.

    Whoever installs the same revision again has nothing else to say of it.
    """

    def __init__(self, archive: bytes) -> None:
        self._digest = blake2b(digest_size=DIGEST_BYTES)
        self._old, self._new = _begin_of_copies(archive), _begin_of_copies(b"")

    def update(self, piece: bytes) -> None:
        """Add something that is made of whole instructions."""
        self._digest.update(piece.replace(self._old, self._new))

    def hexdigest(self) -> bytes:
        """Of all that was added."""
        return self._digest.hexdigest().encode()


def instructions_digest(stream: BinaryIO, archive: bytes) -> bytes:
    """What `InstructionsDigest` tells of the content of a file that is about this archive."""
    digest = InstructionsDigest(archive)
    for piece in _whole_instructions(stream):
        digest.update(piece)
    return digest.hexdigest()


def _whole_instructions(stream: BinaryIO) -> Iterator[bytes]:
    """All of it, piece by piece, none of which ends in the middle of an instruction."""
    rest = b""
    while piece := stream.read(_PIECE_BYTES):
        rest += piece
        whole = max(rest.rfind(_BEGIN), 0)  # the last instruction may be cut
        yield rest[:whole]
        rest = rest[whole:]
    yield rest


def _begin_of_copies(archive: bytes) -> bytes:
    """What each instruction begins with that copies something from this archive.

    Nothing else can look like that, since quotation marks in names are escaped.
    """
    return _COPY + _quoted(archive + b"/").encode()[:-1]


def _quoted(path: bytes) -> str:
    return encode_basestring(_text(path))


def _text(path: bytes) -> str:
    return path.decode("utf-8", "replace")
