"""Undoing an Install, from its journal alone: every entry is restored, the last one first.

It can be interrupted and begun again at any point (I8): it looks at who has which name.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import closing, suppress
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from agent.install.apply.adjusted_files import has_content, is_same_holder
from agent.install.apply.displacing import DisplacingDirectories
from agent.install.apply.hidden_names import HiddenNames, sync_changes
from agent.install.apply.journal_places import places_of_journal
from agent.install.apply.labels import restore_label
from agent.install.attributes.of_files import Wanted
from agent.install.journal.entries import (
    Addition,
    Adjustment,
    Label,
    MadeFiles,
    MountPoint,
    NewDirectory,
    Replacement,
    Touched,
)
from agent.install.journal.journal import mark_staging
from agent.install.journal.names import new_name, old_name
from agent.install.model.moments import Moment
from agent.install.posix.acl import ACCESS, DEFAULT, read_acl, write_acl
from agent.install.posix.births import UNKNOWN, born_ns, may_be_same
from agent.install.posix.copying import ITSELF, opened_for_owner
from agent.install.posix.mounts import is_mounted
from agent.install.posix.renames import Renames, exists, has_two_names, inode_of, is_directory
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.install.journal.entries import Change, Entry
    from agent.install.journal.journal import Journal
    from agent.install.model.moments import Observer
    from agent.install.posix.places import Places

log = get_logger()

_Restored: TypeAlias = "NewDirectory | MadeFiles | Change | Adjustment | Label"
_E = TypeVar("_E", bound="Entry")


class Undone(NamedTuple):
    """What came of undoing an Install.

    Attributes:
        failures: what could not be restored, and why.
        swapped: directories in whose place somebody has put something else meanwhile: what was in them is out of reach,
            and nothing needs to be done again.
        taken: paths that somebody has put something at meanwhile, which stays. A directory that was there is kept beside it.
    """

    failures: list[str]
    swapped: set[bytes]
    taken: set[bytes]


def undo(journal: Journal, observer: Observer, taken: set[bytes]) -> Undone:
    """Make the previous revision whole again (I6), but for what the answer lists.

    First everything gets its old name back and the new files their hidden ones, then those go.
    In between, the journal goes back to the phase `staging`: from then on, hidden names hold nothing
    that anybody needs. So all of that must be on the disk before, or a power failure would leave old
    content under hidden names; and before the caller removes the journal, everything.

    Args:
        journal: of the Install.
        observer: told before each change.
        taken: what earlier tries have found of that, which is part of the answer.
    """
    done = Undone([], set(), taken)
    with closing(places_of_journal(journal)) as places:
        if journal.is_switching:
            restoring = _Restoring(journal, places, observer, done.taken)
            changes: Iterator[_Restored] = journal.entries_newest_first(
                NewDirectory, MadeFiles, Addition, Replacement, Adjustment, Label
            )
            _each(changes, restoring.restore, done)
            done.failures.extend(_synced(journal, places))
            if done.failures:
                return done
            try:
                mark_staging(journal.path)
            except OSError as error:
                done.failures.append(f"{journal.path}: {error.strerror or error}")
                return done
        directories = _RestoringDirectories(journal, places, observer)
        _each(journal.entries_newest_first(Touched), directories.restore, done)
        done.failures.extend(_synced(journal, places))
        return done


def unmounted(journal: Journal) -> list[str]:
    """Mount points of file systems that the Install has changed, and that are not mounted now."""
    points = [entry.path for entry in journal.entries(MountPoint)]
    return [os.fsdecode(path) for path in points if not is_mounted(path)]


def _synced(journal: Journal, places: Places) -> list[str]:
    """Wait until all changes are on the disk; what went wrong."""
    try:
        sync_changes(journal, places)
    except OSError as error:
        return [f"what was restored can't be written to the disk: {error.strerror or error}"]
    return []


_NO_DIRECTORY = frozenset({errno.ENOTDIR, errno.ELOOP, errno.ESTALE})


def _each(entries: Iterator[_E], restore: Callable[[_E], None], done: Undone) -> None:
    """Restore every entry; errors are noted, so that the rest is still tried."""
    for entry in entries:
        try:
            restore(entry)
        except _Swapped as swapped:
            # Whoever did that took what was in it out of our reach, and we must not follow.
            if swapped.directory not in done.swapped:
                log.warning("directory_replaced_not_restored", path=os.fsdecode(swapped.directory))
            done.swapped.add(swapped.directory)
        except OSError as error:
            # A directory that somebody has removed meanwhile needs no undoing.
            if error.errno != errno.ENOENT:
                done.failures.append(f"{os.fsdecode(entry.path)}: {error.strerror or error}")


def _opened(places: Places, path: bytes) -> int:
    try:
        return places.of(path)
    except OSError as error:
        if error.errno in _NO_DIRECTORY:
            raise _Swapped(path) from error
        raise


class _Swapped(Exception):
    """Something else stands where a directory was."""

    def __init__(self, directory: bytes) -> None:
        super().__init__(os.fsdecode(directory))
        self.directory = directory


class _Restoring:
    """Gives everything its old name and attributes back.

    Args:
        journal: of the Install.
        places: of the directories that it names.
        observer: told before each change.
        taken: gets what `Undone` has under that name.
    """

    def __init__(self, journal: Journal, places: Places, observer: Observer, taken: set[bytes]) -> None:
        self._journal = journal
        self._token = journal.token
        self._begun_ns = journal.begun_ns
        self._places = places
        self._observe = observer
        self._renames = Renames()
        self._displacing = DisplacingDirectories(journal, places, observer)
        self._taken = taken

    def restore(self, entry: _Restored) -> None:
        match entry:
            case Label():
                restore_label(entry, self._places, self._journal.path)
            case Adjustment():
                self._restore_file(entry)
            case MadeFiles() | NewDirectory():
                try:
                    self._remove(entry)
                except OSError as error:
                    if error.errno != errno.ENOENT:
                        self._displacing.is_not_emptied(entry.path)
                    raise
            case _:  # an Addition or a Replacement
                self._restore_name(entry)

    def _remove(self, entry: MadeFiles | NewDirectory) -> None:
        if isinstance(entry, MadeFiles):
            self._remove_files(entry)
        else:
            self._remove_directory(entry)

    def _remove_files(self, entry: MadeFiles) -> None:
        """Remove what we have made in this directory, as far as it is still that."""
        dir_fd = self._of_ours(entry)
        if dir_fd is None:
            return
        for name, inode in entry.inodes.items():
            if inode_of(dir_fd, name) == inode:
                self._observe(Moment.REMOVE_NEW, entry.path + b"/" + name)
                os.unlink(name, dir_fd=dir_fd)

    def _remove_directory(self, entry: NewDirectory) -> None:
        """Remove the directory, if nothing else is in it by now, and nothing waits for its name."""
        if self._of_ours(entry) is None or self._displacing.is_to_give_way(entry.path):
            return
        self._places.forget(entry.path)
        above, _slash, name = entry.path.rpartition(b"/")
        self._observe(Moment.REMOVE_NEW, entry.path)
        try:
            os.rmdir(name, dir_fd=self._places.of(above or b"/"))
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            # Another deployment group, or the application, has put something there.
            log.warning(
                "new_directory_kept", path=os.fsdecode(entry.path), reason="others have put files there"
            )

    def _of_ours(self, entry: MadeFiles | NewDirectory) -> int | None:
        """The directory; None when it has not got its place, or does not have it any more, or somebody else's has it."""
        try:
            dir_fd = _opened(self._places, entry.path)
        except _Swapped:
            if self._displacing.have_given_way_above(entry.path):
                return None
            raise
        is_ours = os.fstat(dir_fd).st_ino == entry.inode and may_be_same(
            self._born_ns.get(entry.path, UNKNOWN), born_ns(dir_fd)
        )
        return dir_fd if is_ours else None

    @cached_property
    def _born_ns(self) -> dict[bytes, int]:
        """When the new directories were made that lie in others, as far as that is known."""
        made = self._journal.entries(NewDirectory)
        return {entry.path: entry.born_ns for entry in made if entry.born_ns != UNKNOWN}

    def _restore_name(self, entry: Change) -> None:
        """Look at who has the name and the hidden ones now, and put that right.

        What is neither ours nor what was there before is what somebody has put in its place: it stays,
        as if that had been done a moment later (I7).
        """
        dir_fd = _opened(self._places, entry.directory)
        new, old = new_name(self._token, entry.number), old_name(self._token, entry.number)
        there = inode_of(dir_fd, entry.name)
        if there == entry.inode and is_directory(dir_fd, entry.name):
            if not self._displacing.is_to_give_way(entry.path):
                return  # nothing is to have its name; the line about the directory itself says what becomes of it
            self._displacing.give_way(entry, dir_fd)
            there = inode_of(dir_fd, entry.name)
        if entry.old_inode and inode_of(dir_fd, old) == entry.old_inode:
            self._restore_old_name(entry, dir_fd, new, old)
        elif there == entry.inode:
            self._take_name_away(entry, dir_fd, new)
        elif not there and entry.old_inode and inode_of(dir_fd, new) == entry.old_inode:
            self._observe(Moment.RESTORE_OLD, entry.path)
            self._renames.place(dir_fd, new, entry.name)
        elif there and there != entry.old_inode:
            self._leave_to_others(entry, dir_fd, new)

    def _take_name_away(self, entry: Change, dir_fd: int, hidden: bytes) -> None:
        """What this Install has put there has its place; what has the hidden name gets it, if anything was there before."""
        beneath = inode_of(dir_fd, hidden)
        if beneath and not entry.old_inode:
            # Somebody has made the hidden name, and is not to get the place by that.
            self._observe(Moment.REMOVE_NEW, entry.path)
            os.unlink(entry.name, dir_fd=dir_fd)
            return
        if not beneath:
            # Nothing was there, or it had gone by then.
            self._observe(Moment.HIDE_NEW, entry.path)
            self._renames.place(dir_fd, entry.name, hidden)
            return
        if beneath != entry.old_inode:
            self._note_taken(entry.path)
        self._observe(Moment.RESTORE_OLD, entry.path)
        if not self._renames.exchange(dir_fd, hidden, entry.name):
            raise OSError(errno.EOPNOTSUPP, "names can't be exchanged any more")

    def _leave_to_others(self, entry: Change, dir_fd: int, hidden: bytes) -> None:
        """Somebody has put something else at this path.

        A file that was there is as good as replaced by that; but a directory nobody could have replaced like that.

        Args:
            entry: about that path.
            dir_fd: of the directory that it is in.
            hidden: name of what was there, if it is not gone.
        """
        self._note_taken(entry.path)
        if entry.old_inode and inode_of(dir_fd, hidden) == entry.old_inode and is_directory(dir_fd, hidden):
            reason = "others have put something in its place"
            self._displacing.keep_beside(entry, dir_fd, hidden, reason=reason)

    def _note_taken(self, path: bytes) -> None:
        self._taken.add(path)
        log.warning("file_of_others_kept", path=os.fsdecode(path))

    def _restore_old_name(self, entry: Change, dir_fd: int, new: bytes, old: bytes) -> None:
        """Give what was there its name back, where it has a hidden one of its own, since names could not be exchanged."""
        there = inode_of(dir_fd, entry.name)
        if there == inode_of(dir_fd, old):
            self._observe(Moment.RESTORE_OLD, entry.path)
            os.unlink(old, dir_fd=dir_fd)  # a second name of what is there
            return
        if there not in {0, entry.inode}:
            self._leave_to_others(entry, dir_fd, old)
            return
        if there and not exists(dir_fd, new):
            self._observe(Moment.HIDE_NEW, entry.path)
            if not is_directory(dir_fd, old) and has_two_names(dir_fd, entry.name, new):
                # So that the name is there at every moment.
                os.rename(old, entry.name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
                return
            os.rename(entry.name, new, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        self._observe(Moment.RESTORE_OLD, entry.path)
        os.rename(old, entry.name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    def _restore_file(self, was: Adjustment) -> None:
        """Give a file that has kept its content its attributes back, if it is still that one.

        Whoever has written to it meanwhile keeps what he has written, and the time at which he has.
        """
        place = os.open(was.name, ITSELF, dir_fd=_opened(self._places, was.directory))
        try:
            status = os.fstat(place)
            if status.st_ino != was.inode:
                return  # somebody has replaced it meanwhile
            is_edited = not has_content(status, was)
            if not is_same_holder(status, was) or (is_edited and born_ns(place) > self._begun_ns):
                self._note_taken(was.path)
                return
            self._observe(Moment.RESTORE_FILE, was.path)
            mtime_ns = status.st_mtime_ns if is_edited else was.mtime_ns
            before = Wanted(was.mode, None, was.gid, was.atime_ns, mtime_ns, was.access_acl)
            descriptor = opened_for_owner(place)
            try:
                before.give(descriptor, status, read_acl(descriptor, ACCESS))
            finally:
                os.close(descriptor)
        finally:
            os.close(place)


class _RestoringDirectories:
    """Removes the hidden names, and gives directories their times and attributes back."""

    def __init__(self, journal: Journal, places: Places, observer: Observer) -> None:
        self._hidden = HiddenNames(journal, places, observer)
        self._places = places
        self._observe = observer

    def restore(self, entry: Touched) -> None:
        """Remove the hidden names in the directory, and give it back its attributes and times."""
        _opened(self._places, entry.path)
        self._hidden.discard(entry.path)
        self._observe(Moment.RESTORE_DIRECTORY, entry.path)
        _restore_directory(self._places.of(entry.path), entry)


def _restore_directory(dir_fd: int, was: Touched) -> None:
    now = os.stat(b".", dir_fd=dir_fd)
    if was.is_ours:
        if (now.st_uid, now.st_gid) != (was.uid, was.gid):
            os.chown(b".", was.uid, was.gid, dir_fd=dir_fd)
        if stat.S_IMODE(now.st_mode) != was.mode:
            os.chmod(b".", was.mode, dir_fd=dir_fd)
        descriptor = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            for name, value in ((ACCESS, was.access_acl), (DEFAULT, was.default_acl)):
                if read_acl(descriptor, name) != value:
                    write_acl(descriptor, name, value)
        finally:
            os.close(descriptor)
    if now.st_mtime_ns == was.mtime_ns:
        return  # nothing was changed here, which may not even be possible
    # Only its owner may set times; where we are not, the new ones do no harm.
    with suppress(PermissionError):
        os.utime(b".", ns=(was.atime_ns, was.mtime_ns), dir_fd=dir_fd)
