"""Which files of the previous revision go."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from agent.install.posix.open_directories import PlaceChanged
from agent.install.records.manifest import decode_record, is_as_left

if TYPE_CHECKING:
    from agent.install.compare.other_groups import OtherGroups
    from agent.install.plan.destinations import Destinations
    from agent.install.posix.places import Places
    from agent.install.records.installed import Previous


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
        edited: paths of what somebody has changed, so that it stays.
        shared: path → another group that has installed the same there, so that it stays, and is that one's.
    """

    removals: list[Removal]
    edited: list[bytes]
    shared: dict[bytes, str]


def planned_removals(
    previous: Previous,
    planned_names: dict[bytes, set[bytes]],
    destinations: Destinations,
    others: OtherGroups,
    places: Places,
) -> Removals:
    """What goes, and what stays all the same, as does what can't be looked at."""
    removals: list[Removal] = []
    edited: list[bytes] = []
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
                dir_fd = places.of(directory)
                status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
                record = decode_record(fields) if fields else None
                is_ours = is_as_left(name, status, record, dir_fd=dir_fd)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except PlaceChanged:
                raise
            except OSError:
                is_ours = False
            if is_ours:
                removals.append(Removal(directory, name, fields))
            else:
                edited.append(path)
    shared = others.groups_claiming({removal.path for removal in removals})
    if shared:
        removals = [removal for removal in removals if removal.path not in shared]
    return Removals(removals, edited, shared)
