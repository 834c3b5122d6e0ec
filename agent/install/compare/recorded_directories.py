"""The directories that the last Install has listed, and what belongs there now."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from agent.install.records.manifest import inode_in_state
from agent.install.revision.sources import placement_of

if TYPE_CHECKING:
    from agent.archive_index import ArchiveIndex
    from agent.install.model.request import InstallRequest
    from agent.install.posix.places import Places
    from agent.listings import Sections


_NONE: set[bytes] = set()


class DifferentError(Exception):
    """Something is not as the last Install has left it."""


def require(is_as_left: bool) -> None:  # noqa: FBT001 - a condition and nothing else
    """Check that the condition holds.

    Raises:
        DifferentError: it does not.
    """
    if not is_as_left:
        raise DifferentError


class RecordedDirectory(NamedTuple):
    """A directory of the host that the last Install has created, or has put something into.

    Attributes:
        path: as the AppSpec spells it.
        real: without links.
        state: in which it was left, if that is known; None when Install has not created it.
        inode: its number then; 0 when that is not known.
        source: what is installed there; None when it is only above something.
    """

    path: bytes
    real: bytes
    state: bytes | None
    inode: int
    source: bytes | None

    def inner(self, name: bytes) -> bytes:
        """Path of something in it."""
        return self.path.rstrip(b"/") + b"/" + name


@dataclass(frozen=True, kw_only=True)
class RecordedDirectories:
    """All that the last Install has listed, and what belongs there now, by the path as the AppSpec spells it.

    Attributes:
        paths: of all of them.
        told: what the manifest tells of each.
        states, reals, sources: as in `RecordedDirectory`; of those without a source, there is none.
        tops: those that Install has created in directories that it has not created.
    """

    paths: list[bytes]
    told: dict[bytes, bytes]
    states: dict[bytes, bytes | None]
    reals: dict[bytes, bytes]
    sources: dict[bytes, bytes]
    tops: list[bytes]

    def at(self, number: int) -> RecordedDirectory:
        """One of them. There may be many, so that they are only made when they are looked at, by whoever does."""
        path = self.paths[number]
        inode = inode_in_state(self.told.get(path, b""))
        return RecordedDirectory(path, self.reals[path], self.states[path], inode, self.sources.get(path))

    def has_inner(self, place: RecordedDirectory, name: bytes) -> bool:
        """Whether this directory of the archive goes where one is listed, too, and no other entry of `files` puts one."""
        return self.sources.get(place.inner(name)) == (place.source or b"") + b"/" + name

    def names_in(self, path: bytes) -> set[bytes]:
        """Names of those that lie in this one."""
        return self._names.get(path, _NONE)

    @cached_property
    def _names(self) -> dict[bytes, set[bytes]]:
        names: dict[bytes, set[bytes]] = {}
        for path in self.paths:
            above, _slash, name = path.rpartition(b"/")
            names.setdefault(above or b"/", set()).add(name)
        return names


def recorded_directories(
    request: InstallRequest, sections: Sections, index: ArchiveIndex, places: Places
) -> RecordedDirectories | None:
    """All of them; None when that can't be told.

    Raises:
        OSError: one can't be looked at.
        DifferentError: one is not there, or behind a link that is not followed.
    """
    states: dict[bytes, bytes | None] = {}
    told: dict[bytes, bytes] = {}
    for fields, path in sections.directories():
        told.setdefault(path, fields[2:])
        if fields.startswith(b"c "):
            states[path] = fields[2:]
        else:
            states.setdefault(path, None)
    archive = os.fsencode(request.archive)
    real_archive = os.path.realpath(archive)
    sources: dict[bytes, bytes] = {}
    placements = [placement_of(archive, mapping) for mapping in request.appspec.files]
    for placement in placements:
        if os.path.realpath(placement.source) != real_archive + placement.source[len(archive) :]:
            return None
        states.setdefault(placement.destination, None)
        placed = placement.sources_of(states)
        if not (sources.keys().isdisjoint(placed) and all(map(index.knows, placed.values()))):
            return None
        sources.update(placed)
    above = [path for path in states if path not in sources]
    if not all(
        any(placement.destination.startswith(path + b"/") for placement in placements) for path in above
    ):
        return None
    reals, tops = _real_paths(states, places)
    return RecordedDirectories(
        paths=list(states), told=told, states=states, reals=reals, sources=sources, tops=tops
    )


def _real_paths(states: dict[bytes, bytes | None], places: Places) -> tuple[dict[bytes, bytes], list[bytes]]:
    """Real paths of directories, and `tops`; what Install has created is no link, as its state will prove.

    Raises:
        OSError: one can't be looked at.
        DifferentError: one is not there, or behind a link that is not followed.
    """
    reals: dict[bytes, bytes] = {}
    tops: list[bytes] = []
    for path, state in states.items():
        if state is None:
            reals[path] = _real_path(path, places)
            continue
        above, _slash, name = path.rpartition(b"/")
        real = reals.get(above)
        if real is None:
            real = _real_path(above, places)
        if states.get(above) is None:
            tops.append(path)
        reals[path] = path if real == above else real.rstrip(b"/") + b"/" + name
    return reals, tops


def _real_path(path: bytes, places: Places) -> bytes:
    found = places.resolve(path)
    require(found.is_directory)
    return found.real
