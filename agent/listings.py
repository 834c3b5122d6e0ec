"""Files that list what directories hold: one line per item, grouped by directory, names last and escaped.

Such a file can have 100,000 lines, of which a reader needs those of one directory at a time. So it
stays one text in memory, and only the lines of that directory are taken apart.
"""

from __future__ import annotations

import time
from hashlib import blake2b
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from io import FileIO

DIGEST_BYTES = 16
_PIECE_BYTES = 256 * 1024

_DIRECTORY = b"\nd "
_SECOND_NS = 10**9
_CLOCK_REALTIME_COARSE = 5

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


def clock_ns() -> int:
    """The clock that the kernel takes the times of files from; it lags a little, and moves in ticks.

    What has changed before it told this time has an earlier one, and what changes from then on has not.
    """
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


def counts_seconds(time_ns: int) -> bool:
    """Whether this time may come from a file system that counts nothing finer."""
    return time_ns % _SECOND_NS == 0


def directory_identity(status: os.stat_result) -> bytes:
    """Tells a directory apart from any other, and from itself as soon as a name in it has changed.

    Empty where the file system counts whole seconds only, so that it would not tell that.
    """
    if counts_seconds(status.st_ctime_ns):
        return b""
    return b"%d %d %d" % (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


def escape(name: bytes) -> bytes:
    """The name without the three bytes that have a meaning in such files."""
    if b"%" in name:
        name = name.replace(b"%", b"%25")
    if b" " in name:
        name = name.replace(b" ", b"%20")
    if b"\n" in name:
        name = name.replace(b"\n", b"%0A")
    return name


def escaped(names: list[bytes]) -> list[bytes]:
    """All of these, escaped; there are many, and mostly nothing to be done."""
    text = b"".join(names)
    if b"%" in text or b" " in text or b"\n" in text:
        return [escape(name) for name in names]
    return names


def unescape(name: bytes) -> bytes:
    """The name that `escape` made this of."""
    return unquote_to_bytes(name) if b"%" in name else name


class Sections:
    """The lines of each directory, each split into fields and name.

    A directory begins with a line `d <fields> <path>`, and may come several times; no other line begins
    like that. A last line without its end is unfinished, and left out.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._parts: dict[bytes, list[tuple[int, int]]] = {}
        self._kept: dict[bytes, dict[bytes, bytes]] = {}
        self._kept_names = 0

    def directories(self) -> Iterator[tuple[bytes, bytes]]:
        """Fields and path of each directory line, in order; reads all of the text."""
        content, parts = self._content, self._parts
        # There are few such lines among many, so they are searched for.
        start = 0 if content.startswith(b"d ") else content.find(_DIRECTORY) + 1 or -1
        while start >= 0:
            begin = content.find(b"\n", start) + 1
            if not begin:
                return
            fields, _space, name = content[start + 2 : begin - 1].rpartition(b" ")
            path = unescape(name)
            start = content.find(_DIRECTORY, begin - 1) + 1 or -1
            part = (begin, start if start >= 0 else content.rfind(b"\n") + 1)
            if path in parts:
                parts[path].append(part)
            else:
                parts[path] = [part]
            yield fields, path

    def of(self, path: bytes) -> dict[bytes, bytes]:
        """Name → fields, of this directory. To be asked once `directories` is through."""
        known = self._kept.get(path)
        if known is None:
            known = self.read(path)
            self._keep(path, known)
        return known

    def read(self, path: bytes) -> dict[bytes, bytes]:
        """The same, by one who will not ask for it again: what is soon forgotten takes less memory, and less time."""
        names: dict[bytes, bytes] = {}
        for start, end in self._parts.get(path, ()):
            text = self._content[start:end]
            parts = [line.rpartition(b" ") for line in text.split(b"\n")]
            if b"%" in text:
                parts = [(fields, space, unescape(name)) for fields, space, name in parts]
            names.update({name: fields for fields, space, name in parts if space})
        return names

    def _keep(self, path: bytes, names: dict[bytes, bytes]) -> None:
        if self._kept_names > _MOST_KEPT:
            self._kept.clear()
            self._kept_names = 0
        self._kept[path] = names
        self._kept_names += len(names)
