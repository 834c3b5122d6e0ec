"""What is at the destinations now, and whose it is."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from agent.install.model.directory import Directory, Standing
from agent.install.plan.rule import Action, Cause, Found, Wanted, decide
from agent.install.posix.open_directories import PlaceChanged
from agent.install.posix.places import Kind, Resolved
from agent.install.records.manifest import decode_record, is_as_left, lasting_state
from agent.listings import clock_ns

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from agent.install.compare.other_groups import OtherGroups
    from agent.install.posix.places import Places
    from agent.install.records.installed import Previous
    from agent.protocol import FileExistsBehavior

_NONE: set[bytes] = set()
_MOST_BLOCKERS = 100
_LINKS_OF_DIRECTORY = 2  # its name, and `.` in it


class Impassable(Exception):
    """Nothing can be installed at `path`, or below it.

    Attributes:
        path: as the AppSpec spells it.
        found: what is there.
        cause: what the rule has answered.
    """

    def __init__(self, path: bytes, found: Resolved, cause: Cause) -> None:
        super().__init__(os.fsdecode(path))
        self.path = path
        self.found = found
        self.cause = cause


class Destinations:
    """Looks at each directory once, and asks the rule about it.

    Args:
        behavior: for what the group did not install.
        previous: what is ours.
        others: the other groups.
        places: of this Install.
        agent_directories: where nothing is installed.

    Attributes:
        by_real: directories that were asked for, in that order.
        states: of those that are OURS, as `lasting_state` tells them.
    """

    def __init__(
        self,
        behavior: FileExistsBehavior,
        previous: Previous,
        others: OtherGroups,
        places: Places,
        agent_directories: Iterable[Path] = (),
    ) -> None:
        self._behavior = behavior
        self._previous = previous
        self._others = others
        self._places = places
        own = [places.resolve(os.fsencode(os.path.abspath(path))) for path in agent_directories]
        self._agents_own = {found.real for found in own}
        # The same directory may be mounted in several places.
        self._agents_identities = {places.identity(found.real) for found in own if found.is_directory}
        self.states = vanishing_directories(previous, places)
        self._vanishing_in: dict[bytes, set[bytes]] = {}
        for real in self.states:
            above, _slash, name = real.rpartition(b"/")
            self._vanishing_in.setdefault(above or b"/", set()).add(name)
        root = Directory(b"/", b"/", Standing.USED_BY_OTHERS, replaces=False, parent=None)
        self._by_path: dict[bytes, Directory] = {b"/": root, b"": root}
        self.by_real: dict[bytes, Directory] = {b"/": root}

    def directory(self, path: bytes) -> Directory:
        """The directory at this absolute path.

        Raises:
            Impassable: something else is there, or above it, or it is the agent's.
        """
        known = self._by_path.get(path)
        if known is None:
            known = self._look(path)
            self.by_real.setdefault(known.real, known)
            self._by_path[path] = known
        return known

    def is_agents(self, real: bytes) -> bool:
        """Whether this directory is one that the agent keeps its own things in."""
        if real in self._agents_own:
            return True
        return bool(self._agents_identities) and self._places.identity(real) in self._agents_identities

    def ours_in(self, real: bytes) -> set[bytes]:
        """Names of the directories in this one that are ours, and would be gone when our files were."""
        return self._vanishing_in.get(real, _NONE)

    def blockers(self, real: bytes) -> list[bytes]:
        """What is in a directory that Install created, and must not go with it: up to a hundred paths.

        That is what somebody has put there or changed, and what another group has installed there, too.
        """
        blockers: list[bytes] = []
        ours: set[bytes] = set()
        self._search(real, ours, blockers)
        return sorted(blockers + list(self._others.groups_claiming(ours)))[:_MOST_BLOCKERS]

    def _search(self, real: bytes, ours: set[bytes], blockers: list[bytes]) -> None:
        """Collect what is in this directory of ours: what we have put there, and what stands in the way."""
        names, prefix = self._previous.files.of(real), real.rstrip(b"/") + b"/"
        path, inner = real, []
        try:
            dir_fd = self._places.opened(real)
            try:
                for name in map(os.fsencode, os.listdir(dir_fd)):
                    path, fields = prefix + name, names.get(name)
                    status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
                    if path in self._previous.directories and stat.S_ISDIR(status.st_mode):
                        inner.append(path)
                    elif fields is None or not is_as_left(
                        name, status, decode_record(fields) if fields else None, dir_fd=dir_fd
                    ):
                        blockers.append(path)
                    else:
                        ours.add(path)
            finally:
                os.close(dir_fd)
        except PlaceChanged:
            raise
        except OSError:
            blockers.append(path)
        for path in inner:
            self._search(path, ours, blockers)

    def _look(self, path: bytes) -> Directory:
        above, _slash, name = path.rpartition(b"/")
        parent = self.directory(above)
        real = parent.real.rstrip(b"/") + b"/" + name
        found, resolved = self._found(parent, real, name)
        decision = decide(found, Wanted.DIRECTORY, self._behavior)
        if isinstance(decision, Cause):
            raise Impassable(path, resolved, decision)
        if decision is not Action.KEEP:
            is_replaced = decision is Action.REPLACE
            return Directory(path, real, Standing.NEW, replaces=is_replaced, parent=parent)
        if found is Found.LINK_TO_DIRECTORY:
            return self.directory(resolved.real)._replace(path=path)
        standing = Standing.OURS if found is Found.OUR_DIRECTORY else Standing.USED_BY_OTHERS
        return Directory(path, real, standing, replaces=False, parent=parent)

    def _found(self, parent: Directory, real: bytes, name: bytes) -> tuple[Found, Resolved]:
        """What is where a directory must be, in a directory that was found or will be made."""
        if real in self._agents_own:
            return Found.AGENTS_DIRECTORY, self._places.resolve(real)
        if parent.standing is Standing.NEW:
            return Found.NOTHING, Resolved(real, Kind.ABSENT)
        if real in self.states:  # it was looked at just now
            return Found.OUR_DIRECTORY, Resolved(real, Kind.DIRECTORY)
        resolved = self._places.resolve(real)
        if resolved.is_directory and not resolved.link:
            return self._of_directory(real), resolved
        if resolved.kind is not Kind.ABSENT and self._previous.owns(parent.real, name):
            return Found.OUR_FILE, resolved
        return _of_anything_else(resolved), resolved

    def _of_directory(self, real: bytes) -> Found:
        if self.is_agents(real):
            return Found.AGENTS_DIRECTORY
        return Found.OUR_DIRECTORY_IN_USE if real in self._previous.directories else Found.FOREIGN_DIRECTORY


def _of_anything_else(resolved: Resolved) -> Found:
    """What that is which is no directory of this path, and not ours."""
    if resolved.kind is Kind.ABSENT:
        return Found.NOTHING
    if resolved.is_directory:
        return Found.LINK_TO_DIRECTORY
    return Found.LINK_NOT_FOLLOWED if resolved.why_not else Found.FOREIGN_FILE


def vanishing_directories(previous: Previous, places: Places) -> dict[bytes, bytes]:
    """Directories of ours that hold nothing but files and directories of ours, → the state they are in.

    One that is in the state that the manifest tells is not listed: whoever makes, renames or removes a name in it changes
    its times. One that is not, or of which that is not known, is.
    """
    vanishing: dict[bytes, bytes] = {}
    staying: set[bytes] = set()  # what some directory that does not vanish lies in
    for real in sorted(previous.directories, key=len, reverse=True):
        state = previous.untouched.get(real)
        if state is None:
            state = _state_if_only_ours(real, previous, vanishing, places)
        elif real in staying:
            state = None
        if state is None:
            staying.add(real.rpartition(b"/")[0] or b"/")
        else:
            vanishing[real] = state
    return vanishing


def _state_if_only_ours(
    real: bytes, previous: Previous, vanishing: dict[bytes, bytes], places: Places
) -> bytes | None:
    names, prefix = previous.files.of(real), real.rstrip(b"/") + b"/"
    try:
        dir_fd = places.opened(real)
    except OSError:
        return None
    try:
        looked_ns = clock_ns()
        status = os.fstat(dir_fd)  # before its names: what appears meanwhile will have changed the state
        others = {os.fsencode(name) for name in os.listdir(dir_fd)}.difference(names)
        if not all(prefix + name in vanishing for name in others):
            return None
        # Most file systems count the directories in a directory, so that nothing has to be looked at one by one.
        if status.st_nlink != _LINKS_OF_DIRECTORY + len(others):
            with os.scandir(dir_fd) as entries:
                directories = {
                    os.fsencode(entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)
                }
            if not directories <= others:
                return None
    except OSError:
        return None
    finally:
        os.close(dir_fd)
    return lasting_state(status, looked_ns)
