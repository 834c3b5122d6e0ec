"""Completing an Install that has succeeded: what only the previous revision had goes, and all hidden names.

It can be interrupted and begun again at any point (I8).
"""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from agent.install.apply.hidden_names import GONE, HiddenNames, HiddenRemoval, log_stuck, sync_changes
from agent.install.apply.journal_places import places_of_journal
from agent.install.apply.labels import drop_label
from agent.install.journal.entries import (
    Hiding,
    Leftover,
    LeftoverDirectory,
    LeftoverLabel,
    Losing,
    Replacement,
    Touched,
)
from agent.install.journal.names import kept_name, new_name, old_name
from agent.install.model.moments import Moment
from agent.install.posix.open_directories import PLACE, PlaceChanged
from agent.install.posix.renames import Renames, name_beside
from agent.install.records.manifest import is_as_left
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from agent.install.journal.journal import Journal
    from agent.install.model.moments import Observer
    from agent.install.posix.places import Places

log = get_logger()

_Leftover: TypeAlias = Leftover | LeftoverDirectory | LeftoverLabel


class Completion(NamedTuple):
    """What came of completing an Install.

    Attributes:
        removed: number of files and links of the previous revision that went.
        kept: paths of those that somebody has changed, so that they stay, and are no longer ours.
        stuck: paths that the system would not let us remove.
    """

    removed: int
    kept: list[bytes]
    stuck: list[bytes]


class Replaced(NamedTuple):
    """What the process that has carried out an Install knows of it, so that it need not be looked for.

    That rests on two things: hidden names with the token of an Install are made by nobody else, and the directories
    in which it has left any are all in here. After a crash nobody knows them, and the journal tells where to look.

    Attributes:
        removals: what came of removing what was replaced, by the directory.
        hiding: directories that may still hold hidden names.
        is_any: whether anything was replaced.
        leaves_something: whether the journal names anything that goes, and has its own name still.
    """

    removals: list[tuple[bytes, HiddenRemoval]]
    hiding: set[bytes]
    is_any: bool
    leaves_something: bool


class CarriedOut(Protocol):
    """An Install that this very process has carried out, so that it knows what the journal would tell, and more."""

    def remove_replaced(self) -> Replaced | None:
        """Remove the files that were replaced. None when it is not known what is left of them."""

    def sync(self) -> None:
        """Wait until all that was changed is on the disk. It may raise OSError."""


def complete(
    journal: Journal, observer: Observer, *, carried_out: CarriedOut | None = None, durable: bool = True
) -> Completion:
    """Remove what only the previous revision had, and all that has hidden names, as far as that is possible.

    Args:
        journal: of the Install.
        observer: told before each removal.
        carried_out: the Install, if this process has carried it out; otherwise the journal tells what there is to do.
        durable: wait until that is on the disk.

    Raises:
        OSError: the disk does not take it.
    """
    replaced = None if carried_out is None else carried_out.remove_replaced()
    with closing(places_of_journal(journal)) as places:
        completing = _Completing(journal, places, observer)
        if replaced is None:
            has_hidden = completing.remove_hidden(Hiding)
        else:
            has_hidden = replaced.is_any
            completing.remove_hidden_in(replaced.hiding)
            for directory, removal in replaced.removals:
                completing.take_over(directory, removal)
        if replaced is None or replaced.leaves_something:
            completing.remove_leftovers()
        if durable and (completing.has_removed or has_hidden):
            # A journal that is gone, and old files that are back, would be a host with files that nobody owns.
            if carried_out is None:
                sync_changes(journal, places)
            else:
                carried_out.sync()
    return Completion(completing.removed, completing.kept, completing.stuck)


def remove_hidden(journal: Journal, observer: Observer) -> list[str]:
    """Remove what has hidden names, and nothing else; the paths of what could not be removed."""
    with closing(places_of_journal(journal)) as places:
        completing = _Completing(journal, places, observer)
        completing.remove_hidden(Touched, Hiding)
    return [os.fsdecode(path) for path in completing.stuck]


class _Changed(Exception):
    """Somebody has changed this file since Install wrote it, so that it stays (I7)."""


class _Completing:
    """Removing what is left of the previous revision.

    Attributes:
        removed: number of files and links of the previous revision that went.
        has_removed: whether anything went that had its own name still.
        kept, stuck: as in `Completion`.
    """

    def __init__(self, journal: Journal, places: Places, observer: Observer) -> None:
        self.removed = 0
        self.has_removed = False
        self.kept: list[bytes] = []
        self.stuck: list[bytes] = []
        self._journal = journal
        self._places = places
        self._observe = observer
        self._hidden = HiddenNames(journal, places, observer)

    def remove_hidden(self, *kinds: type[Touched | Hiding]) -> bool:
        """Remove the hidden names where entries of these kinds are. Whether there may have been any."""
        hiding = {entry.path for entry in self._journal.entries(*kinds)}
        self.remove_hidden_in(hiding)
        return bool(hiding)

    def remove_hidden_in(self, hiding: Collection[bytes]) -> None:
        """Remove the hidden names in these directories."""
        for directory in sorted(hiding):
            self.take_over(directory, self._hidden.remove_files(directory))

    def take_over(self, directory: bytes, removal: HiddenRemoval) -> None:
        """What came of that, and the directories that were left."""
        self.stuck += removal.stuck
        for name in removal.displaced:
            try:
                self._remove_displaced(directory, name)
            except OSError as error:
                if error.errno not in GONE and not isinstance(error, PlaceChanged):
                    path = directory.rstrip(b"/") + b"/" + name
                    log_stuck(path, error)
                    self.stuck.append(path)

    def remove_leftovers(self) -> None:
        """Remove what has its own name still."""
        leftovers: Iterator[_Leftover] = self._journal.entries(Leftover, LeftoverDirectory, LeftoverLabel)
        for entry in leftovers:
            self._remove_leftover(entry, entry.path)

    def _remove_leftover(self, entry: _Leftover, path: bytes) -> None:
        """Remove what this entry is about, and what is at that path now."""
        above, _slash, name = path.rpartition(b"/")
        try:
            if isinstance(entry, Leftover):
                self._remove(entry, above or b"/", path)
                self.removed += 1
            elif isinstance(entry, LeftoverDirectory):
                self._observe(Moment.RMDIR, path)
                os.rmdir(name, dir_fd=self._places.of(above or b"/"))
            else:
                drop_label(path, self._journal.path)
            self.has_removed = True
        except (_Changed, PlaceChanged):
            self.kept.append(path)
        except OSError as error:
            if error.errno not in GONE:
                log_stuck(path, error)
                self.stuck.append(path)

    def _remove(self, entry: Leftover, directory: bytes, path: bytes) -> None:
        dir_fd = self._places.of(directory)
        status = os.stat(entry.name, dir_fd=dir_fd, follow_symlinks=False)
        if not is_as_left(entry.name, status, entry.record, dir_fd=dir_fd):
            raise _Changed
        self._observe(Moment.REMOVE, path)
        os.unlink(entry.name, dir_fd=dir_fd)

    def _remove_displaced(self, directory: bytes, name: bytes) -> None:
        """Remove a directory that has given way to a file; what others have put into it meanwhile is kept beside it.

        Somebody may have given its hidden name to another one: from that, nothing goes.
        """
        was = self._path_of_hidden(directory, name)
        if was is None or self._is_new(directory, name):
            self._discard(directory, name)
            return
        stuck_before, kept_before = len(self.stuck), len(self.kept)
        place = directory.rstrip(b"/") + b"/" + name
        for losing in self._journal.entries(Losing):
            if losing.path == was or losing.path.startswith(was + b"/"):
                self._places.expect(place + losing.path[len(was) :], losing.inode, losing.born_ns)
        leftovers: Iterator[_Leftover] = self._journal.entries(Leftover, LeftoverDirectory)
        for entry in leftovers:
            if entry.path.startswith(was + b"/"):
                self._remove_leftover(entry, place + entry.path[len(was) :])
        if len(self.stuck) > stuck_before:
            return  # for the next time
        dir_fd = self._places.of(directory)
        try:
            self._observe(Moment.REMOVE_HIDDEN, place)
            os.rmdir(name, dir_fd=dir_fd)
        except OSError as error:
            if error.errno not in GONE:
                log_stuck(place, error)
                self.stuck.append(place)
                return
            kept = kept_name(self._journal.token, was.rpartition(b"/")[2])
            now = directory.rstrip(b"/") + b"/" + name_beside(Renames(), dir_fd, name, kept)
            log.warning(
                "replaced_directory_kept",
                path=os.fsdecode(was),
                now=os.fsdecode(now),
                reason="others have put files there",
            )
            self.kept[kept_before:] = [now + path[len(place) :] for path in self.kept[kept_before:]]
            self.kept.append(was)

    def _is_new(self, directory: bytes, name: bytes) -> bool:
        """Whether the hidden directory is one that never got its place."""
        if not self._journal.is_switching:
            return True
        descriptor = os.open(name, PLACE, dir_fd=self._places.of(directory))
        try:
            return self._hidden.has_made(directory, descriptor)
        finally:
            os.close(descriptor)

    def _discard(self, directory: bytes, name: bytes) -> None:
        try:
            self._observe(Moment.REMOVE_HIDDEN, directory + b"/" + name)
            self._hidden.remove(directory, name)
        except OSError as error:
            log_stuck(directory + b"/" + name, error)
            self.stuck.append(directory + b"/" + name)

    def _path_of_hidden(self, directory: bytes, name: bytes) -> bytes | None:
        """What the hidden name was made for; None when somebody else has made it up."""
        token = self._journal.token
        for entry in self._journal.entries(Replacement):
            if entry.directory == directory and name in {
                new_name(token, entry.number),
                old_name(token, entry.number),
            }:
                return entry.path
        return None
