"""Finding out what is where files and directories are to go, asking the rule, and keeping what stands in the way."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from agent.install.plan.conflicts import Obstacle
from agent.install.plan.destinations import Impassable
from agent.install.plan.reasons import AGENTS_OWN, no_directory, not_as_left, there_already
from agent.install.plan.rule import Action, Cause, Found, Wanted, decide

if TYPE_CHECKING:
    from agent.appspec import FileMapping
    from agent.install.model.directory import Directory
    from agent.install.plan.destinations import Destinations
    from agent.install.plan.reasons import Origins
    from agent.install.posix.places import Places
    from agent.install.records.installed import Previous
    from agent.protocol import FileExistsBehavior


class Occupant(NamedTuple):
    """What is where a file is to go.

    Attributes:
        found: its kind.
        status: of it; None where that does not matter.
        blockers: what is in the way in an OUR_DIRECTORY_IN_USE, as paths.
    """

    found: Found
    status: os.stat_result | None = None
    blockers: tuple[bytes, ...] = ()


_NOTHING, _OUR_FILE = Occupant(Found.NOTHING), Occupant(Found.OUR_FILE)  # by far the most


class Clearance:
    """Whether what is at a path lets the AppSpec have its way.

    Args:
        behavior: for what the group did not install.
        previous: what is ours.
        destinations: of this Install.
        places: of this Install.
        origins: knows where all that was planned so far comes from.

    Attributes:
        obstacles: all that is in the way.
        foreign: paths of what others have and the rule RETAIN keeps, as the AppSpec spells them.
    """

    def __init__(
        self,
        behavior: FileExistsBehavior,
        previous: Previous,
        destinations: Destinations,
        places: Places,
        origins: Origins,
    ) -> None:
        self.obstacles: list[Obstacle] = []
        self.foreign: list[bytes] = []
        self._behavior = behavior
        self._for_file = {found: decide(found, Wanted.FILE, behavior) for found in Found}
        self._previous = previous
        self._destinations = destinations
        self._places = places
        self._origins = origins
        self._met: dict[bytes, set[bytes]] = {}
        self._refused: set[bytes] = set()

    def has_met(self, directory: bytes, name: bytes) -> bool:
        """Whether a file was to have this name in a directory, by its real path, and what is there has stayed."""
        return name in self._met.get(directory, ())

    def directory(self, path: bytes) -> Directory | None:
        """The directory at this path; None when there can't be one."""
        try:
            return self._destinations.directory(path)
        except Impassable as error:
            if error.path not in self._refused:
                self._refused.add(error.path)
                self.obstacles.append(self._impassable(path, error))
            return None

    def directory_beside_file(self, mapping: FileMapping, directory: Directory, name: bytes) -> None:
        """A directory that the entry needs has this name in the one above it, where a file was planned, or was to be.

        It becomes one of the obstacles, if the rule makes it one.
        """
        above = directory.real.rpartition(b"/")[0] or b"/"
        found = Found.MET_BEFORE if self.has_met(above, name) else Found.PLANNED_FILE
        decision = decide(found, Wanted.DIRECTORY, self._behavior)
        if isinstance(decision, Cause):
            reason = self._origins.file_and_directory(mapping, directory)
            self.obstacles.append(
                Obstacle(path=directory.path, reason=reason, cause=decision, real=directory.real)
            )

    def planned_before(
        self, mapping: FileMapping, directory: Directory, name: bytes, source: bytes, found: Found
    ) -> None:
        """The entry installs a file where another one has planned something.

        Afterwards that is among the obstacles, or the file is left out.

        Args:
            mapping: the entry.
            directory: where its file goes.
            name: of it.
            source: where it comes from.
            found: PLANNED_FILE, PLANNED_DIRECTORY or PLANNED_DIRECTORY_OF_OTHERS.
        """
        decision = self._for_file[found]
        if isinstance(decision, Cause):
            reason = self._origins.twice(mapping, directory, name, source)
            self._add(directory, name, reason, decision)
        elif not self.has_met(directory.real, name):
            self._leave_out(directory, name)

    def file(self, directory: Directory, name: bytes) -> Action | None:
        """Whether a file that is to have this name in a directory is added, or replaces something; None = neither."""
        occupant = self._occupant(directory, name)
        decision = self._for_file[occupant.found]
        if decision is Action.ADD or decision is Action.REPLACE:
            return decision
        if occupant.found is not Found.MET_BEFORE and decision is Action.RETAIN:
            self._leave_out(directory, name)
            return None
        self._met.setdefault(directory.real, set()).add(name)
        if isinstance(decision, Cause):
            self._refuse(directory, name, occupant, decision)
        return None

    def _leave_out(self, directory: Directory, name: bytes) -> None:
        """What is there stays, and the file of the revision is not installed."""
        self._met.setdefault(directory.real, set()).add(name)
        self.foreign.append(directory.inner(name))

    def _occupant(self, directory: Directory, name: bytes) -> Occupant:
        """What is where a file is to go."""
        if self._met and self.has_met(directory.real, name):
            return Occupant(Found.MET_BEFORE)
        status = self._places.find(directory.real, name)
        if status is None:
            return _NOTHING
        if stat.S_ISDIR(status.st_mode):
            return self._directory_as_occupant(directory.real.rstrip(b"/") + b"/" + name, status)
        if self._previous.owns(directory.real, name):
            return _OUR_FILE
        return Occupant(Found.FOREIGN_FILE, status)

    def _directory_as_occupant(self, real: bytes, status: os.stat_result) -> Occupant:
        if self._destinations.is_agents(real):
            return Occupant(Found.AGENTS_DIRECTORY, status)
        if real not in self._previous.directories:
            return Occupant(Found.FOREIGN_DIRECTORY, status)
        blockers = tuple(self._destinations.blockers(real))
        return Occupant(Found.OUR_DIRECTORY_IN_USE if blockers else Found.OUR_DIRECTORY, status, blockers)

    def _refuse(self, directory: Directory, name: bytes, occupant: Occupant, cause: Cause) -> None:
        """There can't be a file because of what is there."""
        path, status = directory.inner(name), occupant.status
        real = directory.real.rstrip(b"/") + b"/" + name
        if status is None:
            # Nobody is to learn of that only when what is in the way of both has been moved away.
            self._add(directory, name, self._origins.again(directory, name), cause)
        elif occupant.blockers:
            reason = not_as_left(path)
            self.obstacles += [
                Obstacle(path=blocker, reason=reason, cause=cause, real=blocker, status=self._status(blocker))
                for blocker in occupant.blockers
            ]
        elif occupant.found is Found.AGENTS_DIRECTORY:
            self._add(directory, name, f"it is {AGENTS_OWN}", cause)
        else:
            self._add(directory, name, there_already(real, status, self._places), cause, status)

    def _add(
        self,
        directory: Directory,
        name: bytes,
        reason: str,
        cause: Cause,
        status: os.stat_result | None = None,
    ) -> None:
        real = directory.real.rstrip(b"/") + b"/" + name
        self.obstacles.append(
            Obstacle(path=directory.inner(name), reason=reason, cause=cause, real=real, status=status)
        )

    def _impassable(self, asked: bytes, error: Impassable) -> Obstacle:
        """Why there can't be a directory at this path."""
        real, cause = error.found.real, error.cause
        if cause is Cause.AGENT:
            where = "it is" if asked == error.path else f"it lies in {os.fsdecode(error.path)}, which is"
            return Obstacle(path=asked, reason=f"{where} {AGENTS_OWN}", cause=cause, real=real)
        status = self._status(real)
        reason = no_directory(error.found, status, self._places)
        return Obstacle(path=error.path, reason=reason, cause=cause, real=real, status=status)

    def _status(self, real: bytes) -> os.stat_result:
        """Of what is there, without links above it."""
        above, _slash, name = real.rpartition(b"/")
        return self._places.entry(above or b"/", name)
