"""Why a path can't be installed, in words: what is there, and which entries of the AppSpec ask for it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from agent.install.posix.open_directories import NOT_THERE
from agent.install.posix.places import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.appspec import FileMapping
    from agent.install.model.directory import Directory
    from agent.install.posix.places import Places, Resolved


AGENTS_OWN = "the agent's own"

_MOST_LISTED = 20


def listed(problems: Sequence[str]) -> str:
    """The first of these, and how many more there are: a report has room for so many."""
    more = len(problems) - _MOST_LISTED
    return "; ".join(problems[:_MOST_LISTED]) + (f"; and {more} more of this kind" if more > 0 else "")


class Origin(NamedTuple):
    """What the AppSpec wants at a path, and for which entry of its `files` section.

    Attributes:
        mapping: that entry.
        source: what is to be copied, without links above it; empty for a directory that something else needs.
        path: where it goes, as the AppSpec spells it.
    """

    mapping: FileMapping
    source: bytes
    path: bytes

    def told(self, archive: bytes) -> str:
        """Its source in the archive, and the line."""
        source = os.fsdecode(self.source[len(archive) + 1 :]) if self.source else self.mapping.source
        return f"{source!r} (AppSpec line {self.mapping.line})"


class _Files(NamedTuple):
    mapping: FileMapping
    directory: Directory
    source: bytes
    names: list[bytes]


class Origins:
    """Knows what each planned file and directory comes from. Nothing is looked up until it is asked for.

    Args:
        archive: path of the archive.
        places: of this Install.
    """

    def __init__(self, archive: bytes, places: Places) -> None:
        self._archive = archive
        self._places = places
        self._files: dict[bytes, list[_Files]] = {}
        self._directories: dict[bytes, tuple[FileMapping, bytes]] = {}

    def add_files(
        self, mapping: FileMapping, directory: Directory, names: list[bytes], source: bytes
    ) -> None:
        """For this entry these names, of that directory of the archive, go there."""
        self._files.setdefault(directory.real, []).append(_Files(mapping, directory, source, names))

    def add_directory(self, mapping: FileMapping, directory: Directory) -> None:
        """For this entry this directory is needed."""
        self._directories.setdefault(directory.real, (mapping, directory.path))

    def twice(self, mapping: FileMapping, directory: Directory, name: bytes, source: bytes) -> str:
        """Why this name of that directory of the archive can't go there for an entry: something else is planned there."""
        asked = Origin(mapping, source + b"/" + name, directory.inner(name))
        known = self._named(directory.real, name)
        if known:
            return self._of_two_files(known[0], asked)
        other, path = self._directories[directory.real.rstrip(b"/") + b"/" + name]
        return self._of_file_and_directory(asked, Origin(other, b"", path))

    def again(self, directory: Directory, name: bytes) -> str:
        """Why a name that was added twice can't go there."""
        known = self._named(directory.real, name)
        return self._of_two_files(known[0], known[-1])

    def file_and_directory(self, mapping: FileMapping, directory: Directory) -> str:
        """Why this directory can't be made for an entry: a file was added in its place."""
        above, _slash, name = directory.real.rpartition(b"/")
        file = self._named(above or b"/", name)[0]
        return self._of_file_and_directory(file, Origin(mapping, b"", directory.path))

    def _of_two_files(self, one: Origin, other: Origin) -> str:
        text = f"the AppSpec installs it twice: from {self._told(one)} and from {self._told(other)}"
        return text + _through_links(self._places, one.path, other.path)

    def _of_file_and_directory(self, file: Origin, directory: Origin) -> str:
        text = (
            f"the AppSpec installs a file there, from {self._told(file)}, and needs a directory there, for"
            f" {self._told(directory)}"
        )
        return text + _through_links(self._places, file.path, directory.path)

    def _named(self, real: bytes, name: bytes) -> list[Origin]:
        """All that have this name."""
        return [
            Origin(mapping, source + b"/" + name, directory.inner(name))
            for mapping, directory, source, names in self._files.get(real, ())
            if name in names
        ]

    def _told(self, origin: Origin) -> str:
        return origin.told(self._archive)


def no_directory(found: Resolved, status: os.stat_result, places: Places) -> str:
    """Why there can't be a directory here.

    Args:
        found: what was there when it was resolved.
        status: of what is there now.
        places: of this Install.
    """
    if found.kind is not Kind.LINK:
        return f"{kind_of(status)} where a directory must be"
    reason = "a link where a directory must be"
    target = _target(found.real, places)
    if target is None:
        return f"{reason}; somebody has replaced it since it was looked at"
    if found.why_not:
        return f"{reason}: it leads to {target}, and it is not followed, because {found.why_not}"
    return f"{reason}: it leads to {target}, which is {_end_of(found.real, places)}"


def there_already(path: bytes, status: os.stat_result, places: Places) -> str:
    """What is there that this group has not installed, where a file must be.

    Args:
        path: without links above it.
        status: of what is there.
        places: of this Install.
    """
    if stat.S_ISDIR(status.st_mode):
        return "a directory where a file must be"
    reason = f"{kind_of(status)} that is there already"
    return f"{reason}, {_leading(path, places)}" if stat.S_ISLNK(status.st_mode) else reason


def not_as_left(path: bytes) -> str:
    """Why something in a directory of ours, which the AppSpec spells like that, keeps it from giving way to a file."""
    return (
        f"it is in the directory {os.fsdecode(path)}, where a file must be, and is not as this group left it"
    )


def kind_of(status: os.stat_result) -> str:
    """What it is, with its article."""
    if stat.S_ISLNK(status.st_mode):
        return "a link"
    return "a file" if stat.S_ISREG(status.st_mode) else "a special file"


def _through_links(places: Places, *paths: bytes) -> str:
    """The links on the way to these paths, which lead to one place."""
    links: dict[bytes, str] = {}
    for path in paths:
        above = path.rpartition(b"/")[0]
        while above:
            link = places.resolve(above).link
            if link:
                links[above] = f"{os.fsdecode(above)} is a link, {_leading(link, places)}"
            above = above.rpartition(b"/")[0]
    return "".join(f"; {text}" for text in links.values())


def _leading(link: bytes, places: Places) -> str:
    """Where a link leads, in words; its path is without links above it."""
    target, own = _target(link, places), link.rpartition(b"/")[0] or b"/"
    if target is None:
        return "which somebody has replaced since it was looked at"
    end = places.resolve(link)
    if end.real == own:
        return f"to its own directory ({target})"
    if end.is_directory and own.startswith(end.real.rstrip(b"/") + b"/"):
        return f"to a directory above itself ({target})"
    return f"to {target}"


def _target(link: bytes, places: Places) -> str | None:
    """What is written in a link; None where none is there any more."""
    above, _slash, name = link.rpartition(b"/")
    try:
        return os.fsdecode(os.readlink(name, dir_fd=places.of(above or b"/")))
    except OSError:
        return None


def _end_of(link: bytes, places: Places) -> str:
    """What is where a link leads that leads to no directory."""
    above, _slash, name = link.rpartition(b"/")
    try:
        os.stat(name, dir_fd=places.of(above or b"/"))
    except OSError as error:
        if error.errno in NOT_THERE:
            return "not there (is its file system mounted?)"
        return f"not to be looked at ({error.strerror})"
    return "no directory"
