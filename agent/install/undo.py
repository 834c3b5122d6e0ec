"""Putting everything back, or completing an Install that has succeeded; both from the journal alone.

Both can be interrupted and begun again at any point: they look at which names exist.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import closing, suppress
from typing import TYPE_CHECKING, NamedTuple

from agent.install.acl import ACCESS, DEFAULT, read_acl, write_acl
from agent.install.copying import opened_for_owner
from agent.install.descriptors import Descriptors, is_mounted, remove_tree, sync_file_systems
from agent.install.journal import (
    Adjustment,
    Change,
    Label,
    Leftover,
    LeftoverDirectory,
    LeftoverLabel,
    MadeFiles,
    MountPoint,
    NewDirectory,
    Touched,
    hidden_prefix,
    mark_staging,
    new_name,
    old_name,
)
from agent.install.lanes import do_all
from agent.install.removals import is_as_left
from agent.install.renames import Renames, exists, has_two_names, is_directory
from agent.install.selinux import drop_label, restore_label
from agent.install.wanted import Wanted
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.install.journal import Entry, Journal
    from agent.install.request import Observer

log = get_logger()


def undo(journal: Journal, observer: Observer) -> list[str]:
    """Afterwards the previous revision is whole again; what could not be put back is listed.

    First everything gets its old name back and the new files their hidden ones, then those go.
    In between, the journal goes back to the phase `staging`: from then on, hidden names hold nothing
    that anybody needs. So all of that must be on the disk before, or a power failure would leave old
    content under hidden names; and before the caller removes the journal, everything.
    """
    failures: list[str] = []
    with closing(Descriptors()) as descriptors:
        if journal.is_switching:
            switching = _SwitchingBack(journal.token, descriptors, observer)
            failures = _each(journal.entries_newest_first(b"cfnrma"), switching.take_back)
            failures += _synced(journal, descriptors)
            if failures:
                return failures
            try:
                mark_staging(journal.path)
            except OSError as error:
                return [f"{journal.path}: {error.strerror or error}"]
        clearing = _Clearing(journal.token, descriptors, observer)
        failures = _each(journal.entries_newest_first(b"t"), clearing.restore)
        return failures + _synced(journal, descriptors)


def forget(journal: Journal) -> list[str]:
    """Afterwards the hidden names are gone, and all else is as it is; those that could not be removed are listed."""
    with closing(Descriptors()) as descriptors:
        clearing = _Clearing(journal.token, descriptors, _unobserved)
        for path in sorted({_path(entry) for entry in journal.entries(b"th")}):
            clearing.stuck += clearing.forget_hidden(path)
        return [os.fsdecode(path) for path in clearing.stuck]


def unmounted(journal: Journal) -> list[str]:
    """Mount points of file systems that the Install has changed, and that are not mounted now."""
    points = [entry.path for entry in journal.entries(b"p") if isinstance(entry, MountPoint)]
    return [os.fsdecode(path) for path in points if not is_mounted(path)]


def _unobserved(_kind: str, _path: bytes) -> None:
    """Nobody watches."""


def _synced(journal: Journal, descriptors: Descriptors) -> list[str]:
    """Wait until all changes are on the disk; what went wrong."""
    try:
        sync_file_systems(_places(journal, descriptors))
    except OSError as error:
        return [f"what was put back can't be written to the disk: {error.strerror or error}"]
    return []


def _places(journal: Journal, descriptors: Descriptors) -> Iterator[int]:
    """One directory on each file system with changes."""
    seen: set[int] = set()
    for entry in journal.entries(b"t"):
        with suppress(FileNotFoundError, NotADirectoryError):
            dir_fd = descriptors.of(_path(entry))
            device = os.stat(b".", dir_fd=dir_fd).st_dev
            if device not in seen:
                seen.add(device)
                yield dir_fd


class Finish(NamedTuple):
    """What came of cleaning up after an Install that has succeeded.

    Attributes:
        removed: number of files and links of the previous revision that went.
        kept: paths of those that somebody has changed, so that they stay, and are no longer ours.
        stuck: paths that the system would not let us remove.
    """

    removed: int
    kept: list[bytes]
    stuck: list[bytes]


def finish(journal: Journal, observer: Observer, *, processes: int = 1, durable: bool = True) -> Finish:
    """Afterwards what only the previous revision had is gone, and all hidden names, as far as that is possible.

    Args:
        journal: of the Install.
        observer: told before each removal.
        processes: how many may do this, where there is much to be removed.
        durable: wait until that is on the disk.

    Raises:
        OSError: the disk does not take it.
    """
    removed = 0
    kept: list[bytes] = []
    with closing(Descriptors()) as descriptors:
        clearing = _Clearing(journal.token, descriptors, observer)
        hiding = sorted({_path(entry) for entry in journal.entries(b"h")})
        answers = do_all(
            lambda number: clearing.forget_hidden(hiding[number]),
            len(hiding),
            processes=processes if journal.size >= _MUCH_BYTES else 1,
        )
        clearing.stuck += [path for stuck in answers for path in stuck]
        for entry in journal.entries(b"xDb"):
            try:
                if clearing.finish(entry):
                    removed += 1
            except _Changed:
                kept.append(_path(entry))
            except OSError as error:
                if error.errno not in _GONE:
                    _log_stuck(_path(entry), error)
                    clearing.stuck.append(_path(entry))
        if durable and (removed or hiding):
            # A journal that is gone, and old files that are back, would be a host with files that nobody owns.
            sync_file_systems(_places(journal, descriptors))
    return Finish(removed, kept, clearing.stuck)


class _Swapped(Exception):
    """Something else stands where a directory was."""


class _Changed(Exception):
    """Somebody has changed this file since Install wrote it."""


_MUCH_BYTES = 50_000  # of a journal, which has a line for each change
_NO_DIRECTORY = frozenset({errno.ENOTDIR, errno.ELOOP})
_GONE = frozenset({errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.ELOOP})


def _each(entries: Iterator[Entry], step: Callable[[Entry], None]) -> list[str]:
    """Run the step for every entry; errors are noted, so that the rest is still tried."""
    failures: list[str] = []
    for entry in entries:
        try:
            step(entry)
        except _Swapped:
            # Whoever did that took what was in it out of our reach, and we must not follow.
            log.warning("directory_replaced_not_restored", path=os.fsdecode(_path(entry)))
        except OSError as error:
            # A directory that somebody has removed meanwhile needs no undoing.
            if error.errno != errno.ENOENT:
                failures.append(f"{os.fsdecode(_path(entry))}: {error.strerror or error}")
    return failures


def _opened(descriptors: Descriptors, path: bytes) -> int:
    try:
        return descriptors.of(path)
    except OSError as error:
        if error.errno in _NO_DIRECTORY:
            raise _Swapped from error
        raise


def _path(entry: Entry) -> bytes:
    if isinstance(entry, Change | Adjustment | Leftover):
        return entry.directory.rstrip(b"/") + b"/" + entry.name
    return entry.path


class _SwitchingBack:
    """Giving everything its old name and attributes back."""

    def __init__(self, token: bytes, descriptors: Descriptors, observer: Observer) -> None:
        self._token = token
        self._descriptors = descriptors
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
        self._descriptors.forget(entry.path)
        above, _slash, name = entry.path.rpartition(b"/")
        self._observe("take_away", entry.path)
        try:
            os.rmdir(name, dir_fd=self._descriptors.of(above or b"/"))
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            # Another deployment group, or the application, has put something there.
            log.warning(
                "new_directory_kept", path=os.fsdecode(entry.path), reason="others have put files there"
            )

    def _of_ours(self, entry: MadeFiles | NewDirectory) -> int | None:
        """The directory; None when it has not got its place, or somebody else's has it."""
        dir_fd = _opened(self._descriptors, entry.path)
        return dir_fd if os.stat(b".", dir_fd=dir_fd).st_ino == entry.inode else None

    def _take_back(self, entry: Change) -> None:
        """Look at who has the name and the hidden ones now, and put that right.

        What is neither ours nor what was there before is what somebody has put in its place: it stays,
        as if that had been done a moment later.
        """
        dir_fd = _opened(self._descriptors, entry.directory)
        new, old = new_name(self._token, entry.number), old_name(self._token, entry.number)
        there = _inode(dir_fd, entry.name)
        if exists(dir_fd, old):
            self._take_back_old(entry, dir_fd, new, old)
        elif there == entry.inode:
            if not exists(dir_fd, new):
                # Nothing was there, or it had gone by then.
                self._observe("take_back", _path(entry))
                self._renames.place(dir_fd, entry.name, new)
                return
            self._observe("put_back", _path(entry))
            if not self._renames.exchange(dir_fd, new, entry.name):
                raise OSError(errno.EOPNOTSUPP, "names can't be exchanged any more")
        elif not there and entry.old_inode and _inode(dir_fd, new) == entry.old_inode:
            self._observe("put_back", _path(entry))
            self._renames.place(dir_fd, new, entry.name)
        elif there != entry.old_inode:
            _log_others(entry)

    def _take_back_old(self, entry: Change, dir_fd: int, new: bytes, old: bytes) -> None:
        """The same where names could not be exchanged: what was there has a hidden name of its own."""
        there = _inode(dir_fd, entry.name)
        if there == _inode(dir_fd, old):
            self._observe("put_back", _path(entry))
            os.unlink(old, dir_fd=dir_fd)  # a second name of what is there
            return
        if there not in {0, entry.inode}:
            _log_others(entry)
            return
        if there and not exists(dir_fd, new):
            self._observe("take_back", _path(entry))
            if not is_directory(dir_fd, old) and has_two_names(dir_fd, entry.name, new):
                # So that the name is there at every moment.
                os.rename(old, entry.name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
                return
            os.rename(entry.name, new, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        self._observe("put_back", _path(entry))
        os.rename(old, entry.name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    def _take_back_label(self, entry: Label) -> None:
        if not entry.had_rule:
            drop_label(entry.path)
        elif entry.was is not None:
            restore_label(entry.path, entry.was)

    def _adjust_back(self, was: Adjustment) -> None:
        dir_fd = _opened(self._descriptors, was.directory)
        if _inode(dir_fd, was.name) != was.inode:
            return  # somebody has replaced it meanwhile
        descriptor = opened_for_owner(was.name, dir_fd)
        try:
            status = os.fstat(descriptor)
            if status.st_ino != was.inode:
                return
            self._observe("adjust_back", _path(was))
            uid, gid = was.uid, was.gid
            before = Wanted(was.mode, uid, gid, was.atime_ns, was.mtime_ns, was.access_acl)
            before.give(descriptor, status, read_acl(descriptor, ACCESS))
        finally:
            os.close(descriptor)


class _Clearing:
    """Removing hidden names, and what only the previous revision had."""

    def __init__(self, token: bytes, descriptors: Descriptors, observer: Observer) -> None:
        self._hidden = hidden_prefix(token)
        self._descriptors = descriptors
        self._observe = observer
        self.stuck: list[bytes] = []

    def restore(self, entry: Entry) -> None:
        """Afterwards the directory is as it was."""
        if isinstance(entry, Touched):
            dir_fd = _opened(self._descriptors, entry.path)
            for name in self._hidden_in(entry.path):
                self._observe("discard", entry.path + b"/" + name)
                remove_tree(dir_fd, name)
            self._observe("restore", entry.path)
            _restore_directory(dir_fd, entry)

    def finish(self, entry: Entry) -> bool:
        """Do what is left to do about this entry. Whether that was removing a file of the previous revision."""
        if isinstance(entry, Leftover):
            dir_fd = self._descriptors.of(entry.directory)
            status = os.stat(entry.name, dir_fd=dir_fd, follow_symlinks=False)
            if not is_as_left(entry.name, status, entry.record, dir_fd=dir_fd):
                raise _Changed
            self._observe("remove", _path(entry))
            os.unlink(entry.name, dir_fd=dir_fd)
            return True
        if isinstance(entry, LeftoverDirectory):
            above, _slash, name = entry.path.rpartition(b"/")
            self._observe("rmdir", entry.path)
            os.rmdir(name, dir_fd=self._descriptors.of(above or b"/"))
        elif isinstance(entry, LeftoverLabel):
            drop_label(entry.path)
        return False

    def forget_hidden(self, directory: bytes) -> list[bytes]:
        """Remove the hidden names in this directory; paths of those that can't be removed."""
        stuck: list[bytes] = []
        try:
            names, dir_fd = self._hidden_in(directory), self._descriptors.of(directory)
        except OSError as error:
            if error.errno not in _GONE:
                _log_stuck(directory, error)
                stuck.append(directory)
            return stuck
        for name in names:
            try:
                self._observe("forget", directory + b"/" + name)
                remove_tree(dir_fd, name)
            except OSError as error:
                _log_stuck(directory + b"/" + name, error)
                stuck.append(directory + b"/" + name)
        return stuck

    def _hidden_in(self, directory: bytes) -> list[bytes]:
        dir_fd = self._descriptors.of(directory)
        descriptor = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            with os.scandir(descriptor) as entries:
                names = [os.fsencode(entry.name) for entry in entries]
        finally:
            os.close(descriptor)
        return [name for name in names if name.startswith(self._hidden)]


def _log_stuck(path: bytes, error: OSError) -> None:
    # The Install has succeeded; what stays behind does not change that.
    log.warning("leftover_not_removed", path=os.fsdecode(path), error=error.strerror or str(error))


def _inode(dir_fd: int, name: bytes) -> int:
    """Of what has this name; 0 when nothing has."""
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return 0


def _log_others(entry: Change) -> None:
    log.warning("file_of_others_kept", path=os.fsdecode(_path(entry)))


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
