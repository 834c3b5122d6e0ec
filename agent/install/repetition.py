"""An Install that would leave everything as it is, told at once.

The revision that is installed again has the same digest, and each directory and file of it, and of
what it is installed to, is in the state in which it was left: then a plan would say what the last one
said. As soon as anything is not so, there is no repetition, and all is planned.
"""

from __future__ import annotations

import os
import stat
from contextlib import closing
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from agent.archive_index import DIRECTORY, LINK
from agent.install.acl import ACCESS, DEFAULT
from agent.install.claims import others_install
from agent.install.crew import do_all, processes_for
from agent.install.descriptors import Descriptors
from agent.install.destinations import Directory, Standing
from agent.install.fresh_directories import FreshDirectories
from agent.install.records import attributes_in_state, directory_state, link_fields
from agent.install.sources import placement_of
from agent.install.staged import StepFailed
from agent.install.survey import PLACE, look, names_of
from agent.install.wanted import wanted_of
from agent.listings import DIGEST_BYTES, Sections

if TYPE_CHECKING:
    from agent.archive_index import ArchiveIndex
    from agent.deployments.group_files import GroupFiles
    from agent.install.previous import Records
    from agent.install.request import InstallRequest

NOT_REPEATABLE = b"-"
"""What `asked_by` answers for an Install of which the next one can't tell that it would be the same."""

_STATE_UNKNOWN = b"-"


class Repetition(NamedTuple):
    """What such an Install has to write of itself.

    Attributes:
        file_count: number of files and links.
        archive: the one that the last Install was made from.
        cleanup: the cleanup file, as it is.
        listed: the manifest, as it is, but for its header.
    """

    file_count: int
    archive: bytes
    cleanup: bytes
    listed: bytes


class _Place(NamedTuple):
    """A directory of the host that the last Install has created, or has put something into.

    Attributes:
        path: as the AppSpec spells it.
        real: without links.
        state: in which it was left, if that is known; None when Install has not created it.
        source: what is installed there; None when it is only above something.
    """

    path: bytes
    real: bytes
    state: bytes | None
    source: bytes | None

    def inner(self, name: bytes) -> bytes:
        """Path of something in it."""
        return self.path.rstrip(b"/") + b"/" + name


def asked_by(request: InstallRequest, index: ArchiveIndex) -> bytes:
    """Digest of what is to be installed where, and by whom; NOT_REPEATABLE when that is not all that counts."""
    mappings = request.appspec.files
    if (
        not index.digest
        or request.appspec.permissions
        or request.options.follow_directory_symlinks
        or not all(mapping.destination.startswith("/") for mapping in mappings)
    ):
        return NOT_REPEATABLE
    paths = [path for mapping in mappings for path in placement_of(b"", mapping)]
    who = b"%d %d" % (os.geteuid(), os.getegid())
    return blake2b(b"\0".join([index.digest, who, *paths]), digest_size=DIGEST_BYTES).hexdigest().encode()


def find_repetition(
    request: InstallRequest, asked: bytes, files: GroupFiles, records: Records, index: ArchiveIndex
) -> Repetition | None:
    """What is known of this Install, of which `asked_by` has answered this, if it leaves everything as it is."""
    header = records.header
    if header is None or asked == NOT_REPEATABLE or header.asked != asked:
        return None
    if records.cleanup is None or others_install(files.directory, files.group_id):
        return None
    sections = Sections(records.listed)
    try:
        places = _places(request, sections, index)
        if places is None:
            return None
        checks = _Checks(places, sections, index)
        counts = do_all(
            checks.count_at,
            len(places),
            processes=processes_for(index.size, request.options.processes),
        )
    except (OSError, StepFailed, _DifferentError):
        return None  # planning will meet that again, and say it
    if None in counts:
        return None
    file_count = sum(count for count in counts if count is not None)
    return Repetition(file_count, header.archive, records.cleanup, records.listed)


def _places(request: InstallRequest, sections: Sections, index: ArchiveIndex) -> list[_Place] | None:
    """All that the last Install has listed, and what belongs there now; None when that can't be told."""
    states: dict[bytes, bytes | None] = {}
    for fields, path in sections.directories():
        if not fields.startswith(b"c "):
            states.setdefault(path, None)
        else:
            states[path] = fields[2:]
    archive = os.fsencode(request.archive)
    real_archive = os.path.realpath(archive)
    sources: dict[bytes, bytes] = {}
    placements = [placement_of(archive, mapping) for mapping in request.appspec.files]
    for placement in placements:
        states.setdefault(placement.destination, None)
        if os.path.realpath(placement.source) != real_archive + placement.source[len(archive) :]:
            return None
        for path in states:
            source = placement.source_of(path)
            if source is None:
                continue
            if path in sources or not index.knows(source):
                return None
            sources[path] = source
    above = {path for path in states if path not in sources}
    if not all(
        any(placement.destination.startswith(path + b"/") for placement in placements) for path in above
    ):
        return None
    reals = _Reals(states)
    return [_Place(path, reals.of(path), state, sources.get(path)) for path, state in states.items()]


class _Reals:
    """Real paths of directories; those that Install has created are no links, as their state will prove."""

    def __init__(self, states: dict[bytes, bytes | None]) -> None:
        self._states = states
        self._known: dict[bytes, bytes] = {}

    def of(self, path: bytes) -> bytes:
        known = self._known.get(path)
        if known is None:
            known = self._known[path] = self._find(path)
        return known

    def _find(self, path: bytes) -> bytes:
        if self._states.get(path) is None:
            return os.path.realpath(path)
        above, _slash, name = path.rpartition(b"/")
        return self.of(above or b"/").rstrip(b"/") + b"/" + name


def _attributes_of_created(places: list[_Place]) -> bytes:
    """What the states of all directories that Install has created end with, if it would create them so now.

    Raises:
        OSError: what is above them can't be looked at.
        _DifferentError: it would not.
    """
    created = {place.real: place for place in places if place.state is not None}
    tails = set()
    with closing(Descriptors()) as descriptors:
        fresh = FreshDirectories(descriptors)
        for real, place in created.items():
            above = real.rpartition(b"/")[0] or b"/"
            if above in created:
                continue  # it takes after that one
            parent = Directory(above, above, Standing.FOREIGN, replaces=False, parent=None)
            wanted = fresh.of(Directory(place.path, real, Standing.OURS, replaces=False, parent=parent))
            _require(not wanted.has_acls)
            tails.add(attributes_in_state(wanted.mode, wanted.uid, wanted.gid))
    _require(len(tails) <= 1)
    tail = b"".join(tails)
    _require(
        all(
            place.state == _STATE_UNKNOWN or (place.state or b"").endswith(tail) for place in created.values()
        )
    )
    return tail


class _Checks:
    """Looks whether directories are as they were left.

    Raises:
        OSError, _DifferentError: those that Install has created would be created otherwise now.
    """

    def __init__(self, places: list[_Place], sections: Sections, index: ArchiveIndex) -> None:
        self._attributes = _attributes_of_created(places)
        self._places = places
        self._sources = {place.path: place.source for place in places}
        self._sections = sections
        self._index = index
        self._is_root = os.geteuid() == 0

    def count_at(self, number: int) -> int | None:
        """Number of files and links at a place; None when anything there is not as it was, or is not known."""
        try:
            return self._count(self._places[number])
        except (OSError, _DifferentError):
            return None

    def _count(self, place: _Place) -> int:
        """The same.

        Raises:
            OSError, _DifferentError: something is not as it was.
        """
        known = self._sections.read(place.path)
        if not known or place.source is None:
            self._check_without_files(place, known)
            return 0
        real_fd = os.open(place.real, PLACE)
        try:
            source_fd = os.open(place.source, PLACE)
            try:
                self._check_with_files(place, known, source_fd, real_fd)
            finally:
                os.close(source_fd)
        finally:
            os.close(real_fd)
        return len(known)

    def _check_without_files(self, place: _Place, known: dict[bytes, bytes]) -> None:
        _require(not known)
        status = os.lstat(place.real)
        entries: dict[bytes, bytes] = {}
        _require(stat.S_ISDIR(status.st_mode))
        if place.source is not None:
            source_status = os.lstat(place.source)
            _require(stat.S_ISDIR(source_status.st_mode))
            entries = self._entries(place.source, source_status)
        self._check_directories(place, entries)
        self._check_state(place, status, entries)

    def _check_with_files(
        self, place: _Place, known: dict[bytes, bytes], source_fd: int, real_fd: int
    ) -> None:
        entries = self._entries(place.source or b"", os.fstat(source_fd))
        files = names_of(entries)
        if len(files) < len(entries):
            links = [name for name, kind in entries.items() if kind == LINK]
            for name in links:
                self._check_link(name, source_fd, real_fd, known.get(name))
            others = {name: kind for name, kind in entries.items() if kind == DIRECTORY}
            _require(len(files) + len(links) + len(others) == len(entries))
            self._check_directories(place, others)
        else:
            links = []
        _require(len(files) + len(links) == len(known))
        self._check_state(place, os.fstat(real_fd), entries)
        if files:
            _require(look(source_fd, real_fd, entries, known, is_root=self._is_root) is None)

    def _check_directories(self, place: _Place, entries: dict[bytes, bytes]) -> None:
        """These entries are directories, each of which has a place of its own."""
        for name, kind in entries.items():
            _require(kind == DIRECTORY)
            _require(self._sources.get(place.inner(name)) == (place.source or b"") + b"/" + name)

    def _check_state(self, place: _Place, status: os.stat_result, entries: dict[bytes, bytes]) -> None:
        """It is as Install has left it, or holds just these names, and has the attributes that it would have now."""
        if place.state is None:
            return
        if place.state == _STATE_UNKNOWN:
            _require(set(os.listdir(place.real)) == entries.keys())
            _require(attributes_in_state(status.st_mode, status.st_uid, status.st_gid) == self._attributes)
            _require(not {ACCESS, DEFAULT}.intersection(os.listxattr(place.real, follow_symlinks=False)))
        else:
            _require(place.state == directory_state(status))

    def _entries(self, source: bytes, status: os.stat_result) -> dict[bytes, bytes]:
        """What the index has of a directory, if that is still all that is in it."""
        entries = self._index.read(source)
        if not self._index.lists_all(source, status):
            _require(entries.keys() == set(os.listdir(source)))
        return entries

    def _check_link(self, name: bytes, source_fd: int, real_fd: int, fields: bytes | None) -> None:
        """It is as it was left, and as it would be now."""
        there = os.lstat(name, dir_fd=real_fd)
        _require(fields == link_fields(there, os.readlink(name, dir_fd=source_fd)))
        wanted = wanted_of(os.lstat(name, dir_fd=source_fd), None, is_root=self._is_root)
        _require(wanted.is_met_by_link(there))


class _DifferentError(Exception):
    """Something is not as the last Install has left it."""


def _require(is_as_before: bool) -> None:  # noqa: FBT001 - a condition and nothing else
    if not is_as_before:
        raise _DifferentError
