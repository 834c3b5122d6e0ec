"""What an Install will do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.install.model.steps import PlannedFiles, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.archive_index import ArchiveIndex
    from agent.install.compare.repetition import Repetition
    from agent.install.model.attributes import Attributes
    from agent.install.plan.removals import Removal
    from agent.install.records.installed import Previous


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallPlan:
    """Everything that an Install will do.

    Attributes:
        steps: what is created, replaced, or ours already, in the order of the AppSpec.
        foreign: paths of others that stay, because of RETAIN.
        removals: files of the previous revision that go.
        edited: files of the previous revision that somebody changed, so they stay.
        shared: those that another group has installed there, too, so they stay; and which group that is.
        outdated_directories: directories that earlier Installs created and this one does not
            need: they go if they are empty then, innermost first.
        has_attributes: whether `permissions` gives anything to any of it.
        previous: what the plan is based on.
        index: what is known of the archive.
        asked: what it comes from, as `asked_by` tells it.
        repetition: when there is one, everything that the steps do not name stays as it is, and no name comes or goes.
        states: of the directories that are ours, by their real path, as `lasting_state` tells them.
        file_count: number of files and links.
        mount_points: where file systems are mounted that the destinations lie on, and that may be absent one day.
    """

    steps: list[Step]
    foreign: list[bytes]
    removals: list[Removal]
    edited: list[bytes]
    shared: dict[bytes, str]
    outdated_directories: list[bytes]
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
