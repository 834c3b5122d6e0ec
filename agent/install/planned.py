"""What an Install will do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.archive_index import ArchiveIndex
    from agent.install.attributes import Attributes
    from agent.install.destinations import Directory
    from agent.install.previous import Previous
    from agent.install.removals import Removal
    from agent.install.repetition import Repetition


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


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallPlan:
    """Everything that an Install will do.

    Attributes:
        steps: what is created, replaced, or ours already, in the order of the AppSpec.
        retained: paths of others that stay, because of RETAIN.
        removals: files of the previous revision that go.
        kept: files of the previous revision that somebody changed, so they stay.
        given_up: those that another group has installed there, too, so they stay; and which group that is.
        leftover_directories: directories that earlier Installs created and this one does not
            need: they go if they are empty then, innermost first.
        has_attributes: whether `permissions` gives anything to any of it.
        previous: what the plan is based on.
        index: what is known of the archive.
        asked: what it comes from, as `asked_by` tells it.
        repetition: when there is one, everything stays as it is, and there are no steps.
        states: of the directories that are ours, by their real path, as `lasting_state` tells them.
        file_count: number of files and links.
        mount_points: where file systems are mounted that the destinations lie on, and that may be absent one day.
    """

    steps: list[Step]
    retained: list[bytes]
    removals: list[Removal]
    kept: list[bytes]
    given_up: dict[bytes, str]
    leftover_directories: list[bytes]
    has_attributes: bool
    previous: Previous = field(repr=False)
    index: ArchiveIndex = field(repr=False)
    asked: bytes
    states: dict[bytes, bytes] = field(repr=False)
    repetition: Repetition | None = field(default=None, repr=False)
    file_count: int
    mount_points: tuple[bytes, ...] = ()

    def attributes(self) -> Iterator[tuple[bytes, Attributes, bool]]:
        """Each path that `permissions` gives something to, what, and whether it is a directory; in order."""
        if not self.has_attributes:
            return
        for step in self.steps:
            if isinstance(step, PlannedFiles):
                prefix = step.prefix
                for name, attributes in step.attributes.items():
                    yield prefix + name, attributes, False
            elif step.attributes is not None:
                yield step.directory.path, step.attributes, True
