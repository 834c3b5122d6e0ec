"""What the `files` section wants copied: the entries of the deployment archive, in order."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from agent.archive_index import DIRECTORY, LINK, UNKNOWN
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from agent.appspec import FileMapping
    from agent.archive_index import ArchiveIndex


log = get_logger()

MAX_DEPTH = 200

_NONE: frozenset[bytes] = frozenset()
_SPECIAL = b"?"
_OTHERS = frozenset([LINK, DIRECTORY, _SPECIAL])


class SourceProblem(Exception):
    """An entry of `files` can't be copied; the message says which, and why."""


class Placement(NamedTuple):
    """Where an entry of `files` puts a directory of the archive.

    Attributes:
        source: the directory in the archive.
        destination: where it goes, as an absolute path.
    """

    source: bytes
    destination: bytes

    def sources_of(self, paths: Collection[bytes]) -> dict[bytes, bytes]:
        """Path → what goes there, for those of the paths that are the destination, or below."""
        below, inner = self.destination.rstrip(b"/") + b"/", self.source + b"/"
        length = len(below)
        sources = {path: inner + path[length:] for path in paths if path.startswith(below)}
        if self.destination in paths:
            sources[self.destination] = self.source
        return sources


class SourceFiles(NamedTuple):
    """Files and links of one directory of the archive, sorted.

    Attributes:
        below: path of the directory under the destination.
        directory: path of the directory in the archive.
        names: of all of them.
        links: names of those that are links.
    """

    below: bytes
    directory: bytes
    names: list[bytes]
    links: frozenset[bytes]


class SourceDirectory(NamedTuple):
    """A directory of the archive; empty `below` is the one that the entry names."""

    below: bytes


SourceEntry: TypeAlias = SourceFiles | SourceDirectory


def source_entries(
    archive: bytes, index: ArchiveIndex, mapping: FileMapping, *, follow_links: bool
) -> Iterator[SourceEntry]:
    """Everything that one entry of `files` copies: a directory before what is in it, names sorted.

    A source that is itself a link to a directory of the archive stands for that directory, as in the existing agents.

    Args:
        archive: path of the archive.
        index: what was found out about it; directories that it knows are not listed again.
        mapping: the entry.
        follow_links: copy what links to directories below the source lead to, as if it was there.

    Raises:
        SourceProblem: it is not there, leads out of the archive, or holds a device or the like.
    """
    path = source_path(archive, mapping.source)
    status = _status(archive, index, path, mapping)
    above = _NONE
    if stat.S_ISLNK(status.st_mode):
        if os.path.isdir(path):
            _check_inside(archive, path, mapping)
            status, above = os.stat(path), frozenset([os.path.realpath(path)])
        else:
            _check_dangling(archive, path, mapping)
    if stat.S_ISDIR(status.st_mode):
        real = _in_archive(archive, path)
        if real != path:
            index.add_alias(path, real)
        walk = _Walk(archive, index, mapping, follow_links=follow_links)
        walk.enter(path, b"", above)
        if not any(isinstance(item, SourceFiles) for item in walk.found):
            _check_emptied(index, path, mapping)
        yield from walk.found
        return
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
        raise _special(path)
    directory, _slash, name = path.rpartition(b"/")
    yield SourceFiles(b"", directory, [name], frozenset([name]) if stat.S_ISLNK(status.st_mode) else _NONE)


def source_path(archive: bytes, source: str) -> bytes:
    """Path of the source, spelled as the existing agents write it into install.json."""
    relative = source.encode("utf-8", "surrogateescape").strip(b"/")
    return archive + b"/" + relative if relative else archive


def placement_of(archive: bytes, mapping: FileMapping) -> Placement:
    """Where this entry puts its source, if that is a directory."""
    return Placement(source_path(archive, mapping.source), destination_of(mapping))


def destination_of(mapping: FileMapping) -> bytes:
    """Where an entry of `files` puts things, as an absolute path."""
    destination = os.path.abspath(mapping.destination.encode("utf-8", "surrogateescape"))
    return destination[1:] if destination.startswith(b"//") else destination


def _status(archive: bytes, index: ArchiveIndex, path: bytes, mapping: FileMapping) -> os.stat_result:
    # The directory above may be reached through a link of the archive; that link must stay inside.
    if path != archive:
        _check_inside(archive, os.path.dirname(path), mapping)
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceProblem(_missing(index, path, mapping)) from error


def _missing(index: ArchiveIndex, path: bytes, mapping: FileMapping) -> str:
    parent = os.path.dirname(path)
    try:
        names = sorted(os.listdir(parent))
    except OSError:
        names = []
    shown = ", ".join(repr(os.fsdecode(name)) for name in names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    there = f"; {os.fsdecode(parent)} holds {shown}{more}" if names else ""
    if index.names(path):
        there += (
            ". It was there when the revision was unpacked: a script of this deployment, or a program that tidies up,"
            " has removed it"
        )
    else:
        there += "; correct the source (upper and lower case count), or add what is missing to the revision"
    return f"source {mapping.source!r} (AppSpec line {mapping.line}) is not in the archive: there is no {os.fsdecode(path)}{there}"


def _check_inside(archive: bytes, path: bytes, mapping: FileMapping) -> None:
    real, root = os.path.realpath(path), os.path.realpath(archive)
    if real != root and not real.startswith(root + b"/"):
        message = (
            f"source {mapping.source!r} (AppSpec line {mapping.line}) leads out of the deployment archive,"
            f" through a link to {os.fsdecode(real)}; put what it leads to into the revision, or let it lead to something"
            " there"
        )
        raise SourceProblem(message)


def _check_dangling(archive: bytes, path: bytes, mapping: FileMapping) -> None:
    """Check that this link leads somewhere, or out of the archive: what is there, is for the host to have."""
    if os.path.exists(path):
        return
    real, root = os.path.realpath(path), os.path.realpath(archive)
    if real.startswith(root + b"/"):
        target = os.fsdecode(os.readlink(path))
        raise SourceProblem(
            f"source {mapping.source!r} (AppSpec line {mapping.line}) is a link to {target}, which is not in the"
            " archive; add it to the revision, or let the link lead to what is there"
        )


def _in_archive(archive: bytes, path: bytes) -> bytes:
    """The path of a directory of the archive without links, but for those on the way to the archive."""
    below = os.path.relpath(os.path.realpath(path), os.path.realpath(archive))
    return archive if below == b"." else archive + b"/" + below


def _check_emptied(index: ArchiveIndex, path: bytes, mapping: FileMapping) -> None:
    """Check that this directory, in which there are no files, has never held any."""
    count = index.files_below(path)
    if count:
        raise SourceProblem(
            f"source {mapping.source!r} (AppSpec line {mapping.line}) holds no files any more; when the revision was unpacked,"
            f" it held {count}. A script of this deployment, or a program that tidies up, has removed them: let it leave"
            f" {os.fsdecode(path)} alone until Install has ended"
        )


def _special(path: bytes) -> SourceProblem:
    return SourceProblem(
        f"{os.fsdecode(path)} is neither a file, nor a directory, nor a link; leave it out of the revision, and let a script"
        " make it where it is needed"
    )


class _Walk:
    """Everything below one directory; a list, since each level of nested generators would cost time."""

    def __init__(
        self, archive: bytes, index: ArchiveIndex, mapping: FileMapping, *, follow_links: bool
    ) -> None:
        self.found: list[SourceEntry] = []
        self._archive = archive
        self._index = index
        self._mapping = mapping
        self._follow_links = follow_links

    def enter(self, directory: bytes, below: bytes, above: frozenset[bytes]) -> None:
        """Add this directory and what is in it; `above` are the real paths of links that led here."""
        if below.count(b"/") > MAX_DEPTH:
            raise SourceProblem(
                f"directories are nested more than {MAX_DEPTH} deep in {os.fsdecode(directory[:200])}…; look for a"
                " directory that was packed into itself"
            )
        self.found.append(SourceDirectory(below))
        is_listed = self._index.lists_all(directory, os.stat(directory))
        entries = self._index.of(directory) if is_listed else self._listed(directory)
        names: list[bytes] = []
        links: list[bytes] = []
        for name in sorted(entries):
            kind = entries[name]
            if len(kind) > 1 or kind not in _OTHERS:
                names.append(name)
                continue
            path = directory + b"/" + name
            if kind == LINK and not (self._follow_links and os.path.isdir(path)):
                names.append(name)
                links.append(name)
                continue
            if names:
                self.found.append(SourceFiles(below, directory, names, frozenset(links)))
                names, links = [], []
            inner = below + b"/" + name if below else name
            if kind == _SPECIAL:
                raise _special(path)
            if kind == LINK:
                self._follow(path, inner, above)
            else:
                self.enter(path, inner, above)
        if names:
            self.found.append(SourceFiles(below, directory, names, frozenset(links)))

    def _listed(self, directory: bytes) -> dict[bytes, bytes]:
        """Name → kind of all that is in a directory now."""
        with os.scandir(directory) as entries:
            found = {entry.name: _kind(entry) for entry in entries}
        gone = self._index.of(directory).keys() - found.keys()
        if gone:
            # Scripts may leave out what this host does not need; but it may also have been a cleaner.
            log.warning(
                "archive_lacks_files",
                directory=os.fsdecode(directory),
                count=len(gone),
                first=os.fsdecode(min(gone)),
                reason="removed since the revision was unpacked",
            )
        return found

    def _follow(self, link: bytes, below: bytes, above: frozenset[bytes]) -> None:
        _check_inside(self._archive, link, self._mapping)
        real = os.path.realpath(link)
        if real in above or link.startswith(real + b"/"):
            is_own = real == os.path.realpath(os.path.dirname(link))
            where = "its own directory" if is_own else "a directory above itself"
            raise SourceProblem(
                f"the link {os.fsdecode(link)} leads to {where}, so it can't be followed; leave it out of the revision, or"
                " set follow_directory_symlinks: false on this host, so that it stays a link"
            )
        self.enter(link, below, above | {real})


def _kind(entry: os.DirEntry[bytes]) -> bytes:
    if entry.is_file(follow_symlinks=False):
        return UNKNOWN
    if entry.is_dir(follow_symlinks=False):
        return DIRECTORY
    return LINK if entry.is_symlink() else _SPECIAL
