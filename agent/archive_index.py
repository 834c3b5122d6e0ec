"""What the files of a deployment archive hold, as it was found out while they were unpacked.

Install can tell from it that a file has not changed since the last revision, without reading it. An
entry only counts while the file is the very one that was unpacked, and untouched since: a hook that
edits the archive changes at least the file's ctime. Where the file system counts whole seconds only,
that is not so in the second of unpacking, and entries from the second in which the index was written
don't count. The index lies beside the archive:

    archive-index 1
    d <directory, relative to the archive>
    <inode> <size> <mtime ns> <ctime ns> <digest of the content> <name>
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from agent.listings import Sections, escape

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC = b"archive-index 1\n"
_SECOND_NS = 10**9


def index_of(archive: Path) -> Path:
    """Where the index of this archive is."""
    return archive.with_name(".archive-index")


def identity_of(status: os.stat_result) -> bytes:
    """What an entry begins with while its file is the very one, untouched."""
    return b"%d %d %d %d " % (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class IndexWriter:
    """Collects the entries of an archive that is being unpacked."""

    def __init__(self) -> None:
        self._lines: dict[bytes, list[bytes]] = {}

    def add(self, path: bytes, status: os.stat_result, digest: bytes) -> None:
        """Note a file at this path, relative to where it is unpacked to; a later one replaces an earlier one."""
        directory, _slash, name = path.rpartition(b"/")
        line = b"%d %d %d %d %b %b\n" % (
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            digest,
            escape(name),
        )
        self._lines.setdefault(directory, []).append(line)

    def write(self, place: Path, *, top: bytes = b"") -> None:
        """Write the index to `place`; where it can't be written, there is none, which costs only time.

        Args:
            place: the file.
            top: the directory of what was unpacked that is the archive; empty = all of it.
        """
        prefix = top + b"/" if top else b""
        with contextlib.suppress(OSError):
            place.unlink(missing_ok=True)
            with place.open("wb") as stream:
                stream.write(_MAGIC)
                for directory, lines in self._lines.items():
                    if directory == top or directory.startswith(prefix):
                        stream.write(b"d " + escape(directory[len(prefix) :]) + b"\n")
                        stream.writelines(lines)


class ArchiveIndex:
    """Looks up digests; of an archive without an index there are none."""

    def __init__(self, archive: Path) -> None:
        content, written_ns = _read(index_of(archive))
        self._archive = os.fsencode(archive)
        self._sections = Sections(content if content.startswith(_MAGIC) else b"")
        # A file with this ctime, or a later one, may have been edited unseen; None where that can't be.
        self._doubtful_from_ns = None if written_ns % _SECOND_NS else written_ns
        for _directory in self._sections.directories():
            pass

    def of(self, directory: bytes) -> dict[bytes, bytes]:
        """Name → fields of the entries of this directory, given by its full path."""
        entries = self._sections.of(directory[len(self._archive) + 1 :])
        begin = self._doubtful_from_ns
        if begin is None:
            return entries
        return {name: fields for name, fields in entries.items() if _ctime_ns(fields) < begin}


def _read(place: Path) -> tuple[bytes, int]:
    """Content and time of last change, in nanoseconds; of an index that can't be read, there is nothing."""
    try:
        with open(place, "rb") as stream:
            return stream.read(), os.fstat(stream.fileno()).st_mtime_ns
    except OSError:
        return b"", 0


def _ctime_ns(fields: bytes) -> int:
    return int(fields.split(b" ", 4)[3])


def digest_in(fields: bytes | None, identity: bytes) -> bytes | None:
    """The digest of the entry with these fields, if the file is still the very one."""
    if fields is not None and fields.startswith(identity):
        return fields[len(identity) :]
    return None
