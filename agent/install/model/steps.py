"""What an Install will do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from agent.install.model.attributes import Attributes
    from agent.install.model.directory import Directory


@dataclass(slots=True, kw_only=True)
class PlannedFiles:
    """Files and links that come from one directory of the archive into one directory.

    There may be 100,000 files, so they are planned by the directory.

    Attributes:
        directory: where they go; their names are the same in the archive.
        source_directory: where they come from.
        names: in the order in which they are installed.
        links: names of those that are links.
        added: names at which nothing is, None = all; at the others something may be that gives way:
            it is ours, or is to be overwritten.
        number: of the first; the next name has the next number.
        attributes: name → what `permissions` gives to it.
    """

    directory: Directory
    source_directory: bytes
    names: list[bytes]
    links: frozenset[bytes]
    added: frozenset[bytes] | None
    number: int
    attributes: dict[bytes, Attributes] = field(default_factory=dict)

    @property
    def replaces(self) -> bool:
        """Whether there may be anything that gives way."""
        return self.added is not None

    def may_replace(self, name: bytes) -> bool:
        """Whether something may be there that gives way."""
        return self.added is not None and name not in self.added

    @property
    def prefix(self) -> bytes:
        """What the path of each begins with, as the AppSpec would spell it."""
        return self.directory.inner(b"")


@dataclass(slots=True, kw_only=True)
class PlannedDirectory:
    """A directory that is created, or that is ours already."""

    directory: Directory
    number: int
    attributes: Attributes | None = None


Step: TypeAlias = PlannedDirectory | PlannedFiles
