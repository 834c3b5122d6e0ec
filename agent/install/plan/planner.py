"""What an Install will do, found out before anything changes."""

from __future__ import annotations

import os
import stat
from contextlib import closing
from typing import TYPE_CHECKING

from agent.archive_index import ArchiveIndex
from agent.deployments.group_files import GroupFiles
from agent.errors import CommandFailure, HostNotReady
from agent.install.attributes.permissions import Assignment, PermissionProblem, log_unused, resolve_attributes
from agent.install.attributes.selinux import labels_to_set
from agent.install.compare.other_groups import OtherGroups
from agent.install.compare.repetition import asked_by, find_repetition
from agent.install.model.directory import Directory, Standing
from agent.install.model.steps import PlannedDirectory, PlannedFiles
from agent.install.plan.conflicts import Cause, Obstacle, conflicts_of, rule_of
from agent.install.plan.destinations import Destinations, Impassable
from agent.install.plan.mounted import check_mounted, mount_points_of
from agent.install.plan.plan import InstallPlan
from agent.install.plan.reasons import Origins, listed, no_directory, there_already
from agent.install.plan.removals import planned_removals
from agent.install.posix.link_rule import link_rule
from agent.install.posix.places import PlaceChanged, Places
from agent.install.posix.protection import remedy_for
from agent.install.records.installed import Previous
from agent.install.records.previous import previous_of, read_records
from agent.install.revision.sources import (
    MAX_DEPTH,
    SourceFiles,
    SourceProblem,
    destination_of,
    source_entries,
)
from agent.logs import get_logger
from agent.protocol import FileExistsBehavior

if TYPE_CHECKING:
    from agent.appspec import FileMapping
    from agent.install.compare.repetition import Repetition
    from agent.install.compare.survey import Survey
    from agent.install.model.attributes import Attributes
    from agent.install.model.request import InstallRequest
    from agent.install.model.steps import Step

log = get_logger()

_LONGEST_PATH = 4095
_LONGEST_NAME = 255
_NO_NAMES: set[bytes] = set()


class PlanOvertaken(CommandFailure):
    """Somebody has replaced or removed a directory while the Install was planned: it may work when it is planned again."""


def places_of(request: InstallRequest) -> Places:
    """No place is resolved yet. To be closed in the end."""
    return Places(link_rule(request.instructions_directory, request.options.follow_links_of_others))


def plan_install(
    request: InstallRequest,
    places: Places | None = None,
    *,
    survey: Survey | None = None,
    trusts_states: bool = True,
) -> InstallPlan:
    """The plan; nothing is changed.

    Args:
        request: what to install.
        places: from `places_of`, for whoever goes on with the plan; everything is resolved once, and now.
        survey: begun as early as possible.
        trusts_states: whether directories of ours are not listed that are in the state that they were left in.

    Raises:
        InstallConflicts: something is in the way.
        PlanOvertaken: somebody changes directories meanwhile.
        InstallOverlap: another group is currently installing something where this one is to be, such as the directory
            above both.
        CommandFailure: `install-source-invalid`, `permissions-invalid`, `install-records-unreadable`,
            `install-journal-unreadable`, or `install-failed` when something can't be looked at.
    """
    if places is None:
        with closing(places_of(request)) as own:
            return plan_install(request, own, survey=survey, trusts_states=trusts_states)
    plan = _plan(request, places, survey, trusts_states=trusts_states)
    for path, group_id in plan.given_up.items():
        log.warning("file_of_other_group_kept", path=os.fsdecode(path), group_id=group_id)
    return plan


def _plan(
    request: InstallRequest, places: Places, survey: Survey | None, *, trusts_states: bool
) -> InstallPlan:
    files = GroupFiles(directory=request.instructions_directory, group_id=request.group_id)
    others = OtherGroups(files.directory, files.group_id, places)
    records, index = read_records(files), ArchiveIndex(request.archive)
    asked = asked_by(request, index)
    if survey is not None and trusts_states:
        repetition = find_repetition(
            request, asked, records, index, others=others, places=places, survey=survey
        )
        if repetition is not None:
            return _plan_of_nothing(repetition, index, asked)
    try:
        previous = previous_of(records, places)
        check_mounted(files, records, previous)
        if not trusts_states:
            previous.untouched.clear()
        if survey is not None:
            survey.begin(request, index, previous.files)
        planner = _Planner(request, previous, index, places, others)
        planner.plan_files()
        others.check_overlap(planner.concerns)
        planner.raise_problems()
        planner.assign_attributes()
        removals, kept, given_up = planned_removals(
            previous, planner.planned_names, planner.destinations, others, places
        )
    except OSError as error:
        path = os.fsdecode(error.filename or b"")
        message = (
            f"Install can't be planned, because {path} can't be looked at: {error.strerror}. Nothing was changed."
            f" {remedy_for(path, error)}, and deploy again."
        )
        failure = PlanOvertaken if isinstance(error, PlaceChanged) else CommandFailure
        raise failure("install-failed", message) from error
    leftover = [real for real in previous.directories if real not in planner.destinations.by_real]
    return InstallPlan(
        steps=planner.steps,
        retained=planner.retained,
        removals=removals,
        kept=kept,
        given_up=given_up,
        leftover_directories=sorted(leftover, key=len, reverse=True),
        has_attributes=planner.has_attributes,
        previous=previous,
        index=index,
        asked=asked,
        states=planner.destinations.states,
        file_count=sum(len(step.names) for step in planner.steps if isinstance(step, PlannedFiles)),
        mount_points=mount_points_of(planner.steps),
    )


def _plan_of_nothing(repetition: Repetition, index: ArchiveIndex, asked: bytes) -> InstallPlan:
    return InstallPlan(
        steps=[],
        retained=[],
        removals=[],
        kept=[],
        given_up={},
        leftover_directories=[],
        has_attributes=False,
        previous=Previous(),
        index=index,
        asked=asked,
        states={},
        repetition=repetition,
        file_count=repetition.file_count,
    )


class _Planner:
    """Walks the `files` section, and collects steps and conflicts."""

    def __init__(
        self,
        request: InstallRequest,
        previous: Previous,
        index: ArchiveIndex,
        places: Places,
        others: OtherGroups,
    ) -> None:
        self.steps: list[Step] = []
        self.retained: list[bytes] = []
        self.planned_names: dict[bytes, set[bytes]] = {}
        self.destinations = Destinations(
            previous, others, places, (request.instructions_directory, *request.agent_directories)
        )
        self._request = request
        self._previous = previous
        self._index = index
        self._places = places
        self._others = others
        self._archive = os.fsencode(request.archive)
        self._behavior = rule_of(request).behavior
        self._obstacles: list[Obstacle] = []
        self._source_problems: list[str] = []
        self._directories_in: dict[bytes, set[bytes]] = {}
        self._planned_directories: set[bytes] = set()
        self._assigned: dict[int, Attributes] = {}
        self._refused: set[bytes] = set()
        self._turned_away: dict[bytes, set[bytes]] = {}
        self._origins = Origins(self._archive)
        self._next_number = 0

    @property
    def has_attributes(self) -> bool:
        """Whether `permissions` gives anything to anything."""
        return bool(self._assigned)

    def plan_files(self) -> None:
        for mapping in self._request.appspec.files:
            try:
                self._plan_mapping(mapping)
            except SourceProblem as problem:
                self._source_problems.append(str(problem))

    def concerns(self, directory: bytes, name: bytes) -> bool:
        """Whether this Install needs or removes that name, or has met it; a directory by its real path."""
        return (
            directory.rstrip(b"/") + b"/" + name in self.destinations.by_real
            or name in self.planned_names.get(directory, ())
            or name in self._turned_away.get(directory, ())
            or self._previous.owns(directory, name)
        )

    def raise_problems(self) -> None:
        if self._source_problems:
            message = f"The files section can't be installed, and nothing was changed: {listed(self._source_problems)}."
            raise CommandFailure("install-source-invalid", message)
        if self._obstacles:
            raise conflicts_of(self._request, self._obstacles, self._others, self._previous.doubts)

    def assign_attributes(self) -> None:
        problems: list[str] = []
        resolved = []
        for permission in self._request.appspec.permissions:
            try:
                resolved.append(resolve_attributes(permission))
            except PermissionProblem as problem:
                problems.append(str(problem))
        assignment = Assignment(resolved, self.planned_names, self._places)
        if not assignment.is_empty:
            self._assign(assignment, problems)
        problems += assignment.problems
        problems += labels_to_set(self._assigned.values())
        if problems:
            message = (
                f"The permissions section can't be applied, and nothing was changed: {listed(problems)}."
            )
            raise HostNotReady("permissions-invalid", message)
        log_unused(found for found in resolved if id(found) not in self._assigned)

    def _assign(self, assignment: Assignment, problems: list[str]) -> None:
        refuses_links = self._request.options.reject_symlink_permission_targets
        for step in self.steps:
            if isinstance(step, PlannedDirectory):
                attributes = assignment.of_directory(step.directory)
                if attributes is not None:
                    step.attributes = self._assigned[id(attributes)] = attributes
                continue
            for name in step.names:
                attributes = assignment.of_file(step.directory, name)
                if attributes is None:
                    continue
                step.attributes[name] = self._assigned[id(attributes)] = attributes
                if refuses_links and name in step.links:
                    problems.append(
                        f"{os.fsdecode(step.prefix + name)} is a link, which the entry in AppSpec line"
                        f" {attributes.permission.line} matches, and reject_symlink_permission_targets is set on this host;"
                        " leave the link out of the entry with pattern or except"
                    )

    def _plan_mapping(self, mapping: FileMapping) -> None:
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
        follow_links = self._request.options.follow_directory_symlinks
        self._origins.begin(mapping)
        below, directory = b"", self._directory(destination)
        for entry in source_entries(self._archive, self._index, mapping, follow_links=follow_links):
            if entry.below != below:
                below = entry.below
                directory = self._directory(destination.rstrip(b"/") + b"/" + below if below else destination)
            if isinstance(entry, SourceFiles) and directory is not None:
                self._plan_entries(directory, entry)

    def _directory(self, path: bytes) -> Directory | None:
        """The directory, planned with all that is missing above it; None when that is impossible."""
        _check_length(path)
        try:
            directory = self.destinations.directory(path)
        except Impassable as error:
            if error.path not in self._refused:
                self._refused.add(error.path)
                self._obstacles.append(self._impassable(path, error))
            return None
        self._plan_directory(directory)
        return directory

    def _impassable(self, asked: bytes, error: Impassable) -> Obstacle:
        """Why there can't be a directory at this path."""
        found = error.found
        if error.is_agents_own:
            where = "it is" if asked == error.path else f"it lies in {os.fsdecode(error.path)}, which is"
            return Obstacle(path=asked, reason=f"{where} the agent's own", cause=Cause.AGENT, real=found.real)
        status = self._status(found.real)
        cause = Cause.LINK if found.why_not else Cause.KIND
        reason = no_directory(found, status)
        return Obstacle(path=error.path, reason=reason, cause=cause, real=found.real, status=status)

    def _plan_directory(self, directory: Directory) -> None:
        if directory.parent is None:
            return
        if directory.real in self._planned_directories:
            return
        self._planned_directories.add(directory.real)
        above, _slash, name = directory.real.rpartition(b"/")
        self._directories_in.setdefault(above or b"/", set()).add(name)
        self._origins.add_directory(directory)
        self._plan_directory(directory.parent)
        if name in self.planned_names.get(directory.parent.real, ()):
            reason = self._origins.file_and_directory(directory)
            self._obstacles.append(
                Obstacle(path=directory.path, reason=reason, cause=Cause.APPSPEC, real=directory.real)
            )
        if directory.standing is not Standing.FOREIGN:
            self.steps.append(PlannedDirectory(directory=directory, number=self._next_number))
            self._next_number += 1

    def _plan_entries(self, directory: Directory, entry: SourceFiles) -> None:
        names: list[bytes] = entry.names
        added: frozenset[bytes] | None = None
        planned = self.planned_names.setdefault(directory.real, set())
        directories = self._directories_in.get(directory.real, _NO_NAMES)
        if not (planned.isdisjoint(names) and directories.isdisjoint(names)):
            clashing = {name for name in names if name in planned or name in directories}
            names = [name for name in names if name not in clashing]
            for name in sorted(clashing):
                reason = self._origins.twice(directory, name, entry.directory)
                self._obstacles.append(
                    Obstacle(
                        path=directory.inner(name),
                        reason=reason,
                        cause=Cause.APPSPEC,
                        real=directory.real.rstrip(b"/") + b"/" + name,
                    )
                )
        self._origins.add_files(directory, names, entry.directory)
        if directory.standing is Standing.OURS:
            # Whatever is in it is ours.
            inner = self.destinations.ours_in(directory.real)
            if not inner.isdisjoint(names):
                names = [name for name in names if name not in inner or self._gives_way(directory, name)]
            known = self._previous.files.of(directory.real)
            if known or inner:
                added = frozenset(names).difference(known, inner)
        elif directory.standing is Standing.FOREIGN:
            names, added = self._decided(directory, names)
        if not names:
            return
        longest = max(directory.path, directory.real, key=len)
        if len(longest) + _LONGEST_NAME >= _LONGEST_PATH:
            _check_length(longest + b"/" + max(names, key=len))
        planned.update(names)
        step = PlannedFiles(
            directory=directory,
            source_directory=entry.directory,
            names=names,
            links=entry.links,
            added=added,
            number=self._next_number,
        )
        self._next_number += len(names)
        self.steps.append(step)

    def _decided(
        self, directory: Directory, names: list[bytes]
    ) -> tuple[list[bytes], frozenset[bytes] | None]:
        """Which of the names are installed in a directory that holds things of others; those that replace nothing."""
        installed, added = [], []
        for name in names:
            replaces = self._decide(directory, name)
            if replaces is not None:
                installed.append(name)
                if not replaces:
                    added.append(name)
        return installed, None if len(added) == len(installed) else frozenset(added)

    def _decide(self, directory: Directory, name: bytes) -> bool | None:
        """Whether a file replaces something; None when it is not installed."""
        real = directory.real.rstrip(b"/") + b"/" + name
        try:
            status = self._status(real)
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(status.st_mode):
            return True if self._gives_way(directory, name) else None
        if self._previous.owns(directory.real, name) or self._behavior is FileExistsBehavior.OVERWRITE:
            return True
        reason = there_already(real, status)
        obstacle = Obstacle(
            path=directory.inner(name), reason=reason, real=real, status=status, cause=Cause.RULE
        )
        self._turn_away(directory, name, [obstacle])
        return None

    def _status(self, real: bytes) -> os.stat_result:
        """Of what is there, without links above it."""
        above, _slash, name = real.rpartition(b"/")
        return self._places.entry(above or b"/", name)

    def _gives_way(self, directory: Directory, name: bytes) -> bool:
        """Whether the directory of this name can go for a file; it is turned away where that is not so."""
        path, real = directory.inner(name), directory.real.rstrip(b"/") + b"/" + name
        if real not in self._previous.directories:
            reason = "a directory where a file must be"
            self._turn_away(
                directory,
                name,
                [Obstacle(path=path, reason=reason, cause=Cause.KIND, real=real, status=self._status(real))],
            )
            return False
        blockers = self.destinations.blockers(real)
        if blockers:
            reason = f"it is in the directory {os.fsdecode(path)}, where a file must be, and is not as this group left it"
            obstacles = [
                Obstacle(path=inner, reason=reason, cause=Cause.KIND, real=inner, status=self._status(inner))
                for inner in blockers
            ]
            self._turn_away(directory, name, obstacles)
        return not blockers

    def _turn_away(self, directory: Directory, name: bytes, obstacles: list[Obstacle]) -> None:
        """Something of others is there, and stays."""
        path, names = directory.inner(name), self._turned_away.setdefault(directory.real, set())
        is_again = name in names
        names.add(name)
        if self._behavior is FileExistsBehavior.RETAIN:
            if not is_again:
                self.retained.append(path)
        elif is_again:
            # Nobody is to learn of that only when the file has been moved away.
            self._obstacles.append(
                Obstacle(
                    path=path,
                    reason=self._origins.again(directory, name),
                    cause=Cause.APPSPEC,
                    real=directory.real.rstrip(b"/") + b"/" + name,
                )
            )
        else:
            self._obstacles += obstacles


def _check_length(path: bytes) -> None:
    # Beyond that, no other program could open it.
    if len(path) > _LONGEST_PATH:
        raise SourceProblem(
            f"the destination {os.fsdecode(path)} is too long: it has {len(path)} bytes, and {_LONGEST_PATH} are possible;"
            " choose a shorter one in the AppSpec, or shorter names in the revision"
        )
