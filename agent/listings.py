"""Files that list what directories hold: one line per item, grouped by directory, names last and escaped.

Such a file can have 100,000 lines, of which a reader needs those of one directory at a time. So it
stays one text in memory, and only the lines of that directory are taken apart.
"""

from __future__ import annotations

import sys
import time
from hashlib import blake2b
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterator
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


def stream_digest(stream: FileIO, most_bytes: int = sys.maxsize) -> bytes:
    """Digest, as of `content_digest`, of all that is still to be read; the file may be larger than the memory.

    Args:
        stream: where it is read.
        most_bytes: where others may make the file longer meanwhile, no more than so many are read.
    """
    digest, left = blake2b(digest_size=DIGEST_BYTES), most_bytes
    while piece := stream.read(min(_PIECE_BYTES, left)):
        digest.update(piece)
        left -= len(piece)
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
    return b"" if counts_seconds(status.st_ctime_ns) else _identity(status)


def has_identity(status: os.stat_result, identity: bytes) -> bool:
    """Whether a directory is the one that `directory_identity` has told of, untouched; not, where that was empty."""
    return identity == _identity(status)


def _identity(status: os.stat_result) -> bytes:
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


def _name_in(line: bytes) -> bytes:
    """The name at the end of a line, as it is spelled."""
    return line[line.rindex(b" ") + 1 :]


def unescape(name: bytes) -> bytes:
    """The name that `escape` made this of."""
    return unquote_to_bytes(name) if b"%" in name else name


# Searching for one line takes about as long as taking this number of them apart.
_MANY, _LONG_LINE = 4, 100


class Sections:
    """The lines of each directory, each split into fields and name.

    A directory begins with a line `d <fields> <path>`, and may come several times; no other line begins
    like that. A last line without its end is unfinished, and left out.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._spans: dict[bytes, tuple[int, ...]] = {}  # begin and end of each part
        self._kept: dict[bytes, dict[bytes, bytes]] = {}
        self._kept_names = 0

    def directories(self) -> list[tuple[bytes, bytes]]:
        """Fields and path of each directory line, in order; reads all of the text. To be asked once."""
        content, spans, find = self._content, self._spans, self._content.find
        is_escaped = b"%" in content
        directories = []
        # There are few such lines among many, so they are searched for.
        start = 0 if content.startswith(b"d ") else find(_DIRECTORY) + 1 or -1
        while start >= 0:
            begin = find(b"\n", start) + 1
            if not begin:
                break
            fields, _space, path = content[start + 2 : begin - 1].rpartition(b" ")
            if is_escaped:
                path = unescape(path)
            start = find(_DIRECTORY, begin - 1) + 1 or -1
            span = (begin, start if start >= 0 else content.rfind(b"\n") + 1)
            spans[path] = spans[path] + span if path in spans else span
            directories.append((fields, path))
        return directories

    def of(self, path: bytes) -> dict[bytes, bytes]:
        """Name → fields, of this directory. To be asked once `directories` is through."""
        known = self._kept.get(path)
        if known is None:
            known = self._read(path)
            self._keep(path, known)
        return known

    def text(self, path: bytes) -> bytes:
        """All lines of this directory, as they are."""
        spans = self._spans.get(path, ())
        if len(spans) == 2:
            return self._content[spans[0] : spans[1]]
        return b"".join([self._content[spans[item] : spans[item + 1]] for item in range(0, len(spans), 2)])

    def some_of(self, path: bytes, names: Collection[bytes]) -> dict[bytes, bytes]:
        """Name → fields, of those of these names that are in this directory, and perhaps of others.

        It takes less time than `of` if they are few.
        """
        if not self._are_few(len(names), path):
            return self.of(path)
        found = {}
        for name in names:
            for begin, end in self._parts(path):
                line = self._line(escape(name), begin, end)
                if line is not None:
                    found[name] = self._content[line].rpartition(b" ")[0]
        return found

    def changed(self, directories: dict[bytes, bytes], lines: dict[bytes, list[bytes]]) -> Iterator[bytes]:
        """All of the text, piece by piece, but with other fields here and there.

        Args:
            directories: → what their lines say between `d` and the path.
            lines: of files, by the directory: whole lines, without the end, each of which takes the place of that with
                the same name.
        """
        content, done = self._content, 0
        changes: list[tuple[slice, bytes]] = []
        for path, fields in directories.items():
            begin = self._spans[path][0]
            start = content.rfind(b"\n", 0, begin - 1) + 1
            spelled = content[content.rindex(b" ", start, begin) + 1 : begin - 1]
            changes.append((slice(start, begin - 1), b"d %b %b" % (fields, spelled)))
        for path, own in lines.items():
            if self._are_few(len(own), path):
                for begin, end in self._parts(path):
                    places = [(self._line(_name_in(line), begin, end), line) for line in own]
                    changes += [(place, line) for place, line in places if place is not None]
            else:
                by_name = {_name_in(line): line for line in own}
                for begin, end in self._parts(path):
                    old = content[begin:end].split(b"\n")
                    new = [by_name.get(_name_in(line), line) for line in old[:-1]]
                    changes.append((slice(begin, end), b"\n".join([*new, b""])))
        for place, line in sorted(changes, key=lambda change: change[0].start):
            yield content[done : place.start]
            yield line
            done = place.stop
        yield content[done : content.rfind(b"\n") + 1]

    def _are_few(self, count: int, path: bytes) -> bool:
        """Whether so many are so few of the lines of this directory that it is quicker to search for each."""
        return count * _LONG_LINE * _MANY < sum(end - begin for begin, end in self._parts(path))

    def _parts(self, path: bytes) -> Iterator[tuple[int, int]]:
        """Begin and end of each part of the lines of this directory that is not empty."""
        spans = self._spans.get(path, ())
        parts = ((spans[item], spans[item + 1]) for item in range(0, len(spans), 2))
        return ((begin, end) for begin, end in parts if begin < end)

    def _line(self, spelled: bytes, begin: int, end: int) -> slice | None:
        """Where the line about this name is, among those from `begin` to `end`; without its own end."""
        # Nothing else in a line is between a blank and its end.
        at = self._content.find(b" %b\n" % spelled, begin, end)
        return slice(self._content.rfind(b"\n", 0, at) + 1, at + 1 + len(spelled)) if at >= 0 else None

    def _read(self, path: bytes) -> dict[bytes, bytes]:
        text = self.text(path)
        names: dict[bytes, bytes] = {}
        for line in text.split(b"\n")[:-1]:
            fields, _space, name = line.rpartition(b" ")
            names[name] = fields
        if b"%" in text:
            return {unescape(name): fields for name, fields in names.items()}
        return names

    def _keep(self, path: bytes, names: dict[bytes, bytes]) -> None:
        if self._kept_names > _MOST_KEPT:
            self._kept.clear()
            self._kept_names = 0
        self._kept[path] = names
        self._kept_names += len(names)
