"""Which files of the previous revision go."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from agent.install.records import decode_record
from agent.listings import stream_digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.install.claims import Claim
    from agent.install.destinations import Destinations
    from agent.install.previous import Previous
    from agent.install.records import Record

ClaimsOn: TypeAlias = "Callable[[set[bytes]], dict[bytes, list[Claim]]]"
"""Which claims other groups have on these paths, which are without links."""


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


class Removals(NamedTuple):
    """What becomes of the files and links that only the previous revision has.

    Attributes:
        removals: these go.
        kept: paths of what somebody has changed, so that it stays.
        given_up: path → another group that has installed the same there, so that it stays, and is that one's.
    """

    removals: list[Removal]
    kept: list[bytes]
    given_up: dict[bytes, str]


def planned_removals(
    previous: Previous,
    planned_names: dict[bytes, set[bytes]],
    destinations: Destinations,
    claims_on: ClaimsOn,
) -> Removals:
    """What goes, and what stays all the same, as does what can't be looked at."""
    removals: list[Removal] = []
    kept: list[bytes] = []
    for directory in previous.files.directories():
        names, planned = previous.files.of(directory), planned_names.get(directory)
        if planned is not None and names.keys() <= planned:
            continue
        gone = names.keys() - (planned or ())
        prefix = directory.rstrip(b"/") + b"/"
        for name in sorted(gone):
            path, fields = prefix + name, names[name]
            if path in destinations.by_real:
                continue
            try:
                is_ours = is_as_left(path, os.lstat(path), decode_record(fields) if fields else None)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                is_ours = False
            if is_ours:
                removals.append(Removal(directory, name, fields))
            else:
                kept.append(path)
    given_up = owners_besides(claims_on, {removal.path for removal in removals})
    if given_up:
        removals = [removal for removal in removals if removal.path not in given_up]
    return Removals(removals, kept, given_up)


def owners_besides(claims_on: ClaimsOn, paths: set[bytes]) -> dict[bytes, str]:
    """Path → the group besides ours whose file is there, too, untouched; paths of ours alone are left out."""
    owners: dict[bytes, str] = {}
    for path, claims in claims_on(paths).items():
        for claim in claims:
            if _is_still_there(path, claim.record):
                owners[path] = claim.group_id
                break
    return owners


def _is_still_there(path: bytes, record: Record | None) -> bool:
    """Whether that is what another group has left. Somebody may have installed something else over it."""
    if record is None or not record.digest:
        return True
    try:
        return is_as_left(path, os.lstat(path), record)
    except FileNotFoundError:
        return False
    except OSError:
        return True


def is_as_left(
    path: bytes, status: os.stat_result, record: Record | None, *, dir_fd: int | None = None
) -> bool:
    """Whether this is still what Install wrote. When all that is known is its name: whether it is no directory.

    It is believed unread only when nothing has touched the file. Size and time alone say little: files of
    reproducible bundles have all the same time. What can't be read counts as changed.

    Raises:
        FileNotFoundError: it has gone.
    """
    if record is None:
        return not stat.S_ISDIR(status.st_mode)
    if record.is_link:
        return stat.S_ISLNK(status.st_mode) and os.readlink(path, dir_fd=dir_fd) == record.digest
    if not stat.S_ISREG(status.st_mode) or status.st_size != record.size:
        return False
    identity = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
    if identity == (record.inode, record.mtime_ns, record.ctime_ns):
        return True
    try:
        return bool(record.digest) and _digest_of(path, dir_fd) == record.digest
    except FileNotFoundError:
        raise
    except OSError:
        return False


def _digest_of(path: bytes, dir_fd: int | None) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=dir_fd)
    with open(descriptor, "rb", buffering=0) as stream:
        return stream_digest(stream)
