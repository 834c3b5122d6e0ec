"""What the previous Install of a group created, as far as it is still there."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.appspec import SelinuxContext
from agent.deployments.group_files import GroupFiles
from agent.errors import CommandFailure
from agent.install.records import LABEL_PREFIX, MANIFEST_HEADER
from agent.listings import Sections, content_digest, stream_digest, unescape
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = get_logger()

_UNKNOWN = b""
_LONGEST_HEADER = 4096
_NONE: dict[bytes, bytes] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Previous:
    """What is ours. Directories go by their real path, so that links on the way don't matter.

    Attributes:
        files: of each directory the names of what Install put there.
        directories: those that Install created, → the path under which it did so.
        labels: path → the SELinux context that Install asked for, None when not known.
        swapped: directories that Install created, and where a link stands by now.
        deployment_id: whose revision it is; empty when not known.
    """

    files: PreviousFiles = field(default_factory=lambda: PreviousFiles(Sections(b"")))
    directories: dict[bytes, bytes] = field(default_factory=dict)
    labels: dict[bytes, SelinuxContext | None] = field(default_factory=dict)
    swapped: set[bytes] = field(default_factory=set)
    deployment_id: str = ""

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

    def add_name(self, real: bytes, name: bytes) -> None:
        """There is a name of which nothing else is known."""
        self._others.setdefault(real, {})[name] = _UNKNOWN

    def directories(self) -> Iterator[bytes]:
        """Real paths of all directories that have such names."""
        yield from self._paths
        yield from self._others

    def taken(self) -> PreviousFiles:
        """All of it; afterwards there is nothing here."""
        taken = PreviousFiles(self._sections)
        taken._paths, taken._others = self._paths, self._others
        self._sections, self._paths, self._others = Sections(b""), {}, {}
        return taken

    def of(self, real: bytes) -> dict[bytes, bytes]:
        """Name → fields, for this directory."""
        paths = self._paths.get(real)
        if paths is None:
            return self._others.get(real, _NONE)
        if len(paths) == 1:
            return self._sections.of(paths[0])
        return {name: fields for path in paths for name, fields in self._sections.of(path).items()}


def read_previous(files: GroupFiles) -> Previous:
    """What the cleanup file, and the manifest if it fits, tell.

    Raises:
        CommandFailure: `install-records-unreadable`.
    """
    try:
        cleanup = _content(files.cleanup)
        manifest = fitting_manifest(files, cleanup)
    except OSError as error:
        message = (
            f"What the last Install of this deployment group created can't be read from {error.filename!r}:"
            f" {error.strerror}. Make the file readable, or remove it to give up all claims on those files."
        )
        raise CommandFailure("install-records-unreadable", message) from error
    if cleanup is None:
        return Previous()
    return _from_cleanup(cleanup) if manifest is None else _from_manifest(manifest)


def installed_deployment(instructions_directory: Path, group_id: str) -> str:
    """Id of the deployment whose Install has last taken effect in this group; empty when that is not known.

    It is not where another agent has installed something since, or nobody has. An Install whose
    records are not published yet, since it was interrupted, does not count.

    Raises:
        OSError: a record can't be read.
    """
    files = GroupFiles(directory=instructions_directory, group_id=group_id)
    cleanup = _content(files.cleanup)
    try:
        with open(files.manifest, "rb") as manifest:
            header = manifest.readline(_LONGEST_HEADER)
    except FileNotFoundError:
        return ""
    if cleanup is None or not header.endswith(b"\n") or not _is_about(header, files, cleanup):
        return ""
    return _deployment_id(header)


def fitting_manifest(files: GroupFiles, cleanup: bytes | None) -> bytes | None:
    """The manifest, if it is about the same Install as this cleanup file and as the instructions.

    Raises:
        OSError: a record can't be read.
    """
    if cleanup is None:
        return None
    manifest = _content(files.manifest)
    return manifest if manifest is not None and _is_about(manifest, files, cleanup) else None


def _is_about(manifest: bytes, files: GroupFiles, cleanup: bytes) -> bool:
    """Whether it belongs to both: another agent that installs the same paths again writes the same cleanup file."""
    begin = MANIFEST_HEADER + content_digest(cleanup) + b" "
    if not manifest.startswith(begin):
        return False
    try:
        with open(files.instructions, "rb", buffering=0) as instructions:
            return manifest.startswith(begin + stream_digest(instructions) + b" ")
    except FileNotFoundError:
        return False


def _deployment_id(header: bytes) -> str:
    return os.fsdecode(unescape(header.rstrip(b"\n").rpartition(b" ")[2]))


def _content(path: os.PathLike[str]) -> bytes | None:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def _lines(content: bytes) -> Iterator[bytes]:
    """Lines without their ends; a last line without one is unfinished, and left out."""
    start = 0
    while (end := content.find(b"\n", start)) >= 0:
        yield content[start:end]
        start = end + 1


def _from_manifest(manifest: bytes) -> Previous:
    header, _end, lines = manifest.partition(b"\n")
    labels, lines = _taken_labels(lines)
    sections = Sections(lines)
    directories = list(sections.directories())
    places = RealPaths({path for kind, path in directories if kind == b"c"})
    previous = Previous(
        files=PreviousFiles(sections),
        labels=labels,
        swapped=places.swapped,
        deployment_id=_deployment_id(header),
    )
    for kind, path in directories:
        real = places.of(path)
        if real is None:
            continue
        if kind == b"c":
            previous.directories[real] = path
        previous.files.add_section(real, path)
    return previous


def _taken_labels(lines: bytes) -> tuple[dict[bytes, SelinuxContext | None], bytes]:
    """The labels, which stand at the end, and the rest."""
    labels: dict[bytes, SelinuxContext | None] = {}
    while (start := lines.rfind(b"\n", 0, -1) + 1) < len(lines) and lines.startswith(b"s ", start):
        path, context = _label(lines[start:-1])
        labels[path] = context
        lines = lines[:start]
    return dict(reversed(labels.items())), lines


def _label(line: bytes) -> tuple[bytes, SelinuxContext]:
    _kind, type_name, user, level, path = line.split(b" ")
    context = SelinuxContext(
        type=type_name.decode(),
        user=None if user == b"-" else user.decode(),
        range=None if level == b"-" else level.decode(),
    )
    return unescape(path), context


def _from_cleanup(cleanup: bytes) -> Previous:
    """Another agent's list says only paths; what they are, the list and the file system tell."""
    above = _directories_above(cleanup)
    # Whatever stands there now: it was a directory when something was put below it.
    places = RealPaths({path for path in _paths(cleanup) if path in above})
    previous = Previous(swapped=places.swapped)
    for line in _lines(cleanup):
        if line.startswith(LABEL_PREFIX):
            previous.labels[line[len(LABEL_PREFIX) :]] = None
        elif not line.startswith(b"/"):
            # A name with a newline yields such lines; following them would delete anywhere.
            log.warning("cleanup_line_ignored", line=repr(line))
    for path in _paths(cleanup):
        directory, _slash, name = path.rpartition(b"/")
        parent = places.of(directory)
        if parent is None:
            continue
        try:
            mode = os.lstat(parent.rstrip(b"/") + b"/" + name).st_mode
        except OSError:
            continue
        if path not in above and not stat.S_ISDIR(mode):
            previous.files.add_name(parent, name)
            continue
        real = places.of(path)
        if real is not None:
            previous.directories[real] = path
    return previous


def _paths(cleanup: bytes) -> Iterator[bytes]:
    """The paths of files, links and directories in it, in order."""
    for line in _lines(cleanup):
        path = line.rstrip(b"/")
        if path.startswith(b"/"):
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


class RealPaths:
    """Real paths of directories, each component looked at once.

    A link among the components that are not ours is followed: it was there when Install wrote
    below it. A directory that Install created itself must still be one: somebody who swapped it
    for a link would otherwise choose what we delete.

    Args:
        created: the directories that Install created, all of them before any is looked at.

    Attributes:
        swapped: real paths of those where a link stands by now.
    """

    def __init__(self, created: set[bytes]) -> None:
        self._known: dict[bytes, bytes | None] = {b"/": b"/", b"": b"/"}
        self._created = created
        self.swapped: set[bytes] = set()

    def of(self, path: bytes) -> bytes | None:
        """Real path of a directory; None when it is none any more."""
        if path in self._known:
            return self._known[path]
        real = self._look(path)
        self._known[path] = real
        return real

    def _look(self, path: bytes) -> bytes | None:
        parent_path, _slash, name = path.rpartition(b"/")
        parent = self.of(parent_path)
        if parent is None:
            return None
        real = parent.rstrip(b"/") + b"/" + name
        try:
            mode = os.lstat(real).st_mode
            if stat.S_ISLNK(mode) and path not in self._created:
                real = os.path.realpath(real)
                mode = os.lstat(real).st_mode
        except OSError:
            return None
        if stat.S_ISDIR(mode):
            return real
        if path in self._created:
            if stat.S_ISLNK(mode):
                self.swapped.add(real)
            log.warning("created_directory_is_gone", path=os.fsdecode(path), is_link=stat.S_ISLNK(mode))
        return None
