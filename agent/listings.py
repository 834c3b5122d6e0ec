"""Files that list what directories hold: one line per item, grouped by directory, names last and escaped.

Such a file can have 100,000 lines, of which a reader needs those of one directory at a time. So it
stays one text in memory, and only the lines of that directory are taken apart.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO

DIGEST_BYTES = 16
_PIECE_BYTES = 1024 * 1024

_KINDS = (b"\nc ", b"\nd ")

# Names that were taken apart are kept up to this number, since the same directory is often asked for again.
_MOST_KEPT = 20_000


def content_digest(content: bytes | memoryview) -> bytes:
    """Tells contents apart, in hexadecimal."""
    return blake2b(content, digest_size=DIGEST_BYTES).hexdigest().encode()


def stream_digest(stream: FileIO) -> bytes:
    """The same of everything that is still to be read; the file may be larger than the memory."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    while piece := stream.read(_PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest().encode()


def escape(name: bytes) -> bytes:
    """The name without the three bytes that have a meaning in such files."""
    if b"%" in name:
        name = name.replace(b"%", b"%25")
    if b" " in name:
        name = name.replace(b" ", b"%20")
    if b"\n" in name:
        name = name.replace(b"\n", b"%0A")
    return name


def unescape(name: bytes) -> bytes:
    """The name that `escape` made this of."""
    return unquote_to_bytes(name) if b"%" in name else name


class Sections:
    """The lines of each directory, each split into fields and name.

    A directory begins with a line `d <path>` or `c <path>`, and may come several times. A last line
    without its end is unfinished, and left out.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._parts: dict[bytes, list[tuple[int, int]]] = {}
        self._kept: dict[bytes, dict[bytes, bytes]] = {}
        self._kept_names = 0

    def directories(self) -> Iterator[tuple[bytes, bytes]]:
        """Kind and path of each directory line, in order; reads all of the text."""
        content, path, begin = self._content, None, 0
        for start in _directory_lines(content):
            if path is not None:
                self._parts.setdefault(path, []).append((begin, start))
            begin = content.find(b"\n", start) + 1
            if not begin:
                return
            path = unescape(content[start + 2 : begin - 1])
            yield content[start : start + 1], path
        if path is not None:
            self._parts.setdefault(path, []).append((begin, content.rfind(b"\n") + 1))

    def of(self, path: bytes) -> dict[bytes, bytes]:
        """Name → fields, of this directory. To be asked once `directories` is through."""
        known = self._kept.get(path)
        if known is not None:
            return known
        names: dict[bytes, bytes] = {}
        for start, end in self._parts.get(path, ()):
            text = self._content[start:end]
            is_escaped = b"%" in text
            for line in text.split(b"\n"):
                fields, space, name = line.rpartition(b" ")
                if space:
                    names[unescape(name) if is_escaped else name] = fields
        self._keep(path, names)
        return names

    def _keep(self, path: bytes, names: dict[bytes, bytes]) -> None:
        if self._kept_names > _MOST_KEPT:
            self._kept.clear()
            self._kept_names = 0
        self._kept[path] = names
        self._kept_names += len(names)


def _directory_lines(content: bytes) -> Iterator[int]:
    """Where the lines of directories begin. There are few among many, so they are searched for."""
    starts = [0 if content.startswith(kind[1:]) else content.find(kind) + 1 or -1 for kind in _KINDS]
    while wanted := [start for start in starts if start >= 0]:
        start = min(wanted)
        yield start
        number = starts.index(start)
        starts[number] = content.find(_KINDS[number], start) + 1 or -1
