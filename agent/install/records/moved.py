"""What is ours behind a link that the administrator has put in the place of a directory of ours.

The directory may have been moved there as a whole, or copied to another disk, or be another one altogether,
such as the directory of a release. So only that counts as ours which is as the last Install has left it; but where
a single file proves to be the very one, the directory is the very one, too, and what was edited in it is ours as ever.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.install.posix.copying import SMALL_BYTES
from agent.install.records.manifest import decode_record, file_fields, is_as_left, is_untouched, link_fields

if TYPE_CHECKING:
    from agent.install.records.installed import Previous
    from agent.install.records.manifest import Record
    from agent.listings import Sections


@dataclass(slots=True, kw_only=True)
class MovedDirectory:
    """A directory of the last Install, behind such a link.

    Attributes:
        path: as the last Install has spelled it.
        real: where it is now.
        is_created: whether the last Install has created it; not, where the link itself leads.
    """

    path: bytes
    real: bytes
    is_created: bool


def add_moved(previous: Previous, sections: Sections, moved: list[MovedDirectory]) -> None:
    """Add what is ours in these directories, and those of them that are ours."""
    very_ones: set[bytes] = set()
    holding: set[bytes] = set()
    ordered = sorted(moved, key=lambda item: len(item.path))
    for item in ordered:
        names = sections.of(item.path)
        above = item.path.rpartition(b"/")[0]
        if above in very_ones or item.real in previous.untouched or _is_very_one(item.real, names):
            very_ones.add(item.path)
            previous.files.add_section(item.real, item.path)
            continue
        for name, fields in names.items():
            now = _fields_if_as_left(item.real.rstrip(b"/") + b"/" + name, fields)
            if now is not None:
                previous.files.add_name(item.real, name, now)
                holding.add(item.path)
    for item in reversed(ordered):
        if item.path in very_ones or item.path in holding:
            holding.add(item.path.rpartition(b"/")[0])
            if item.is_created:
                previous.directories[item.real] = item.path


def _is_very_one(real: bytes, names: dict[bytes, bytes]) -> bool:
    """Whether anything in this directory was not even copied."""
    prefix = real.rstrip(b"/") + b"/"
    for name, fields in names.items():
        if not fields:
            continue
        try:
            status = os.lstat(prefix + name)
        except OSError:
            continue
        if is_untouched(decode_record(fields), status):
            return True
    return False


def _fields_if_as_left(path: bytes, fields: bytes) -> bytes | None:
    """The fields of what is at this path now, if that is what the last Install has left; else None."""
    if not fields:
        return None
    record = decode_record(fields)
    try:
        status = os.lstat(path)
        if is_as_left(path, status, record):
            if record.is_link:
                return link_fields(status, record.digest)
            return file_fields(status, record.digest, has_acl=record.has_acl) if record.digest else fields
        return fields if _is_alike(record, status) else None
    except OSError:
        return None


def _is_alike(record: Record, status: os.stat_result) -> bool:
    """Whether a large file of which the content is not known has the right size and time, to the nanosecond."""
    return (
        not record.is_link
        and not record.digest
        and stat.S_ISREG(status.st_mode)
        and SMALL_BYTES < record.size == status.st_size
        and record.mtime_ns == status.st_mtime_ns
    )
