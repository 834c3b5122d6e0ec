"""What a deployment archive holds, as it was found out while it was unpacked, or copied.

Install can tell from it that a file has not changed since the last revision, without reading it, and
what is in a directory, without listing it. An entry only counts while the file is the very one that was
unpacked, and untouched since: a hook that edits the archive changes at least the file's ctime. A
directory's list of names counts while the directory is untouched, since each new, removed or renamed
name changes its ctime. Where the file system counts whole seconds only, that is not so in the second of
unpacking: entries from the second in which the index was written don't count there, and no lists of
names. The index lies beside the archive:

    archive-index 3 <digest of what follows> <digest of all names and kinds>
    d <inode> <mtime ns> <ctime ns> <directory, relative to the archive>
    d - <directory>             one whose names may not all be listed
    <inode> <size> <mtime ns> <ctime ns> <digest of the content> <name>
    l <name>                    a link
    / <name>                    a directory
    - <name>                    a file of which nothing is known
"""

from __future__ import annotations

import contextlib
import os
import time
from copy import copy
from hashlib import blake2b
from typing import TYPE_CHECKING, BinaryIO

from agent.listings import (
    DIGEST_BYTES,
    Sections,
    clock_ns,
    content_digest,
    counts_seconds,
    directory_identity,
    escape,
    escaped,
    has_identity,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

_MAGIC = b"archive-index 3 "
_LONGEST_TICK_S = 0.1
_PAUSE_S = 0.001

LINK, DIRECTORY, UNKNOWN = b"l", b"/", b"-"
"""Fields of entries that are not those of a file whose content is known."""


def index_of(archive: Path) -> Path:
    """Where the index of this archive is."""
    return archive.with_name(".archive-index")


def identity_of(status: os.stat_result) -> bytes:
    """What an entry begins with while its file is the very one, untouched."""
    return b"%d %d %d %d " % (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class IndexWriter:
    """Collects the entries of an archive that is being made."""

    def __init__(self) -> None:
        self._entries: dict[bytes, dict[bytes, bytes]] = {}
        self._identities: dict[bytes, bytes] = {}
        self._latest_ns = 0

    def add(self, path: bytes, status: os.stat_result, digest: bytes) -> None:
        """Note a file at this path, relative to where it is unpacked to; a later one replaces an earlier one."""
        directory, _slash, name = path.rpartition(b"/")
        self._entries.setdefault(directory, {})[name] = b"%d %d %d %d %b" % (
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            digest,
        )

    def note(self, path: bytes, kind: bytes) -> None:
        """Note that there is something without a digest: LINK, DIRECTORY or UNKNOWN."""
        directory, _slash, name = path.rpartition(b"/")
        self._entries.setdefault(directory, {})[name] = kind

    def identify(self, directory: bytes, status: os.stat_result) -> None:
        """From now on, all that is in this directory has been noted, and its status is this one."""
        self._entries.setdefault(directory, {})
        self._identities[directory] = directory_identity(status)
        self._latest_ns = max(self._latest_ns, status.st_ctime_ns)

    def holds(self, path: bytes) -> bool:
        """Whether anything has been noted at this path."""
        directory, _slash, name = path.rpartition(b"/")
        return name in self._entries.get(directory, ())

    def write(self, place: Path, *, top: bytes = b"") -> None:
        """Write the index to `place`; where it can't be written, there is none, which costs only time.

        Args:
            place: the file.
            top: the directory of what was unpacked that is the archive; empty = all of it.
        """
        self._wait_for_tick()
        try:
            place.unlink(missing_ok=True)
            with place.open("wb") as stream:
                self._write(stream, top)
        except OSError:
            with contextlib.suppress(OSError):
                place.unlink(missing_ok=True)

    def _wait_for_tick(self) -> None:
        """Afterwards whatever changes in the directories gets another ctime than they have."""
        end = time.monotonic() + _LONGEST_TICK_S
        while clock_ns() <= self._latest_ns:
            if time.monotonic() > end:  # it is another clock, such as that of a file server
                self._identities.clear()
                return
            time.sleep(_PAUSE_S)

    def _write(self, stream: BinaryIO, top: bytes) -> None:
        prefix = top + b"/" if top else b""
        whole, names_digest = blake2b(digest_size=DIGEST_BYTES), blake2b(digest_size=DIGEST_BYTES)
        stream.write(_header(whole, names_digest))
        for directory in sorted(self._entries):
            if directory != top and not directory.startswith(prefix):
                continue
            below, entries = escape(directory[len(prefix) :]), self._entries[directory]
            names = sorted(entries)
            fields, spelled = [entries[name] for name in names], escaped(names)
            lines = [b"%b %b\n" % item for item in zip(fields, spelled, strict=True)]
            text = b"d %b %b\n" % (self._identities.get(directory) or b"-", below) + b"".join(lines)
            stream.write(text)
            whole.update(text)
            kinds = [item if len(item) == 1 else b"f" for item in fields]
            names_digest.update(b"\n".join([below, *spelled, b"", *kinds, b""]))
        stream.seek(0)
        stream.write(_header(whole, names_digest))


def _header(whole: blake2b, names: blake2b) -> bytes:
    return b"%b%b %b\n" % (_MAGIC, whole.hexdigest().encode(), names.hexdigest().encode())


class ArchiveIndex:
    """Looks up entries; of an archive without an index there are none.

    Attributes:
        size: about how many there are.
        names_digest: tells archives apart in which anything has another name, or is of another kind; empty when that
            is not known.
    """

    def __init__(self, archive: Path) -> None:
        content, written_ns = _read(index_of(archive))
        self.names_digest = _digest_in_header(content)
        if not self.names_digest:
            content = b""
        self.size = content.count(b"\n")
        self._archive = os.fsencode(archive)
        self._sections = Sections(content)
        # A file with this ctime, or a later one, may have been edited unseen; None where that can't be.
        self._doubtful_from_ns = written_ns if counts_seconds(written_ns) else None
        self._identities = {path: fields for fields, path in self._sections.directories()}
        self._aliases: dict[bytes, bytes] = {}

    def taken(self) -> ArchiveIndex:
        """All of it; afterwards there is nothing here."""
        taken = copy(self)
        self._sections, self._identities = Sections(b""), {}
        return taken

    def add_alias(self, link: bytes, directory: bytes) -> None:
        """From now on, what is asked about paths through this link is answered about that directory; both full paths."""
        self._aliases[self._below(link)] = self._below(directory)

    def _below(self, directory: bytes) -> bytes:
        """The directory's path in the archive, by which it is listed."""
        below = directory[len(self._archive) + 1 :]
        for link, target in self._aliases.items():
            if below == link or below.startswith(link + b"/"):
                return (target + below[len(link) :]).removeprefix(b"/")
        return below

    def knows(self, directory: bytes) -> bool:
        """Whether there may be entries of this directory, given by its full path."""
        return self._below(directory) in self._identities

    def of(self, directory: bytes) -> dict[bytes, bytes]:
        """Name → fields of the entries of this directory, given by its full path."""
        return self._believed(self._sections.of(self._below(directory)))

    def some_of(self, directory: bytes, names: Collection[bytes]) -> dict[bytes, bytes]:
        """The same, of these names, and perhaps of others; it takes less time if they are few."""
        return self._believed(self._sections.some_of(self._below(directory), names))

    def _believed(self, entries: dict[bytes, bytes]) -> dict[bytes, bytes]:
        begin = self._doubtful_from_ns
        if begin is None:
            return entries
        return {name: fields for name, fields in entries.items() if _ctime_ns(fields) < begin}

    def section(self, directory: bytes) -> tuple[bytes, bytes]:
        """The lines of all entries of this directory, and its identity when these were all of its names; else empty.

        Not to be asked where the index `is_doubtful`.

        Args:
            directory: given by its full path.
        """
        below = self._below(directory)
        return self._sections.text(below), self._identities.get(below, b"")

    def names(self, path: bytes) -> bool:
        """Whether there was anything at this full path when the archive was unpacked."""
        directory, _slash, name = path.rpartition(b"/")
        return name in self._sections.of(self._below(directory))

    def paths(self) -> Iterator[bytes]:
        """All that there was when the archive was made, relative to it."""
        for directory in self._identities:
            prefix = directory + b"/" if directory else b""
            yield from (prefix + name for name in self._sections.of(directory))

    def files_below(self, directory: bytes) -> int:
        """How many files and links there were in this directory, given by its full path, and below it."""
        top = self._below(directory)
        inside = [path for path in self._identities if path == top or not top or path.startswith(top + b"/")]
        entries = [self._sections.of(path) for path in inside]
        return sum(1 for fields in entries for kind in fields.values() if kind != DIRECTORY)

    @property
    def is_doubtful(self) -> bool:
        """Whether some of the entries are not believed, since the file system counts whole seconds."""
        return self._doubtful_from_ns is not None

    def lists_all(self, directory: bytes, status: os.stat_result) -> bool:
        """Whether these are all the names that are in the directory.

        Args:
            directory: given by its full path.
            status: of the directory, as it is now.
        """
        known = self._identities.get(self._below(directory), b"")
        return self._doubtful_from_ns is None and has_identity(status, known)


def _digest_in_header(content: bytes) -> bytes:
    """What the header tells of names and kinds; empty in an index that is not whole."""
    end = content.find(b"\n")
    fields = content[:end].removeprefix(_MAGIC).split(b" ")
    if not content.startswith(_MAGIC) or len(fields) != 2:
        return b""
    return fields[1] if fields[0] == content_digest(memoryview(content)[end + 1 :]) else b""


def _read(place: Path) -> tuple[bytes, int]:
    """Content and time of last change, in nanoseconds; of an index that can't be read, there is nothing."""
    try:
        with open(place, "rb") as stream:
            return stream.read(), os.fstat(stream.fileno()).st_mtime_ns
    except OSError:
        return b"", 0


def _ctime_ns(fields: bytes) -> int:
    numbers = fields.split(b" ", 4)
    return int(numbers[3]) if len(numbers) > 3 else 0


def digest_in(fields: bytes | None, identity: bytes) -> bytes | None:
    """The digest of the entry with these fields, if the file is still the very one."""
    if fields is not None and fields.startswith(identity):
        return fields[len(identity) :]
    return None
