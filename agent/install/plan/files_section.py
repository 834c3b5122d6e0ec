"""Planning the `files` section: what goes where, and what is in the way of it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from agent.install.model.directory import Directory, Standing
from agent.install.model.steps import PlannedDirectory, PlannedFiles
from agent.install.plan.clearance import Clearance
from agent.install.plan.destinations import Destinations
from agent.install.plan.reasons import Origins
from agent.install.plan.rule import Action, Found, rule_of
from agent.install.revision.sources import (
    MAX_DEPTH,
    SourceFiles,
    SourceProblem,
    destination_of,
    source_entries,
)
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agent.appspec import FileMapping
    from agent.archive_index import ArchiveIndex
    from agent.install.compare.other_groups import OtherGroups
    from agent.install.model.request import InstallRequest
    from agent.install.model.steps import Step
    from agent.install.plan.conflicts import Obstacle
    from agent.install.posix.places import Places
    from agent.install.records.installed import Previous
    from agent.install.revision.sources import SourceEntry

log = get_logger()

_LONGEST_PATH = 4095
_LONGEST_NAME = 255
_NO_NAMES: set[bytes] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSection:
    """What the `files` section comes to.

    Attributes:
        steps: what is created, replaced, or ours already, in the order of the AppSpec.
        names: of the files and links among them, by the real path of their directory.
        clearance: what is in the way, and what others have and stays.
        destinations: the directories.
        problems: what is wrong with the section itself, as sentences without their end.
    """

    steps: list[Step] = field(default_factory=list)
    names: dict[bytes, set[bytes]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    clearance: Clearance
    destinations: Destinations

    @property
    def obstacles(self) -> list[Obstacle]:
        """What is in the way."""
        return self.clearance.obstacles

    def needs(self, directory: bytes, name: bytes) -> bool:
        """Whether it needs that name, or has met it; a directory by its real path."""
        return (
            directory.rstrip(b"/") + b"/" + name in self.destinations.by_real
            or name in self.names.get(directory, ())
            or self.clearance.has_met(directory, name)
        )


def plan_section(
    request: InstallRequest,
    previous: Previous,
    index: ArchiveIndex,
    others: OtherGroups,
    places: Places,
    *,
    entries_of: Callable[[FileMapping], Iterable[SourceEntry]] | None = None,
) -> PlannedSection:
    """All of the section; what is wrong is part of the answer.

    Args:
        request: what is to be installed.
        previous: what is ours.
        index: of the archive.
        others: the other groups.
        places: of this Install.
        entries_of: what of the archive an entry of `files` copies, a directory before what is in it; None = all that it says.

    Raises:
        OSError: something can't be looked at.
    """
    behavior = rule_of(request).behavior
    origins = Origins(os.fsencode(request.archive), places)
    agents_own = (request.instructions_directory, *request.agent_directories)
    destinations = Destinations(behavior, previous, others, places, agents_own)
    clearance = Clearance(behavior, previous, destinations, places, origins)
    section = PlannedSection(clearance=clearance, destinations=destinations)
    walk = _Walk(previous, origins, section)
    if entries_of is None:
        follows, archive = request.options.follow_directory_symlinks, os.fsencode(request.archive)
        entries_of = partial(source_entries, archive, index, follow_links=follows)
    for mapping in request.appspec.files:
        try:
            walk.plan(mapping, entries_of(mapping))
        except SourceProblem as problem:
            section.problems.append(str(problem))
    return section


class _Walk:
    """Goes through the entries, and adds what they want to the section."""

    def __init__(self, previous: Previous, origins: Origins, section: PlannedSection) -> None:
        self._previous = previous
        self._origins = origins
        self._section = section
        self._clearance = section.clearance
        self._planned: set[bytes] = set()
        self._directories_in: dict[bytes, set[bytes]] = {}
        self._next_number = 0

    def plan(self, mapping: FileMapping, entries: Iterable[SourceEntry]) -> None:
        """Add all that one entry wants of these.

        Raises:
            SourceProblem: it is wrong in itself.
        """
        destination = destination_of(mapping)
        if not mapping.destination.startswith("/"):
            log.warning(
                "relative_destination", destination=mapping.destination, used=os.fsdecode(destination)
            )
        if destination.count(b"/") > MAX_DEPTH:
            raise SourceProblem(
                f"destination {mapping.destination[:200]!r}… (AppSpec line {mapping.line}) is more than {MAX_DEPTH}"
                " directories deep; choose another one"
            )
        below, directory = b"", self._directory(mapping, destination)
        for entry in entries:
            if entry.below != below:
                below = entry.below
                path = destination.rstrip(b"/") + b"/" + below if below else destination
                directory = self._directory(mapping, path)
            if isinstance(entry, SourceFiles) and directory is not None:
                self._plan_files(mapping, directory, entry)

    def _directory(self, mapping: FileMapping, path: bytes) -> Directory | None:
        """The directory, planned with all that is missing above it; None when that is impossible."""
        _check_length(path)
        directory = self._clearance.directory(path)
        if directory is not None:
            self._plan_directory(mapping, directory)
        return directory

    def _plan_directory(self, mapping: FileMapping, directory: Directory) -> None:
        if directory.parent is None or directory.real in self._planned:
            return
        self._planned.add(directory.real)
        above, _slash, name = directory.real.rpartition(b"/")
        self._directories_in.setdefault(above or b"/", set()).add(name)
        self._origins.add_directory(mapping, directory)
        self._plan_directory(mapping, directory.parent)
        parent = directory.parent.real
        if name in self._section.names.get(parent, ()) or self._clearance.has_met(parent, name):
            self._clearance.directory_beside_file(mapping, directory, name)
        if directory.standing is not Standing.USED_BY_OTHERS:
            self._section.steps.append(PlannedDirectory(directory=directory, number=self._next_number))
            self._next_number += 1

    def _plan_files(self, mapping: FileMapping, directory: Directory, entry: SourceFiles) -> None:
        names = self._without_planned(mapping, directory, entry)
        self._origins.add_files(mapping, directory, names, entry.directory)
        names, added = self._cleared(directory, names)
        if not names:
            return
        longest = max(directory.path, directory.real, key=len)
        if len(longest) + _LONGEST_NAME >= _LONGEST_PATH:
            _check_length(longest + b"/" + max(names, key=len))
        self._section.names.setdefault(directory.real, set()).update(names)
        step = PlannedFiles(
            directory=directory,
            source_directory=entry.directory,
            names=names,
            links=entry.links,
            added=added,
            number=self._next_number,
        )
        self._next_number += len(names)
        self._section.steps.append(step)

    def _without_planned(self, mapping: FileMapping, directory: Directory, entry: SourceFiles) -> list[bytes]:
        """The names without those in whose place something else is planned, which are obstacles."""
        planned = self._section.names.get(directory.real, _NO_NAMES)
        directories = self._directories_in.get(directory.real, _NO_NAMES)
        if planned.isdisjoint(entry.names) and directories.isdisjoint(entry.names):
            return entry.names
        clashing = {name for name in entry.names if name in planned or name in directories}
        for name in sorted(clashing):
            found = Found.PLANNED_FILE if name in planned else self._planned_directory(directory, name)
            self._clearance.planned_before(mapping, directory, name, entry.directory, found)
        return [name for name in entry.names if name not in clashing]

    def _planned_directory(self, directory: Directory, name: bytes) -> Found:
        """What kind of planned directory has this name in another one."""
        inner = self._section.destinations.by_real[directory.real.rstrip(b"/") + b"/" + name]
        is_foreign = inner.standing is Standing.USED_BY_OTHERS
        return Found.PLANNED_DIRECTORY_OF_OTHERS if is_foreign else Found.PLANNED_DIRECTORY

    def _cleared(
        self, directory: Directory, names: list[bytes]
    ) -> tuple[list[bytes], frozenset[bytes] | None]:
        """Which of the names are installed; and those that replace nothing, None = all of them.

        Only where others may have something, each name is looked at. A directory that is NEW holds nothing, so that
        the rule adds all. One that is OURS holds what the last Install left, and nothing else, so that it adds or
        replaces all, but for directories, which may hold what has to stay.
        """
        if directory.standing is Standing.NEW:
            return names, None
        if directory.standing is Standing.OURS:
            inner = self._section.destinations.ours_in(directory.real)
            known = self._previous.files.of(directory.real)
            if not inner.isdisjoint(names):
                names = [name for name in names if name not in inner or self._clearance.file(directory, name)]
            return names, frozenset(names).difference(known, inner) if known or inner else None
        installed, added = [], []
        for name in names:
            action = self._clearance.file(directory, name)
            if action is Action.ADD:
                added.append(name)
            if action is not None:
                installed.append(name)
        return installed, None if len(added) == len(installed) else frozenset(added)


def _check_length(path: bytes) -> None:
    # Beyond that, no other program could open it.
    if len(path) > _LONGEST_PATH:
        raise SourceProblem(
            f"the destination {os.fsdecode(path)} is too long: it has {len(path)} bytes, and {_LONGEST_PATH} are possible;"
            " choose a shorter one in the AppSpec, or shorter names in the revision"
        )
