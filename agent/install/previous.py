"""What the previous Install of a group created, as far as it is still there."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from agent.deployments.group_files import GroupFiles
from agent.errors import CommandFailure
from agent.install.install_json import instructions_digest
from agent.install.moved import MovedDirectory, add_moved
from agent.install.real_paths import NOT_THERE, RealPaths, TrustedLinks, trusted_links
from agent.install.records import (
    LABEL_PREFIX,
    NOT_REPEATABLE,
    UNKNOWN_STATE,
    decode_header,
    state_of_record,
    take_labels,
    take_mount_points,
)
from agent.listings import Sections, stream_digest
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import FileIO
    from pathlib import Path

    from agent.appspec import SelinuxContext
    from agent.install.records import ManifestHeader

log = get_logger()

_UNKNOWN = b""
_LONGEST_HEADER = 32 * 1024
_NONE: dict[bytes, bytes] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Previous:
    """What is ours. Directories go by their real path, so that links on the way don't matter.

    Attributes:
        files: of each directory the names of what Install put there.
        directories: those that Install created, → the path under which it did so.
        labels: path → the SELinux context that Install asked for, None when not known.
        swapped: directories that Install created, and where a link stands by now that is not followed, → why not.
        followed: the same where the link is followed, → the directory that it leads to, which is not ours.
        untouched: those of the directories that hold the very names that Install left in them, and have the
            attributes that they had then, → their state.
        deployment_id: whose revision it is; empty when not known.
        doubt: as in `Records`.
    """

    files: PreviousFiles = field(default_factory=lambda: PreviousFiles(Sections(b"")))
    directories: dict[bytes, bytes] = field(default_factory=dict)
    labels: dict[bytes, SelinuxContext | None] = field(default_factory=dict)
    swapped: dict[bytes, str] = field(default_factory=dict)
    followed: dict[bytes, bytes] = field(default_factory=dict)
    untouched: dict[bytes, bytes] = field(default_factory=dict)
    deployment_id: str = ""
    doubt: str = ""

    @property
    def doubts(self) -> str:
        """Sentences about what may be ours, but does not count as that; empty when there is no such thing."""
        links = ", ".join(os.fsdecode(link) for link in sorted(self.followed))
        moved = (
            f"Links stand by now where the last Install had made directories ({links}): behind them, only what it has"
            " provably put there counts as this group's."
        )
        return " ".join(text for text in (self.doubt, moved if links else "") if text)

    def owns(self, directory: bytes, name: bytes) -> bool:
        """Whether the previous Install put a file or link there."""
        return name in self.files.of(directory)


class PreviousFiles:
    """Names of files and links by directory, and how Install left each: the fields of its manifest line.

    The fields are empty when another agent wrote the cleanup file, so that nothing but the name is known.
    """

    def __init__(self, sections: Sections) -> None:
        self._sections = sections
        self._paths: dict[bytes, list[bytes]] = {}
        self._others: dict[bytes, dict[bytes, bytes]] = {}

    def add_section(self, real: bytes, path: bytes) -> None:
        """What was listed for this path is in that directory."""
        paths = self._paths.setdefault(real, [])
        if path not in paths:
            paths.append(path)

    def add_name(self, real: bytes, name: bytes, fields: bytes = _UNKNOWN) -> None:
        """There is a name that is not listed for any path, or differently, and this is known of it."""
        self._others.setdefault(real, {})[name] = fields

    def directories(self) -> Iterator[bytes]:
        """Real paths of all directories that have such names."""
        yield from self._paths
        yield from self._others.keys() - self._paths.keys()

    def places(self) -> Iterator[tuple[bytes, bytes]]:
        """Path and real path of all directories of which more than names may be known."""
        for real, paths in self._paths.items():
            for path in paths:
                yield path, real

    def taken(self) -> PreviousFiles:
        """All of it; afterwards there is nothing here."""
        taken = PreviousFiles(self._sections)
        taken._paths, taken._others = self._paths, self._others
        self._sections, self._paths, self._others = Sections(b""), {}, {}
        return taken

    def of(self, real: bytes) -> dict[bytes, bytes]:
        """Name → fields, for this directory."""
        paths = self._paths.get(real)
        others = self._others.get(real, _NONE) if self._others else _NONE
        if paths is None:
            return others
        if len(paths) == 1 and not others:
            return self._sections.of(paths[0])
        listed = {name: fields for path in paths for name, fields in self._sections.of(path).items()}
        return others | listed


class Records(NamedTuple):
    """What a group's files tell of its last Install.

    Attributes:
        cleanup: content of the cleanup file; None when there is none.
        header: of the manifest, if that is about the same Install; else None.
        listed: the lines of that manifest, but for those about mount points.
        mount_points: where file systems were mounted that it has installed something on.
        doubt: a sentence about what they should tell, and don't; empty when they tell all.
    """

    cleanup: bytes | None
    header: ManifestHeader | None
    listed: bytes
    mount_points: tuple[bytes, ...] = ()
    doubt: str = ""


def read_records(files: GroupFiles) -> Records:
    """What the cleanup file, and the manifest if it fits, tell.

    Raises:
        CommandFailure: `install-records-unreadable`.
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
        raise CommandFailure("install-records-unreadable", message) from error
    return records


def _has_installed(files: GroupFiles) -> bool:
    """Whether anything but the cleanup file tells of an Install of this group."""
    return files.instructions.exists() or files.manifest.exists()


def previous_of(records: Records, directory: Path) -> Previous:
    """The same, beside what is there by now.

    Args:
        records: of the group.
        directory: where they lie.

    Raises:
        OSError: something can't be looked at, so that nobody knows whether it is still there.
    """
    if records.cleanup is None:
        return Previous(doubt=records.doubt)
    if records.header is None:
        return _from_cleanup(records.cleanup, trusted_links(directory))
    return _from_manifest(records.header, records.listed, trusted_links(directory))


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
    return Records(cleanup, header, listed, points)


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
    count = listed.count(b"\n") - listed.count(b"\nd - - ") - listed.startswith(b"d - - ")
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


def _from_manifest(header: ManifestHeader, listed: bytes, links: TrustedLinks) -> Previous:
    labels, lines = take_labels(listed)
    sections = Sections(lines)
    directories = sections.directories()
    places = RealPaths({path: fields[2:] for fields, path in directories if fields.startswith(b"c")}, links)
    previous = Previous(
        files=PreviousFiles(sections),
        labels=labels,
        swapped=places.swapped,
        followed=places.followed,
        untouched=places.untouched,
        deployment_id=os.fsdecode(header.deployment_id),
    )
    moved: dict[bytes, MovedDirectory] = {}
    for fields, path in directories:
        real, is_created = places.of(path), fields.startswith(b"c")
        if real is None:
            continue
        if places.is_moved(path):
            is_link = real in places.followed.values()
            found = moved.setdefault(path, MovedDirectory(path=path, real=real, is_created=False))
            found.is_created = found.is_created or (is_created and not is_link)
            continue
        if is_created:
            previous.directories[real] = path
        previous.files.add_section(real, path)
    add_moved(previous, sections, list(moved.values()))
    return previous


def _from_cleanup(cleanup: bytes, links: TrustedLinks) -> Previous:
    """Another agent's list says only paths; what they are, the list and the file system tell.

    What a directory held that was moved behind a link since, nobody can tell from what else is there.
    """
    above = _directories_above(cleanup)
    # Whatever stands there now: it was a directory when something was put below it.
    places = RealPaths({path: b"" for path in _paths(cleanup) if path in above}, links)
    previous = Previous(swapped=places.swapped, followed=places.followed)
    for line in _lines(cleanup):
        if line.startswith(LABEL_PREFIX):
            previous.labels[line[len(LABEL_PREFIX) :]] = None
        elif not line.startswith(b"/") or b"\0" in line:
            # A name with a newline yields such lines, and a power failure; following them would delete anywhere.
            log.warning("cleanup_line_ignored", line=repr(line))
    for path in _paths(cleanup):
        directory, _slash, name = path.rpartition(b"/")
        parent = places.of(directory)
        if parent is None or places.is_moved(directory):
            continue
        try:
            mode = os.lstat(parent.rstrip(b"/") + b"/" + name).st_mode
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise
            continue
        if path not in above and not stat.S_ISDIR(mode):
            previous.files.add_name(parent, name)
            continue
        real = places.of(path)
        if real is not None and not places.is_moved(path):
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
