"""What the previous Install of a group created, as far as it is still there."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from agent.deployments.group_files import GroupFiles
from agent.errors import HostNotReady
from agent.files import is_there
from agent.install.records.brought import BroughtDirectories
from agent.install.records.install_json import instructions_digest
from agent.install.records.installed import Previous, PreviousFiles
from agent.install.records.manifest import (
    LABEL_PREFIX,
    NOT_REPEATABLE,
    UNKNOWN_STATE,
    decode_header,
    state_of_record,
    take_labels,
    take_mount_points,
)
from agent.install.records.moved import MovedDirectory, add_moved
from agent.install.records.recorded_places import RecordedPlaces
from agent.listings import Sections, stream_digest
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import FileIO
    from pathlib import Path

    from agent.install.posix.places import Places
    from agent.install.records.manifest import ManifestHeader

log = get_logger()

_LONGEST_HEADER = 32 * 1024


class Records(NamedTuple):
    """What a group's files tell of its last Install.

    Attributes:
        cleanup: content of the cleanup file; None when there is none.
        header: of the manifest, if that is about the same Install; else None.
        listed: the lines of that manifest, but for those about mount points.
        mount_points: where file systems were mounted that it has installed something on.
        doubt: a sentence about what they should tell, and don't; empty when they tell all.
        written_ns: when the manifest was written, in ns since the epoch.
    """

    cleanup: bytes | None
    header: ManifestHeader | None
    listed: bytes
    mount_points: tuple[bytes, ...] = ()
    doubt: str = ""
    written_ns: int = 0


def read_records(files: GroupFiles) -> Records:
    """What the cleanup file, and the manifest if it fits, tell.

    Raises:
        HostNotReady: `install-records-unreadable`.
    """
    try:
        records = fitting_records(files)
        if records.cleanup is None and _has_installed(files):
            log.warning("cleanup_file_missing", path=str(files.cleanup))
            return records._replace(
                doubt=f"What the last Install of this group has put there is not known, because {files.cleanup} is not there, so"
                " its files count as somebody else's."
            )
    except OSError as error:
        message = (
            f"What the last Install of this deployment group created can't be read from {error.filename!r}:"
            f" {error.strerror}. Nothing was changed. Make the file readable and deploy again; if it is lost, remove"
            f" {files.cleanup}: the files of the last Install are somebody else's then, and stay where they are."
        )
        raise HostNotReady("install-records-unreadable", message) from error
    return records


def _has_installed(files: GroupFiles) -> bool:
    """Whether anything but the cleanup file tells of an Install of this group."""
    return is_there(files.instructions) or is_there(files.manifest)


def previous_of(records: Records, places: Places) -> Previous:
    """What the records tell, beside what is there by now.

    Args:
        records: of the group.
        places: of this Install.

    Raises:
        OSError: something can't be looked at, so that nobody knows whether it is still there.
    """
    if records.cleanup is None:
        return Previous(doubt=records.doubt)
    if records.header is None:
        return _from_cleanup(records.cleanup, places)
    return _from_manifest(records, records.header, places)


def installed_deployment(instructions_directory: Path, group_id: str) -> str:
    """Id of the deployment whose Install has last taken effect in this group; empty when that is not known.

    It is not where another agent has installed something since, or nobody has. An Install whose
    records are not published yet, since it was interrupted, does not count.

    Raises:
        OSError: a record can't be read.
    """
    files = GroupFiles(directory=instructions_directory, group_id=group_id)
    try:
        with open(files.manifest, "rb") as manifest:
            header = decode_header(manifest.readline(_LONGEST_HEADER))
    except FileNotFoundError:
        return ""
    if header is None or not _is_about(header, files):
        return ""
    return os.fsdecode(header.deployment_id)


def fitting_records(files: GroupFiles) -> Records:
    """The cleanup file, and the manifest if it is about the last Install.

    Without a cleanup file, the group has no claims any more: whoever wants that removes it.

    Raises:
        OSError: a record can't be read.
    """
    cleanup = _content(files.cleanup)
    if cleanup is None:
        return Records(None, None, b"")
    manifest = _content(files.manifest)
    if manifest is None:
        return Records(cleanup, None, b"")
    line, end, listed = manifest.partition(b"\n")
    header = decode_header(line + end)
    if header is None or not _is_about(header, files):
        return Records(cleanup, None, b"")
    points, listed = take_mount_points(listed)
    if not _is_whole(listed, cleanup):
        log.warning("manifest_cut_off", path=str(files.manifest))
        return Records(cleanup, None, b"")
    if listed and not cleanup.endswith(b"\n"):
        # It has to be written anew.
        header = header._replace(asked=NOT_REPEATABLE)
    written_ns = os.stat(files.manifest).st_mtime_ns
    return Records(cleanup, header, listed, points, written_ns=written_ns)


def _is_about(header: ManifestHeader, files: GroupFiles) -> bool:
    """Whether it belongs to both: another agent that installs the same paths again writes the same cleanup file.

    A cleanup file that breaks off was written by no agent that has gone on to write the instructions anew, as each
    does: it was damaged, and the manifest still says what it has lost.
    """
    return (
        _is_same(files.cleanup, header.cleanup, header.cleanup_state, stream_digest)
        or _is_cut_off(files.cleanup)
    ) and _is_same(
        files.instructions,
        header.instructions,
        header.instructions_state,
        lambda stream: instructions_digest(stream, header.archive),
    )


def _is_same(path: Path, digest: bytes, state: bytes, digest_of: Callable[[FileIO], bytes]) -> bool:
    """Whether this file is in that state, or has a content with that digest."""
    try:
        with open(path, "rb", buffering=0) as stream:
            now = state_of_record(os.fstat(stream.fileno()))
            return (now == state != UNKNOWN_STATE) or digest_of(stream) == digest
    except FileNotFoundError:
        return False


def _is_cut_off(cleanup: Path) -> bool:
    """Whether this file has lost its end, or all that was in it."""
    content = _content(cleanup)
    if content is None or content.endswith(b"\n"):
        return False
    log.warning("cleanup_file_cut_off", path=str(cleanup))
    return True


def _is_whole(listed: bytes, cleanup: bytes) -> bool:
    """Whether a manifest names as much as the cleanup file of the same Install. Names with newlines only it names."""
    count = listed.count(b"\n") - listed.count(b"\nd - ") - listed.startswith(b"d - ")
    return count >= cleanup.count(b"\n")


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _lines(content: bytes) -> Iterator[bytes]:
    """Lines without their ends; a last line without one is unfinished, and left out."""
    start = 0
    while (end := content.find(b"\n", start)) >= 0:
        yield content[start:end]
        start = end + 1


def _from_manifest(records: Records, header: ManifestHeader, places: Places) -> Previous:
    labels, lines = take_labels(records.listed)
    sections = Sections(lines)
    directories = sections.directories()
    created = {path: fields[2:] for fields, path in directories if fields.startswith(b"c")}
    states = {path: fields[2:] for fields, path in directories}
    recorded = RecordedPlaces(created, places, BroughtDirectories(states, records.written_ns, places))
    previous = Previous(
        files=PreviousFiles(sections),
        labels=labels,
        followed=recorded.followed,
        untouched=recorded.untouched,
        brought=recorded.brought,
        deployment_id=os.fsdecode(header.deployment_id),
    )
    moved: dict[bytes, MovedDirectory] = {}
    for fields, path in directories:
        real, is_created = recorded.of(path), fields.startswith(b"c")
        if real is None:
            continue
        if recorded.is_moved(path):
            is_other = real in recorded.followed.values() or recorded.is_brought(path)
            found = moved.setdefault(path, MovedDirectory(path=path, real=real, is_created=False))
            found.is_created = found.is_created or (is_created and not is_other)
            continue
        if is_created:
            previous.directories[real] = path
        previous.files.add_section(real, path)
    add_moved(previous, sections, list(moved.values()), places)
    return previous


def _from_cleanup(cleanup: bytes, places: Places) -> Previous:
    """Another agent's list says only paths; what they are, the list and the file system tell.

    What a directory held that was moved behind a link since, nobody can tell from what else is there.
    """
    above = _directories_above(cleanup)
    # Whatever stands there now: it was a directory when something was put below it.
    recorded = RecordedPlaces({path: b"" for path in _paths(cleanup) if path in above}, places)
    previous = Previous(followed=recorded.followed)
    for line in _lines(cleanup):
        if line.startswith(LABEL_PREFIX):
            previous.labels[line[len(LABEL_PREFIX) :]] = None
        elif not line.startswith(b"/") or b"\0" in line:
            # A name with a newline yields such lines, and a power failure; following them would delete anywhere.
            log.warning("cleanup_line_ignored", line=repr(line))
    for path in _paths(cleanup):
        directory, _slash, name = path.rpartition(b"/")
        parent = recorded.of(directory)
        if parent is None or recorded.is_moved(directory):
            continue
        status = places.find(parent, name)
        if status is None:
            continue
        if path not in above and not stat.S_ISDIR(status.st_mode):
            previous.files.add_name(parent, name)
            continue
        real = recorded.of(path)
        if real is not None and not recorded.is_moved(path):
            previous.directories[real] = path
    return previous


def _paths(cleanup: bytes) -> Iterator[bytes]:
    """The paths of files, links and directories in it, in order."""
    for line in _lines(cleanup):
        path = line.rstrip(b"/")
        if path.startswith(b"/") and b"\0" not in path:
            yield path


def _directories_above(cleanup: bytes) -> set[bytes]:
    """The directories that something in it lies in, or below."""
    above: set[bytes] = set()
    for path in _paths(cleanup):
        directory = path.rpartition(b"/")[0]
        while directory and directory not in above:
            above.add(directory)
            directory = directory.rpartition(b"/")[0]
    return above
