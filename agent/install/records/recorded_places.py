"""Where the directories of the last Install are now."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.install.posix.open_directories import NOT_THERE
from agent.install.posix.places import Kind
from agent.install.records.manifest import is_in_state
from agent.logs import get_logger

if TYPE_CHECKING:
    from agent.install.posix.places import Places, Resolved
    from agent.install.records.brought import BroughtDirectories

log = get_logger()


class RecordedPlaces:
    """Real paths of the directories that records name.

    A directory is where `Places` finds it. What lies behind a link that stands where Install had created a directory
    has been moved, or is another one altogether; and so may be what stands there itself (`brought.py`).

    Args:
        created: the directories that Install created, all of them before any is looked at, → the state
            that each was in then, empty when that is not known.
        places: of this Install.
        others: tells directories that have been put there since; None where nothing tells them.

    Attributes:
        followed: real paths of links that stand where Install created a directory, → the directory that they lead to.
        untouched: real paths of the created directories that are still in that state, → the state.
        brought: real paths of directories that are others than those recorded, and may have been put there by somebody
            who may not write to them.
    """

    def __init__(
        self, created: dict[bytes, bytes], places: Places, others: BroughtDirectories | None = None
    ) -> None:
        self._created = created
        self._others = others
        self._places = places
        self._brought: set[bytes] = set()
        self.brought: set[bytes] = set()
        self._known: dict[bytes, bytes | None] = {b"/": b"/", b"": b"/"}
        self._moved: set[bytes] = set()
        self._refused: set[bytes] = set()
        self.followed: dict[bytes, bytes] = {}
        self.untouched: dict[bytes, bytes] = {}

    def of(self, path: bytes) -> bytes | None:
        """Real path of a directory; None when it is none any more, or behind a link that is not followed.

        Raises:
            OSError: that can't be told: a file server does not answer, or a disk has an error.
        """
        missing, at = [], path
        while at not in self._known:
            missing.append(at)
            at = at.rpartition(b"/")[0]
        for at in reversed(missing):
            self._known[at] = self._look(at)
        return self._known[path]

    def is_moved(self, path: bytes) -> bool:
        """Whether it is behind a link that stands where Install created a directory; to be asked after `of`."""
        return path in self._moved

    def is_brought(self, path: bytes) -> bool:
        """Whether it is another directory than the recorded one, and may have been put there, or below such a one."""
        return path in self._brought

    def _look(self, path: bytes) -> bytes | None:
        above = path.rpartition(b"/")[0]
        if self._known[above] is None:
            return None
        state = self._created.get(path)
        try:
            found, status = self._places.look(path)
            if state and found.is_directory and status is None and not found.link:
                status = self._places.status(found.real)
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise
            return None
        if not found.is_directory:
            self._note_absent(path, found, is_created=state is not None)
            return None
        self._note_moved(path, found, status, is_created=state is not None)
        if state and status is not None and is_in_state(status, state):
            self.untouched[found.real] = state
        return found.real

    def _note_moved(
        self, path: bytes, found: Resolved, status: os.stat_result | None, *, is_created: bool
    ) -> None:
        """Find out whether what is there now is another directory, or lies in one."""
        above = path.rpartition(b"/")[0]
        if found.link and is_created:
            log.info("created_directory_moved", path=os.fsdecode(path), now=os.fsdecode(found.real))
            self.followed[found.link] = found.real
            self._moved.add(path)
        elif above in self._moved:
            self._moved.add(path)
            if above in self._brought:
                self._brought.add(path)
        elif self._others is not None and not found.link and self._others.has(path, found, status):
            self._moved.add(path)
            self._brought.add(path)
            self.brought.add(found.real)

    def _note_absent(self, path: bytes, found: Resolved, *, is_created: bool) -> None:
        """Say what stands where a directory was, unless that is nothing at all."""
        if found.kind is Kind.LINK and found.real not in self._refused:
            self._refused.add(found.real)
            log.warning(
                "recorded_directory_behind_link",
                path=os.fsdecode(path),
                not_followed=found.why_not or "it leads to no directory",
            )
        elif found.kind is Kind.OTHER and is_created:
            log.warning("created_directory_is_gone", path=os.fsdecode(path), is_link=False)
