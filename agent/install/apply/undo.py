"""Putting everything back, from the journal alone.

It can be interrupted and begun again at any point: it looks at who has which name.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import closing, suppress
from typing import TYPE_CHECKING, NamedTuple

from agent.install.apply.hidden_names import HiddenNames, sync_changes
from agent.install.apply.journal_places import places_of_journal
from agent.install.attributes.of_files import Wanted
from agent.install.attributes.selinux import drop_label, restore_label
from agent.install.journal.entries import (
    Adjustment,
    Change,
    Label,
    MadeFiles,
    MountPoint,
    NewDirectory,
    Touched,
    new_name,
    old_name,
    path_of,
)
from agent.install.journal.journal import mark_staging
from agent.install.posix.acl import ACCESS, DEFAULT, read_acl, write_acl
from agent.install.posix.copying import opened_for_owner
from agent.install.posix.mounts import is_mounted
from agent.install.posix.renames import Renames, exists, has_two_names, is_directory
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.install.journal.entries import Entry
    from agent.install.journal.journal import Journal
    from agent.install.model.request import Observer
    from agent.install.posix.places import Places

log = get_logger()


class Undone(NamedTuple):
    """What came of putting everything back.

    Attributes:
        failures: what could not be put back, and why.
        swapped: directories in whose place somebody has put something else meanwhile: what was in them is out of reach,
            and nothing needs to be done again.
    """

    failures: list[str]
    swapped: set[bytes]


def undo(journal: Journal, observer: Observer) -> Undone:
    """Afterwards the previous revision is whole again, but for what the answer lists.

    First everything gets its old name back and the new files their hidden ones, then those go.
    In between, the journal goes back to the phase `staging`: from then on, hidden names hold nothing
    that anybody needs. So all of that must be on the disk before, or a power failure would leave old
    content under hidden names; and before the caller removes the journal, everything.
    """
    done = Undone([], set())
    with closing(places_of_journal(journal)) as places:
        if journal.is_switching:
            switching = _SwitchingBack(journal.token, places, observer)
            _each(journal.entries_newest_first(b"cfnrma"), switching.take_back, done)
            done.failures.extend(_synced(journal, places))
            if done.failures:
                return done
            try:
                mark_staging(journal.path)
            except OSError as error:
                done.failures.append(f"{journal.path}: {error.strerror or error}")
                return done
        restoring = _Restoring(journal, places, observer)
        _each(journal.entries_newest_first(b"t"), restoring.restore, done)
        done.failures.extend(_synced(journal, places))
        return done


def unmounted(journal: Journal) -> list[str]:
    """Mount points of file systems that the Install has changed, and that are not mounted now."""
    points = [entry.path for entry in journal.entries(b"p") if isinstance(entry, MountPoint)]
    return [os.fsdecode(path) for path in points if not is_mounted(path)]


def _synced(journal: Journal, places: Places) -> list[str]:
    """Wait until all changes are on the disk; what went wrong."""
    try:
        sync_changes(journal, places)
    except OSError as error:
        return [f"what was put back can't be written to the disk: {error.strerror or error}"]
    return []


_NO_DIRECTORY = frozenset({errno.ENOTDIR, errno.ELOOP, errno.ESTALE})


def _each(entries: Iterator[Entry], step: Callable[[Entry], None], done: Undone) -> None:
    """Run the step for every entry; errors are noted, so that the rest is still tried."""
    for entry in entries:
        try:
            step(entry)
        except _Swapped as swapped:
            # Whoever did that took what was in it out of our reach, and we must not follow.
            if swapped.directory not in done.swapped:
                log.warning("directory_replaced_not_restored", path=os.fsdecode(swapped.directory))
            done.swapped.add(swapped.directory)
        except OSError as error:
            # A directory that somebody has removed meanwhile needs no undoing.
            if error.errno != errno.ENOENT:
                done.failures.append(f"{os.fsdecode(path_of(entry))}: {error.strerror or error}")


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


class _SwitchingBack:
    """Giving everything its old name and attributes back."""

    def __init__(self, token: bytes, places: Places, observer: Observer) -> None:
        self._token = token
        self._places = places
        self._observe = observer
        self._renames = Renames()

    def take_back(self, entry: Entry) -> None:
        if isinstance(entry, Label):
            self._take_back_label(entry)
        elif isinstance(entry, Adjustment):
            self._adjust_back(entry)
        elif isinstance(entry, MadeFiles):
            self._take_away_files(entry)
        elif isinstance(entry, NewDirectory):
            self._take_away(entry)
        elif isinstance(entry, Change):
            self._take_back(entry)

    def _take_away_files(self, entry: MadeFiles) -> None:
        """Remove what we have made in this directory, as far as it is still that."""
        dir_fd = self._of_ours(entry)
        if dir_fd is None:
            return
        for name, inode in entry.inodes.items():
            if _inode(dir_fd, name) == inode:
                self._observe("take_away", entry.path + b"/" + name)
                os.unlink(name, dir_fd=dir_fd)

    def _take_away(self, entry: NewDirectory) -> None:
        """Remove the directory, if nothing else is in it by now."""
        if self._of_ours(entry) is None:
            return
        self._places.forget(entry.path)
        above, _slash, name = entry.path.rpartition(b"/")
        self._observe("take_away", entry.path)
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
        """The directory; None when it has not got its place, or somebody else's has it."""
        dir_fd = _opened(self._places, entry.path)
        return dir_fd if os.stat(b".", dir_fd=dir_fd).st_ino == entry.inode else None

    def _take_back(self, entry: Change) -> None:
        """Look at who has the name and the hidden ones now, and put that right.

        What is neither ours nor what was there before is what somebody has put in its place: it stays,
        as if that had been done a moment later.
        """
        dir_fd = _opened(self._places, entry.directory)
        new, old = new_name(self._token, entry.number), old_name(self._token, entry.number)
        there = _inode(dir_fd, entry.name)
        if exists(dir_fd, old):
            self._take_back_old(entry, dir_fd, new, old)
        elif there == entry.inode:
            if not exists(dir_fd, new):
                # Nothing was there, or it had gone by then.
                self._observe("take_back", path_of(entry))
                self._renames.place(dir_fd, entry.name, new)
                return
            self._observe("put_back", path_of(entry))
            if not self._renames.exchange(dir_fd, new, entry.name):
                raise OSError(errno.EOPNOTSUPP, "names can't be exchanged any more")
        elif not there and entry.old_inode and _inode(dir_fd, new) == entry.old_inode:
            self._observe("put_back", path_of(entry))
            self._renames.place(dir_fd, new, entry.name)
        elif there and there != entry.old_inode:
            _log_others(entry)

    def _take_back_old(self, entry: Change, dir_fd: int, new: bytes, old: bytes) -> None:
        """The same where names could not be exchanged: what was there has a hidden name of its own."""
        there = _inode(dir_fd, entry.name)
        if there == _inode(dir_fd, old):
            self._observe("put_back", path_of(entry))
            os.unlink(old, dir_fd=dir_fd)  # a second name of what is there
            return
        if there not in {0, entry.inode}:
            _log_others(entry)
            return
        if there and not exists(dir_fd, new):
            self._observe("take_back", path_of(entry))
            if not is_directory(dir_fd, old) and has_two_names(dir_fd, entry.name, new):
                # So that the name is there at every moment.
                os.rename(old, entry.name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
                return
            os.rename(entry.name, new, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        self._observe("put_back", path_of(entry))
        os.rename(old, entry.name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    def _take_back_label(self, entry: Label) -> None:
        if not entry.had_rule:
            drop_label(entry.path)
        elif entry.was is not None:
            restore_label(entry.path, entry.was)

    def _adjust_back(self, was: Adjustment) -> None:
        dir_fd = _opened(self._places, was.directory)
        if _inode(dir_fd, was.name) != was.inode:
            return  # somebody has replaced it meanwhile
        descriptor = opened_for_owner(was.name, dir_fd)
        try:
            status = os.fstat(descriptor)
            if status.st_ino != was.inode or not _is_same_holder(status, was):
                _log_others(was)
                return
            self._observe("adjust_back", path_of(was))
            before = Wanted(was.mode, None, was.gid, was.atime_ns, was.mtime_ns, was.access_acl)
            before.give(descriptor, status, read_acl(descriptor, ACCESS))
        finally:
            os.close(descriptor)


class _Restoring:
    """Removing the hidden names, and giving directories their times and attributes back."""

    def __init__(self, journal: Journal, places: Places, observer: Observer) -> None:
        self._hidden = HiddenNames(journal, places, observer)
        self._places = places
        self._observe = observer

    def restore(self, entry: Entry) -> None:
        """Afterwards the directory is as it was."""
        if isinstance(entry, Touched):
            _opened(self._places, entry.path)
            self._hidden.discard(entry.path)
            self._observe("restore", entry.path)
            _restore_directory(self._places.of(entry.path), entry)


def _inode(dir_fd: int, name: bytes) -> int:
    """Of what has this name; 0 when nothing has."""
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return 0


def _is_same_holder(status: os.stat_result, was: Adjustment) -> bool:
    """Whether this can be the file that was adjusted: no owner is changed in place, and no setuid or setgid bit.

    One that somebody else has put there may have got the number of one that has been removed, and must get neither.
    """
    bits = stat.S_ISUID | stat.S_ISGID
    return status.st_uid == was.uid and status.st_mode & bits == was.mode & bits


def _log_others(entry: Change | Adjustment) -> None:
    log.warning("file_of_others_kept", path=os.fsdecode(path_of(entry)))


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
