"""What is at the destinations now, and whose it is."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from agent.install.compare.other_groups import owners_besides
from agent.install.model.directory import Directory, Standing
from agent.install.records.manifest import decode_record, is_as_left, lasting_state
from agent.listings import clock_ns

if TYPE_CHECKING:
    from agent.install.compare.other_groups import ClaimsOn
    from agent.install.records.installed import Previous

_NONE: set[bytes] = set()
_MOST_BLOCKERS = 100
_LINKS_OF_DIRECTORY = 2  # its name, and `.` in it


class NotADirectory(Exception):
    """Something else than a directory stands at `path`, and it is not ours; `real` is without links above it."""

    def __init__(self, path: bytes, real: bytes) -> None:
        super().__init__(os.fsdecode(path))
        self.path = path
        self.real = real


class Destinations:
    """Looks at each directory once.

    Attributes:
        by_real: directories that were asked for, in that order.
        states: of those that are OURS, as `lasting_state` tells them.
    """

    def __init__(self, previous: Previous, claims_on: ClaimsOn) -> None:
        self._previous = previous
        self._claims_on = claims_on
        self.states = vanishing_directories(previous)
        self._vanishing_in: dict[bytes, set[bytes]] = {}
        for real in self.states:
            above, _slash, name = real.rpartition(b"/")
            self._vanishing_in.setdefault(above or b"/", set()).add(name)
        root = Directory(b"/", b"/", Standing.FOREIGN, replaces=False, parent=None)
        self._by_path: dict[bytes, Directory] = {b"/": root, b"": root}
        self.by_real: dict[bytes, Directory] = {b"/": root}

    def directory(self, path: bytes) -> Directory:
        """The directory at this absolute path.

        Raises:
            NotADirectory: something else is there, or above it.
        """
        known = self._by_path.get(path)
        if known is None:
            known = self._look(path)
            self.by_real.setdefault(known.real, known)
            self._by_path[path] = known
        return known

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
        return sorted(blockers + list(owners_besides(self._claims_on, ours)))[:_MOST_BLOCKERS]

    def _search(self, real: bytes, ours: set[bytes], blockers: list[bytes]) -> None:
        """Collect what is in this directory of ours: what we have put there, and what stands in the way."""
        names, prefix = self._previous.files.of(real), real.rstrip(b"/") + b"/"
        path = real
        try:
            for name in os.listdir(real):
                path, fields = prefix + name, names.get(name)
                status = os.lstat(path)
                if path in self._previous.directories and stat.S_ISDIR(status.st_mode):
                    self._search(path, ours, blockers)
                elif fields is None or not is_as_left(
                    path, status, decode_record(fields) if fields else None
                ):
                    blockers.append(path)
                else:
                    ours.add(path)
        except OSError:
            blockers.append(path)

    def _look(self, path: bytes) -> Directory:
        parent_path, _slash, name = path.rpartition(b"/")
        parent = self.directory(parent_path)
        real = parent.real.rstrip(b"/") + b"/" + name
        if parent.standing is Standing.NEW:
            return Directory(path, real, Standing.NEW, replaces=False, parent=parent)
        if real in self.states:
            # It was looked at just now.
            return Directory(path, real, Standing.OURS, replaces=False, parent=parent)
        try:
            mode = os.lstat(real).st_mode
        except FileNotFoundError:
            return Directory(path, real, Standing.NEW, replaces=False, parent=parent)
        if stat.S_ISDIR(mode):
            return Directory(path, real, Standing.FOREIGN, replaces=False, parent=parent)
        if self._previous.owns(parent.real, name):
            return Directory(path, real, Standing.NEW, replaces=True, parent=parent)
        if stat.S_ISLNK(mode):
            end = self._end_of_link(real)
            if end is not None:
                return self.directory(end)._replace(path=path)
        raise NotADirectory(path, real)

    def _end_of_link(self, real: bytes) -> bytes | None:
        """The directory that this link leads to; None when there is none, or it is not to be followed."""
        known = self._previous.followed.get(real)
        if known is not None or real in self._previous.swapped:
            # Where we had made a directory, who else swapped it would choose where we write.
            return known
        # A link of somebody else's is part of the path, as it is for every other program.
        return os.path.realpath(real) if os.path.isdir(real) else None


def vanishing_directories(previous: Previous) -> dict[bytes, bytes]:
    """Directories of ours that hold nothing but files and directories of ours, → the state they are in."""
    vanishing: dict[bytes, bytes] = {}
    staying: set[bytes] = set()  # what some directory that does not vanish lies in
    for real in sorted(previous.directories, key=len, reverse=True):
        state = previous.untouched.get(real)
        if state is None:
            state = _state_if_only_ours(real, previous, vanishing)
        elif real in staying:
            state = None
        if state is None:
            staying.add(real.rpartition(b"/")[0] or b"/")
        else:
            vanishing[real] = state
    return vanishing


def _state_if_only_ours(real: bytes, previous: Previous, vanishing: dict[bytes, bytes]) -> bytes | None:
    names, prefix = previous.files.of(real), real.rstrip(b"/") + b"/"
    try:
        looked_ns = clock_ns()
        status = os.lstat(real)  # before its names: what appears meanwhile will have changed the state
        others = set(os.listdir(real)).difference(names)
        if not all(prefix + name in vanishing for name in others):
            return None
        # Most file systems count the directories in a directory, so that nothing has to be looked at one by one.
        if status.st_nlink != _LINKS_OF_DIRECTORY + len(others):
            with os.scandir(real) as entries:
                if not all(entry.name in others for entry in entries if entry.is_dir(follow_symlinks=False)):
                    return None
    except OSError:
        return None
    return lasting_state(status, looked_ns)
