"""An Install of the same names as the last one's: what is as it is to be is told at once, and nothing else is planned.

This is a shortcut, and no rule: what it answers, planning, comparing and applying would come to as well (I10). As soon as
more is different than the content or the attributes of files, or is not known, there is no repetition, and all of it is
planned. What it skips, and what allows it:

- The plan of what is as it was left. A plan follows from what is asked for, from what the last Install left, from what is at
  the destinations and from other groups. What is asked for has the same digest (`asked_by`): the names and kinds of all
  that is in the bundle, where it goes, and who installs. The manifest is about the Install that took effect last. No other
  group is installing. Files that are not as they were left are planned, by the same rules as ever (`plan/changes.py`);
  since no name comes or goes, that concerns nothing else.
- Looking for conflicts and removals. Each directory that Install created holds the very names that it left there: its
  inode and times are those of the manifest, or its names are compared. Elsewhere, only names count that are ours.
- Following links by itself: each directory that Install did not create is resolved in `Places`, by the rule on links.
- Reading files. One whose inode, size and times, ctime among them, are as the manifest or the index of the archive lists
  them has the content that was digested then: nobody but root, with the clock, can write to a file, or exchange it, and
  keep its ctime.
- Adjusting attributes. They are as they would be given now, to files and to the directories that Install created; an
  AppSpec with `permissions` is never repeated.
"""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from agent.install.compare.as_left import AsLeft, Difference
from agent.install.compare.recorded_directories import DifferentError, recorded_directories
from agent.install.compare.survey import UNCHANGED, states_in
from agent.install.records.manifest import NOT_REPEATABLE
from agent.install.revision.sources import placement_of
from agent.listings import DIGEST_BYTES, Sections, unescape

if TYPE_CHECKING:
    from agent.archive_index import ArchiveIndex
    from agent.install.compare.other_groups import OtherGroups
    from agent.install.compare.recorded_directories import RecordedDirectories, RecordedDirectory
    from agent.install.compare.survey import Found, Survey
    from agent.install.model.request import InstallRequest
    from agent.install.posix.places import Places
    from agent.install.records.manifest import ManifestHeader
    from agent.install.records.previous import Records


class ChangedFiles(NamedTuple):
    """The files and links of a directory that are not as the last Install left them.

    Attributes:
        path: of the directory, as the AppSpec spells it.
        source: of the archive's directory that goes there.
        names: of them, in order.
        links: names of those that are links in the archive.
        known: name → fields of the lines of the manifest about them; None = these are all lines of the directory.
        found: what is known of each of them, as of a survey; there is none that is UNCHANGED.
    """

    path: bytes
    source: bytes
    names: list[bytes]
    links: frozenset[bytes]
    known: dict[bytes, bytes] | None
    found: bytes


class StateNow(NamedTuple):
    """The state in which a directory is that Install created.

    Attributes:
        state: as a manifest tells it.
        is_lasting: whether it shows each later change.
    """

    state: bytes
    is_lasting: bool


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """What is known of such an Install.

    Attributes:
        file_count: number of files and links that are as they were left.
        changed: the others, in the order of the records.
        recorded: all directories.
        states: of those that Install created and that are in another state than is recorded, by their path.
        header: of the manifest that the last Install has left.
        cleanup: the cleanup file, as it is.
        listed: the rest of that manifest, but for the lines about mount points.
        mount_points: that these name.
        written_ns: as in `Records`.
    """

    file_count: int
    changed: list[ChangedFiles]
    recorded: RecordedDirectories
    states: dict[bytes, StateNow]
    header: ManifestHeader
    cleanup: bytes
    listed: Sections
    mount_points: tuple[bytes, ...]
    written_ns: int

    def found(self) -> dict[tuple[bytes, bytes], Found]:
        """What is known of the changed files, for a survey: by the directories of the archive and of the host."""
        return {(files.source, self.recorded.reals[files.path]): files.found for files in self.changed}


def asked_by(request: InstallRequest, index: ArchiveIndex) -> bytes:
    """Digest of what is to be installed where, and by whom; NOT_REPEATABLE when that is not all that counts."""
    mappings = request.appspec.files
    if (
        not index.names_digest
        or index.is_doubtful
        or request.appspec.permissions
        or request.options.follow_directory_symlinks
        or not all(mapping.destination.startswith("/") for mapping in mappings)
    ):
        return NOT_REPEATABLE
    paths = [path for mapping in mappings for path in placement_of(b"", mapping)]
    who = b"%d %d" % (os.geteuid(), os.getegid())
    refused = [os.fsencode(directory) for directory in request.agent_directories]
    told = b"\0".join([index.names_digest, who, *paths, b"", *refused])
    return blake2b(told, digest_size=DIGEST_BYTES).hexdigest().encode()


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
    """What is known of this Install, of which `asked_by` has answered this, if it leaves nearly everything as it is."""
    header = records.header
    if header is None or records.cleanup is None or not header.asked == asked != NOT_REPEATABLE:
        return None
    sections = Sections(records.listed)
    try:
        recorded = None if others.are_installing() else recorded_directories(request, sections, index, places)
        if recorded is None:
            return None
        checks = AsLeft(recorded, sections, index, places)
        answers = survey.look_at_all(checks.look_at, len(recorded.paths), index.size)
    except (OSError, DifferentError):
        return None  # planning will meet that again, and say it
    if None in answers:
        return None
    repetition = Repetition(
        file_count=0,
        changed=[],
        recorded=recorded,
        states={},
        header=header,
        cleanup=records.cleanup,
        listed=sections,
        mount_points=records.mount_points,
        written_ns=records.written_ns,
    )
    file_count = 0
    for number, answer in enumerate(answers):
        if isinstance(answer, Difference):
            file_count += answer.unchanged
            _add(repetition, recorded.at(number), answer)
        else:
            file_count += answer or 0
    return replace(repetition, file_count=file_count)


def _add(repetition: Repetition, place: RecordedDirectory, difference: Difference) -> None:
    """Note what is different in this directory."""
    if difference.state:
        repetition.states[place.path] = StateNow(difference.state, difference.is_lasting)
    if not difference.found or place.source is None:
        return
    text, states = repetition.listed.text(place.path), states_in(difference.found)
    lines = text.split(b"\n")[:-1]
    if difference.unchanged:
        lines = [line for line, state in zip(lines, states, strict=True) if state != UNCHANGED]
        states = array("Q", [state for state in states if state != UNCHANGED])
    split = [line.rpartition(b" ") for line in lines]
    names = [spelled for _fields, _space, spelled in split]
    if b"%" in text:
        names = [unescape(name) for name in names]
    # What is listed as a link is one in the archive, too, or this is no repetition.
    links = frozenset(name for name, line in zip(names, lines, strict=True) if line.startswith(b"l "))
    known = {name: item[0] for name, item in zip(names, split, strict=True)} if difference.unchanged else None
    repetition.changed.append(ChangedFiles(place.path, place.source, names, links, known, states.tobytes()))
