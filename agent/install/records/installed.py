"""What is ours of what is on the host: what the last Install of the group has left there."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.listings import Sections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.appspec.model import SelinuxContext

_UNKNOWN = b""


_NONE: dict[bytes, bytes] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Previous:
    """What is ours. Directories go by their real path, so that links on the way don't matter.

    Attributes:
        files: of each directory the names of what Install put there.
        directories: those that Install created, → the path under which it did so.
        labels: path → the SELinux context that Install asked for, None when not known.
        followed: links that stand by now where Install created a directory, → the directory that they lead to, which is
            not ours.
        untouched: those of the directories that hold the very names that Install left in them, and have the
            attributes that they had then, → their state.
        brought: directories that are others than those that Install has put something into, and that may have been put there
            by somebody who may not write to them.
        deployment_id: whose revision it is; empty when not known.
        doubt: as in `Records`.
    """

    files: PreviousFiles = field(default_factory=lambda: PreviousFiles(Sections(b"")))
    directories: dict[bytes, bytes] = field(default_factory=dict)
    labels: dict[bytes, SelinuxContext | None] = field(default_factory=dict)
    followed: dict[bytes, bytes] = field(default_factory=dict)
    untouched: dict[bytes, bytes] = field(default_factory=dict)
    brought: set[bytes] = field(default_factory=set)
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
        directories = ", ".join(map(os.fsdecode, sorted(self.brought)))
        brought = (
            f"Other directories than those of the last Install are there by now ({directories}), and others can move them there"
            " who can't write to them: in them, only what it has provably put there counts as this group's. If you have put them there, name them in"
            " `follow_links_of_others` of the agent's configuration."
        )
        texts = (self.doubt, moved if links else "", brought if directories else "")
        return " ".join(text for text in texts if text)

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

    def spellings(self) -> Iterator[tuple[bytes, bytes]]:
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
