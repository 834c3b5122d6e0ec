"""Which files of the previous revision go."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from agent.install.records import decode_record
from agent.listings import content_digest

if TYPE_CHECKING:
    from agent.install.destinations import Destinations
    from agent.install.previous import Previous
    from agent.install.records import Record


class Removal(NamedTuple):
    """A file or link that goes, if it is still what the previous Install left. There may be very many.

    `record` holds the fields of its manifest line; empty when another agent installed it.
    """

    directory: bytes
    name: bytes
    record: bytes

    @property
    def path(self) -> bytes:
        return self.directory.rstrip(b"/") + b"/" + self.name


def planned_removals(
    previous: Previous, planned_names: dict[bytes, set[bytes]], destinations: Destinations
) -> tuple[list[Removal], list[bytes]]:
    """What goes, and the paths of what somebody changed, so that it stays."""
    removals: list[Removal] = []
    kept: list[bytes] = []
    for directory in previous.files.directories():
        names = previous.files.of(directory)
        gone = names.keys() - planned_names.get(directory, ())
        prefix = directory.rstrip(b"/") + b"/"
        for name in sorted(gone):
            path, fields = prefix + name, names[name]
            if path in destinations.by_real:
                continue
            try:
                status = os.lstat(path)
            except OSError:
                continue
            if is_as_left(path, status, decode_record(fields) if fields else None):
                removals.append(Removal(directory, name, fields))
            else:
                kept.append(path)
    return removals, kept


def is_as_left(
    path: bytes, status: os.stat_result, record: Record | None, *, dir_fd: int | None = None
) -> bool:
    """Whether this is still what Install wrote. When all that is known is its name: whether it is no directory."""
    if record is None:
        return not stat.S_ISDIR(status.st_mode)
    if record.is_link:
        return stat.S_ISLNK(status.st_mode) and os.readlink(path, dir_fd=dir_fd) == record.digest
    if not stat.S_ISREG(status.st_mode) or status.st_size != record.size:
        return False
    if status.st_mtime_ns == record.mtime_ns:
        return True
    return bool(record.digest) and _digest_of(path, dir_fd) == record.digest


def _digest_of(path: bytes, dir_fd: int | None) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=dir_fd)
    with open(descriptor, "rb") as stream:
        return content_digest(stream.read())
