"""A directory of an archive and one of the host, for the functions of the compiled library."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.archive_index import identity_of
from agent.install.records.manifest import file_fields
from agent.listings import content_digest

if TYPE_CHECKING:
    from pathlib import Path

    from agent.install.posix import batched
    from agent.install.posix.batched import Library

MOST = 1000
"""Bytes of a file that is copied."""


class Pair:
    """A directory of an archive, and one of the host."""

    def __init__(self, base: Path) -> None:
        self.source, self.real = base / "source", base / "real"
        self.source.mkdir()
        self.real.mkdir()
        self.source_fd, self.real_fd = (os.open(path, os.O_PATH) for path in (self.source, self.real))

    def close(self) -> None:
        os.close(self.source_fd)
        os.close(self.real_fd)

    def fields(self, name: str) -> bytes:
        """What the index would list of a file of the archive, before its name."""
        path = self.source / name
        return identity_of(path.lstat()) + content_digest(path.read_bytes())

    def both(self, *names: str) -> tuple[bytes, bytes]:
        """The lists of both directories, after each name was put into both."""
        entries, listed = [], []
        for name in names:
            self.put(name)
            entries.append(self.fields(name) + b" " + os.fsencode(name) + b"\n")
            digest = content_digest((self.real / name).read_bytes())
            fields = file_fields((self.real / name).lstat(), digest, has_acl=False)
            listed.append(fields + b" " + os.fsencode(name) + b"\n")
        return b"".join(entries), b"".join(listed)

    def put(self, name: str) -> None:
        for directory in (self.source, self.real):
            (directory / name).write_bytes(b"content of " + os.fsencode(name))
            os.utime(directory / name, ns=(-5, -123456789))

    def compared(self, library: Library, entries: bytes, listed: bytes) -> list[int] | None:
        found = library.compared(
            entries, listed, self.source_fd, self.real_fd, is_root=os.geteuid() == 0, gid=os.getegid()
        )
        return None if found is None else list(found)

    def copied(self, library: Library, *names: str) -> batched.Copied:
        spelled = [os.fsencode(name) for name in names]
        fields = [self.fields(name) if (self.source / name).is_file() else b"l" for name in names]
        places = [b".new-" + name for name in spelled]
        return library.copied(
            self.source_fd,
            self.real_fd,
            fields,
            spelled,
            places,
            most_bytes=MOST,
            is_root=os.geteuid() == 0,
            gid=os.getegid(),
        )
