"""What an Install will do, found out before anything changes."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from agent.deployments.group_files import GroupFiles
from agent.errors import CommandFailure
from agent.install.attributes import Assignment, Attributes, PermissionProblem, resolve_attributes
from agent.install.conflicts import Conflict, behavior_of, conflicts_failure
from agent.install.destinations import Destinations, Directory, NotADirectory, Standing
from agent.install.previous import Previous, read_previous
from agent.install.removals import Removal, planned_removals
from agent.install.selinux import labels_to_set
from agent.install.sources import MAX_DEPTH, SourceFile, SourceProblem, source_entries
from agent.logs import get_logger
from agent.protocol import FileExistsBehavior

if TYPE_CHECKING:
    from agent.appspec import FileMapping
    from agent.install.request import InstallRequest

log = get_logger()


class Action(Enum):
    """What happens at a file's destination."""

    CREATE = "create"
    REPLACE = "replace"
    """Something is there that is ours, or is to be overwritten; it stays if it is equal already."""


class PlannedFile(NamedTuple):
    """A file or link to install; its name is the same in the archive. There are very many."""

    directory: Directory
    name: bytes
    source_directory: bytes
    is_link: bool
    action: Action

    @property
    def source(self) -> bytes:
        """Path in the archive."""
        return self.source_directory + b"/" + self.name

    @property
    def path(self) -> bytes:
        """Path at the destination."""
        return self.directory.inner(self.name)


Step: TypeAlias = Directory | PlannedFile


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallPlan:
    """Everything that an Install will do.

    Attributes:
        steps: directories that are created (or are ours already) and files, in the order of the AppSpec.
        attributes: index of a step → what `permissions` gives to it.
        retained: paths of others that stay, because of RETAIN.
        removals: files of the previous revision that go.
        kept: files of the previous revision that somebody changed, so they stay.
        leftover_directories: directories that earlier Installs created and this one does not
            need: they go if they are empty then, innermost first.
        previous: what the plan is based on.
    """

    steps: list[Step]
    attributes: dict[int, Attributes]
    retained: list[bytes]
    removals: list[Removal]
    kept: list[bytes]
    leftover_directories: list[bytes]
    previous: Previous = field(repr=False)


def plan_install(request: InstallRequest) -> InstallPlan:
    """The plan; nothing is changed.

    Raises:
        CommandFailure: `install-source-invalid`, `install-conflicts`, `permissions-invalid`,
            `install-records-unreadable`, or `install-failed` when something can't be looked at.
    """
    files = GroupFiles(directory=request.instructions_directory, group_id=request.group_id)
    previous = read_previous(files)
    planner = _Planner(request, previous)
    try:
        planner.plan_files()
        planner.raise_problems()
        attributes = planner.assign_attributes()
        removals, kept = planned_removals(previous, planner.planned_names, planner.destinations)
    except OSError as error:
        path = os.fsdecode(error.filename or b"")
        message = (
            f"Install can't be planned, because {path} can't be looked at: {error.strerror}. Nothing was changed."
            " Mend the cause and deploy again."
        )
        raise CommandFailure("install-failed", message) from error
    leftover = [real for real in previous.directories if real not in planner.destinations.by_real]
    return InstallPlan(
        steps=planner.steps,
        attributes=attributes,
        retained=planner.retained,
        removals=removals,
        kept=kept,
        leftover_directories=sorted(leftover, key=len, reverse=True),
        previous=previous,
    )


class _Planner:
    """Walks the `files` section, and collects steps and conflicts."""

    def __init__(self, request: InstallRequest, previous: Previous) -> None:
        self.steps: list[Step] = []
        self.retained: list[bytes] = []
        self.planned_names: dict[bytes, set[bytes]] = {}
        self.destinations = Destinations(previous)
        self._request = request
        self._previous = previous
        self._archive = os.fsencode(request.archive)
        self._behavior = behavior_of(request)[0]
        self._conflicts: list[Conflict] = []
        self._source_problems: list[str] = []
        self._seen: set[bytes] = {b"/"}
        self._refused: set[bytes] = set()

    def plan_files(self) -> None:
        for mapping in self._request.appspec.files:
            try:
                self._plan_mapping(mapping)
            except SourceProblem as problem:
                self._source_problems.append(str(problem))

    def raise_problems(self) -> None:
        if self._source_problems:
            message = (
                f"The files section can't be installed, and nothing was changed: {'; '.join(self._source_problems)}."
                " Correct the AppSpec or add what is missing to the revision."
            )
            raise CommandFailure("install-source-invalid", message)
        if self._conflicts:
            raise conflicts_failure(self._request, self._conflicts)

    def assign_attributes(self) -> dict[int, Attributes]:
        problems: list[str] = []
        resolved = []
        for permission in self._request.appspec.permissions:
            try:
                resolved.append(resolve_attributes(permission))
            except PermissionProblem as problem:
                problems.append(str(problem))
        assignment = Assignment(resolved, self.planned_names)
        found = {} if assignment.is_empty else self._assigned(assignment, problems)
        problems += assignment.problems
        problems += labels_to_set(found.values())
        if problems:
            message = f"The permissions section can't be applied, and nothing was changed: {'; '.join(problems[:50])}."
            raise CommandFailure("permissions-invalid", message)
        return found

    def _assigned(self, assignment: Assignment, problems: list[str]) -> dict[int, Attributes]:
        found: dict[int, Attributes] = {}
        for index, step in enumerate(self.steps):
            if isinstance(step, Directory):
                attributes = assignment.of_directory(step)
            else:
                attributes = assignment.of_file(step.directory, step.name)
                if attributes and step.is_link and self._request.options.reject_symlink_permission_targets:
                    problems.append(
                        f"{os.fsdecode(step.path)} is a link, and reject_symlink_permission_targets is set"
                    )
            if attributes is not None:
                found[index] = attributes
        return found

    def _plan_mapping(self, mapping: FileMapping) -> None:
        destination = os.path.abspath(mapping.destination.encode("utf-8", "surrogateescape"))
        if destination.startswith(b"//"):
            destination = destination[1:]
        if not mapping.destination.startswith("/"):
            log.warning(
                "relative_destination", destination=mapping.destination, used=os.fsdecode(destination)
            )
        if destination.count(b"/") > MAX_DEPTH:
            raise SourceProblem(
                f"destination {mapping.destination[:200]!r}… is more than {MAX_DEPTH} directories deep"
            )
        follow_links = self._request.options.follow_directory_symlinks
        below, directory = b"", self._directory(destination)
        for entry in source_entries(self._archive, mapping, follow_links=follow_links):
            if entry.below != below:
                below = entry.below
                directory = self._directory(destination.rstrip(b"/") + b"/" + below if below else destination)
            if isinstance(entry, SourceFile) and directory is not None:
                self._plan_file(directory, entry)

    def _directory(self, path: bytes) -> Directory | None:
        """The directory, planned with all that is missing above it; None when that is impossible."""
        try:
            directory = self.destinations.directory(path)
        except NotADirectory as error:
            if error.path not in self._refused:
                self._refused.add(error.path)
                status = os.stat(error.path, follow_symlinks=False)
                reason = f"{_kind(status)} where a directory must be"
                self._conflicts.append(Conflict(path=error.path, reason=reason, status=status))
            return None
        self._plan_directory(directory)
        return directory

    def _plan_directory(self, directory: Directory) -> None:
        if directory.real in self._seen or directory.parent is None:
            return
        self._seen.add(directory.real)
        self._plan_directory(directory.parent)
        name = directory.real.rpartition(b"/")[2]
        if name in self.planned_names.get(directory.parent.real, ()):
            reason = "the AppSpec installs a file there, and also a directory"
            self._conflicts.append(Conflict(path=directory.path, reason=reason))
        if directory.standing is not Standing.FOREIGN:
            self.steps.append(directory)

    def _plan_file(self, directory: Directory, entry: SourceFile) -> None:
        name = entry.name
        names = self.planned_names.setdefault(directory.real, set())
        real = directory.real.rstrip(b"/") + b"/" + name
        if name in names or real in self._seen:
            what = "a directory" if real in self._seen else "from two sources"
            reason = (
                f"the AppSpec installs it {what}" if name in names else f"the AppSpec needs {what} there, too"
            )
            self._conflicts.append(Conflict(path=directory.inner(name), reason=reason))
            return
        action = Action.CREATE
        if directory.standing is not Standing.NEW:
            decided = self._decide(directory, name, real)
            if decided is None:
                return
            action = decided
        names.add(name)
        self.steps.append(PlannedFile(directory, name, entry.directory, entry.is_link, action))

    def _decide(self, directory: Directory, name: bytes, real: bytes) -> Action | None:
        """What to do with a file in a directory that is there; None when it is not installed."""
        try:
            status = os.lstat(real)
        except FileNotFoundError:
            return Action.CREATE
        is_directory = stat.S_ISDIR(status.st_mode)
        if self.destinations.is_ours(real) if is_directory else self._previous.owns(directory.real, name):
            return Action.REPLACE
        path = directory.inner(name)
        if self._behavior is FileExistsBehavior.RETAIN:
            self.retained.append(path)
            return None
        if is_directory:
            conflict = Conflict(path=path, reason="a directory where a file must be", status=status)
        elif self._behavior is FileExistsBehavior.OVERWRITE:
            return Action.REPLACE
        else:
            conflict = Conflict(
                path=path, reason=f"{_kind(status)} that is there already", status=status, is_by_rule=True
            )
        self._conflicts.append(conflict)
        return None


def _kind(status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return "a link"
    return "a file" if stat.S_ISREG(status.st_mode) else "a special file"
