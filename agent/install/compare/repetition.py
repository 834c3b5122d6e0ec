"""An Install that would leave everything as it is, told at once.

This is a shortcut, and no rule: what it answers, planning, comparing and applying would come to as well (I10). As soon as
anything is not as said here, or is not known, there is no repetition, and all of it is planned. What it skips, and what
allows it:

- The plan. It follows from what is asked for, from what the last Install left, from what is at the destinations and from
  other groups. What is asked for has the same digest (`asked_by`): the bundle, where it goes, and who installs. The manifest
  is about the Install that took effect last. No other group is installing.
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
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from agent.install.compare.as_left import AsLeft
from agent.install.compare.recorded_directories import DifferentError, recorded_directories
from agent.install.records.manifest import NOT_REPEATABLE, encode_mount_points
from agent.install.revision.sources import placement_of
from agent.listings import DIGEST_BYTES, Sections

if TYPE_CHECKING:
    from agent.archive_index import ArchiveIndex
    from agent.install.compare.other_groups import OtherGroups
    from agent.install.compare.survey import Survey
    from agent.install.model.request import InstallRequest
    from agent.install.posix.places import Places
    from agent.install.records.manifest import ManifestHeader
    from agent.install.records.previous import Records


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
    refused = [os.fsencode(directory) for directory in request.agent_directories]
    return (
        blake2b(b"\0".join([index.digest, who, *paths, b"", *refused]), digest_size=DIGEST_BYTES)
        .hexdigest()
        .encode()
    )


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
        recorded = recorded_directories(request, sections, index, places)
        if recorded is None:
            return None
        checks = AsLeft(recorded, sections, index, places)
        counts = survey.look_at_all(checks.count_at, len(recorded.paths), index.size)
    except (OSError, DifferentError):
        return None  # planning will meet that again, and say it
    if None in counts:
        return None
    file_count = sum(count for count in counts if count is not None)
    listed = records.listed + encode_mount_points(records.mount_points)
    return Repetition(file_count, header, records.cleanup, listed)
