"""What is ours behind a link that the administrator has put in the place of a directory of ours.

The directory may have been moved there as a whole, or copied to another disk, or be another one altogether,
such as the directory of a release. So only that counts as ours which is as the last Install has left it; but where
a single file proves to be the very one, the directory is the very one, too, and what was edited in it is ours as ever.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.install.posix.copying import SMALL_BYTES
from agent.install.records.manifest import decode_record, file_fields, is_as_left, is_untouched, link_fields

if TYPE_CHECKING:
    import os

    from agent.install.posix.places import Places
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


def add_moved(previous: Previous, sections: Sections, moved: list[MovedDirectory], places: Places) -> None:
    """Add what is ours in these directories, and those of them that are ours.

    Raises:
        OSError: something in them can't be looked at.
    """
    originals: set[bytes] = set()
    holding: set[bytes] = set()
    ordered = sorted(moved, key=lambda item: len(item.path))
    for item in ordered:
        names = sections.of(item.path)
        above = item.path.rpartition(b"/")[0]
        if above in originals or item.real in previous.untouched or _is_original(item.real, names, places):
            originals.add(item.path)
            previous.files.add_section(item.real, item.path)
            continue
        for name, fields in names.items():
            now = _fields_if_as_left(item.real, name, fields, places)
            if now is not None:
                previous.files.add_name(item.real, name, now)
                holding.add(item.path)
    for item in reversed(ordered):
        if item.path in originals or item.path in holding:
            holding.add(item.path.rpartition(b"/")[0])
            if item.is_created:
                previous.directories[item.real] = item.path


def _is_original(real: bytes, names: dict[bytes, bytes], places: Places) -> bool:
    """Whether anything in this directory was not even copied, so that it is the very one of the last Install."""
    for name, fields in names.items():
        if not fields:
            continue
        status = places.find(real, name)
        if status is not None and is_untouched(decode_record(fields), status):
            return True
    return False


def _fields_if_as_left(real: bytes, name: bytes, fields: bytes, places: Places) -> bytes | None:
    """The fields of what has this name in a directory now, if that is what the last Install has left; else None."""
    if not fields:
        return None
    record, status = decode_record(fields), places.find(real, name)
    if status is None:
        return None
    try:
        is_left = is_as_left(name, status, record, dir_fd=places.of(real))
    except FileNotFoundError:
        return None
    if not is_left:
        return fields if _is_alike(record, status) else None
    if record.is_link:
        return link_fields(status, record.digest)
    return file_fields(status, record.digest, has_acl=record.has_acl) if record.digest else fields


def _is_alike(record: Record, status: os.stat_result) -> bool:
    """Whether a large file of which the content is not known has the right size and time, to the nanosecond."""
    return (
        not record.is_link
        and not record.digest
        and stat.S_ISREG(status.st_mode)
        and SMALL_BYTES < record.size == status.st_size
        and record.mtime_ns == status.st_mtime_ns
    )
