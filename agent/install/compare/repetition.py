"""An Install that would leave everything as it is, told at once.

The revision that is installed again has the same digest, and each directory and file of it, and of
what it is installed to, is in the state in which it was left: then a plan would say what the last one
said. As soon as anything is not so, there is no repetition, and all is planned.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from agent.archive_index import DIRECTORY, LINK, identity_of
from agent.install.attributes.of_files import wanted_of
from agent.install.attributes.of_new_directories import (
    FreshDirectories,
    HandedDown,
    handed_down,
    handed_down_at,
)
from agent.install.model.directory import Directory, Standing
from agent.install.posix.acl import ACCESS, DEFAULT, place_acl
from agent.install.posix.places import PLACE
from agent.install.records.manifest import (
    NOT_REPEATABLE,
    attributes_in_state,
    encode_mount_points,
    file_fields,
    is_in_state,
    link_fields,
)
from agent.install.revision.sources import placement_of
from agent.listings import DIGEST_BYTES, Sections, unescape

if TYPE_CHECKING:
    from agent.archive_index import ArchiveIndex
    from agent.install.compare.other_groups import OtherGroups
    from agent.install.compare.survey import Survey
    from agent.install.model.request import InstallRequest
    from agent.install.posix.places import Places
    from agent.install.records.manifest import ManifestHeader
    from agent.install.records.previous import Records

_STATE_UNKNOWN = b"-"
_FIELDS_OF_FILE = 6  # of its entry in the index, where its content is known


class Repetition(NamedTuple):
    """What such an Install has to write of itself.

    Attributes:
        file_count: number of files and links.
        header: of the manifest that the last Install has left.
        cleanup: the cleanup file, as it is.
        listed: the manifest, as it is, but for its header.
    """

    file_count: int
    header: ManifestHeader
    cleanup: bytes
    listed: bytes


class _Recorded(NamedTuple):
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
        or index.is_doubtful
        or request.appspec.permissions
        or request.options.follow_directory_symlinks
        or not all(mapping.destination.startswith("/") for mapping in mappings)
    ):
        return NOT_REPEATABLE
    paths = [path for mapping in mappings for path in placement_of(b"", mapping)]
    who = b"%d %d" % (os.geteuid(), os.getegid())
    return blake2b(b"\0".join([index.digest, who, *paths]), digest_size=DIGEST_BYTES).hexdigest().encode()


def find_repetition(
    request: InstallRequest,
    asked: bytes,
    records: Records,
    index: ArchiveIndex,
    *,
    others: OtherGroups,
    places: Places,
    survey: Survey,
) -> Repetition | None:
    """What is known of this Install, of which `asked_by` has answered this, if it leaves everything as it is."""
    header = records.header
    if header is None or asked == NOT_REPEATABLE or header.asked != asked:
        return None
    if records.cleanup is None or others.are_installing():
        return None
    sections = Sections(records.listed)
    try:
        recorded = _recorded_directories(request, sections, index, places)
        if recorded is None:
            return None
        checks = _Checks(recorded, sections, index, places)
        counts = survey.look_at_all(checks.count_at, len(recorded.paths), index.size)
    except (OSError, _DifferentError):
        return None  # planning will meet that again, and say it
    if None in counts:
        return None
    file_count = sum(count for count in counts if count is not None)
    listed = records.listed + encode_mount_points(records.mount_points)
    return Repetition(file_count, header, records.cleanup, listed)


@dataclass(frozen=True, slots=True, kw_only=True)
class _RecordedDirectories:
    """All that the last Install has listed, and what belongs there now, by the path as the AppSpec spells it.

    Attributes:
        paths: of all of them.
        states, reals, sources: as in `_Recorded`; of those without a source, there is none.
        tops: those that Install has created in directories that it has not created.
    """

    paths: list[bytes]
    states: dict[bytes, bytes | None]
    reals: dict[bytes, bytes]
    sources: dict[bytes, bytes]
    tops: list[bytes]

    def at(self, number: int) -> _Recorded:
        """One of them. There may be many, so that they are only made when they are looked at, by whoever does."""
        path = self.paths[number]
        return _Recorded(path, self.reals[path], self.states[path], self.sources.get(path))


def _recorded_directories(
    request: InstallRequest, sections: Sections, index: ArchiveIndex, places: Places
) -> _RecordedDirectories | None:
    """All of them; None when that can't be told."""
    states: dict[bytes, bytes | None] = {}
    for fields, path in sections.directories():
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
    return _RecordedDirectories(paths=list(states), states=states, reals=reals, sources=sources, tops=tops)


def _real_paths(states: dict[bytes, bytes | None], places: Places) -> tuple[dict[bytes, bytes], list[bytes]]:
    """Real paths of directories, and `tops`; what Install has created is no link, as its state will prove.

    Raises:
        OSError: one can't be looked at.
        _DifferentError: one is not there, or behind a link that is not followed.
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
    _require(found.is_directory)
    return found.real


class _Created(NamedTuple):
    """All directories that Install has created, if it would create them now.

    Attributes:
        attributes: what their states end with.
        handed_down: what they hand down.
    """

    attributes: bytes
    handed_down: HandedDown


def _as_created_now(recorded: _RecordedDirectories, places: Places) -> _Created:
    """The same.

    Raises:
        OSError: what is above them can't be looked at.
        _DifferentError: one would be different from another, or have ACLs.
    """
    created = set()
    fresh = FreshDirectories(places)
    for path in recorded.tops:  # the others take after these
        real = recorded.reals[path]
        above = real.rpartition(b"/")[0] or b"/"
        parent = Directory(above, above, Standing.FOREIGN, replaces=False, parent=None)
        directory = Directory(path, real, Standing.OURS, replaces=False, parent=parent)
        wanted = fresh.of(directory)
        _require(not wanted.has_acls)
        attributes = attributes_in_state(wanted.mode, wanted.uid, wanted.gid)
        created.add(_Created(attributes, fresh.handed_down(directory)))
    _require(len(created) <= 1)
    return created.pop() if created else _Created(b"", handed_down(0, 0, None))


class _Checks:
    """Looks whether directories are as they were left, and as they would be made now.

    Raises:
        OSError, _DifferentError: it can't be told how they would be made now.
    """

    def __init__(
        self, recorded: _RecordedDirectories, sections: Sections, index: ArchiveIndex, places: Places
    ) -> None:
        self._created = _as_created_now(recorded, places)
        self._places = places
        self._recorded = recorded
        self._sections = sections
        self._index = index
        self._is_root = os.geteuid() == 0

    def count_at(self, number: int) -> int | None:
        """Number of files and links at a place; None when anything there is not as it was, or is not known."""
        try:
            return self._count(self._recorded.at(number))
        except (OSError, _DifferentError):
            return None

    def _count(self, place: _Recorded) -> int:
        """The same.

        Raises:
            OSError, _DifferentError: something is not as it was.
        """
        listed = self._sections.text(place.path)
        if not listed or place.source is None:
            self._check_without_files(place, listed)
            return 0
        source_fd = os.open(place.source, PLACE)
        try:
            return self._check_with_files(place, place.source, listed, source_fd, self._places.of(place.real))
        finally:
            os.close(source_fd)

    def _check_without_files(self, place: _Recorded, listed: bytes) -> None:
        _require(not listed)
        status = self._places.status(place.real)
        text = b""
        if place.source is not None:
            source_status = os.lstat(place.source)
            _require(stat.S_ISDIR(source_status.st_mode))
            text = self._index.text(place.source)
            for line in text.split(b"\n")[:-1]:
                self._check_directory(place, line)
            self._check_names(place.source, source_status, text)
        self._check_state(place, status, text)

    def _check_with_files(
        self, place: _Recorded, source: bytes, listed: bytes, source_fd: int, real_fd: int
    ) -> int:
        """What is listed must be what would be listed now, if what is there is as it is in the archive.

        There may be 100,000 files, so nothing is called here that need not be.
        """
        text = self._index.text(source)
        lines: list[bytes] = []
        is_root, is_escaped, lstat = self._is_root, b"%" in text, os.lstat
        inherited = self._created.handed_down if place.state is not None else handed_down_at(real_fd)
        _require(inherited.default_acl is None)
        gid = inherited.gid
        for line in text.split(b"\n")[:-1]:
            fields = line.split(b" ")
            if len(fields) < _FIELDS_OF_FILE:
                if fields[0] == LINK:
                    lines.append(self._checked_link(fields[1], source_fd, real_fd, inherited))
                else:
                    self._check_directory(place, line)
                continue
            spelled = fields[5]
            name = unescape(spelled) if is_escaped else spelled
            there, wanted = lstat(name, dir_fd=real_fd), lstat(name, dir_fd=source_fd)
            if not (
                line.startswith(identity_of(wanted))
                and there.st_mode == wanted.st_mode
                and there.st_nlink == wanted.st_nlink == 1
                and there.st_mtime_ns == wanted.st_mtime_ns
                and there.st_gid == (wanted.st_gid if is_root else gid)
                and (not is_root or there.st_uid == wanted.st_uid)
            ):
                raise _DifferentError
            lines.append(b"%b %b" % (file_fields(there, fields[4], has_acl=False), spelled))
        lines.append(b"")
        _require(b"\n".join(lines) == listed)
        self._check_names(source, os.fstat(source_fd), text)
        self._check_state(place, os.fstat(real_fd), text)
        return len(lines) - 1

    def _check_directory(self, place: _Recorded, line: bytes) -> None:
        """This entry is a directory, which has a place of its own."""
        kind, _space, spelled = line.partition(b" ")
        name = unescape(spelled)
        _require(kind == DIRECTORY)
        _require(self._recorded.sources.get(place.inner(name)) == (place.source or b"") + b"/" + name)

    def _check_state(self, place: _Recorded, status: os.stat_result, text: bytes) -> None:
        """It is as Install has left it, or holds just these names, and has the attributes that it would have now."""
        if place.state is None:
            return
        if place.state == _STATE_UNKNOWN:
            _require(self._names(place.real) == _names_in(text))
            _require(
                attributes_in_state(status.st_mode, status.st_uid, status.st_gid) == self._created.attributes
            )
            dir_fd = self._places.of(place.real)
            _require(place_acl(dir_fd, ACCESS) is None and place_acl(dir_fd, DEFAULT) is None)
        else:
            _require(is_in_state(status, place.state) and place.state.endswith(self._created.attributes))

    def _names(self, real: bytes) -> set[bytes]:
        """All that is in this directory."""
        dir_fd = self._places.opened(real)
        try:
            return {os.fsencode(name) for name in os.listdir(dir_fd)}
        finally:
            os.close(dir_fd)

    def _check_names(self, source: bytes, status: os.stat_result, text: bytes) -> None:
        """These are still all that are in this directory of the archive."""
        if not self._index.lists_all(source, status):
            _require(_names_in(text) == set(os.listdir(source)))

    def _checked_link(self, spelled: bytes, source_fd: int, real_fd: int, inherited: HandedDown) -> bytes:
        """What would be listed of a link that is as it would be now."""
        name = unescape(spelled)
        there = os.lstat(name, dir_fd=real_fd)
        wanted = wanted_of(os.lstat(name, dir_fd=source_fd), None, inherited, is_root=self._is_root)
        _require(stat.S_ISLNK(there.st_mode) and wanted.is_met_by_link(there))
        return b"%b %b" % (link_fields(there, os.readlink(name, dir_fd=source_fd)), spelled)


def _names_in(text: bytes) -> set[bytes]:
    """The names of these entries of the index."""
    return {unescape(line.rpartition(b" ")[2]) for line in text.split(b"\n")[:-1]}


class _DifferentError(Exception):
    """Something is not as the last Install has left it."""


def _require(is_as_before: bool) -> None:  # noqa: FBT001 - a condition and nothing else
    if not is_as_before:
        raise _DifferentError
