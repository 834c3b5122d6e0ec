"""Putting everything back, or completing an Install that has succeeded; both from the journal alone.

Both can be interrupted and begun again at any point: they look at which names exist.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import closing, suppress
from typing import TYPE_CHECKING, TypeAlias

from agent.install.acl import ACCESS, DEFAULT, read_acl, write_acl
from agent.install.descriptors import Descriptors, remove_tree
from agent.install.journal import (
    Change,
    Label,
    Leftover,
    LeftoverDirectory,
    LeftoverLabel,
    Touched,
    mark_staging,
    new_name,
    old_name,
)
from agent.install.removals import is_as_left
from agent.install.selinux import drop_label
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.install.apply import Observer
    from agent.install.journal import Entry, Journal

log = get_logger()


def undo(journal: Journal, observer: Observer) -> list[str]:
    """Afterwards the previous revision is whole again; what could not be put back is listed.

    First everything gets its old name back and the new files their hidden ones, then those go.
    In between, the journal goes back to the phase `staging`, so that an undo that is interrupted
    never takes a file for ours because its hidden name is missing.
    """
    failures: list[str] = []
    with closing(Descriptors()) as descriptors:
        if journal.is_switching:
            failures = _each(_switch_back, journal, descriptors, observer)
            if failures:
                return failures
            mark_staging(journal.path)
        return _each(_remove_new, journal, descriptors, observer)


def finish(journal: Journal, observer: Observer) -> tuple[int, list[str]]:
    """Afterwards what only the previous revision had is gone, and all hidden names.

    Returns:
        How many files and links were removed, and the paths of those that were kept, because
        somebody has changed them since the previous Install.
    """
    removed = 0
    kept: list[str] = []
    with closing(Descriptors()) as descriptors:
        for entry in journal.entries():
            try:
                if _finish_entry(journal, descriptors, entry, observer):
                    removed += 1
            except _Changed:
                kept.append(os.fsdecode(_path(entry)))
            except OSError as error:
                # The Install has succeeded; what stays behind does not change that.
                if error.errno not in _GONE:
                    log.warning("leftover_not_removed", path=os.fsdecode(_path(entry)), error=error.strerror)
    return removed, kept


class _Changed(Exception):
    """Somebody has changed this file since Install wrote it."""


_GONE = frozenset({errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.ELOOP})


_Step: TypeAlias = "Callable[[Journal, Descriptors, Entry, Observer], None]"


def _each(step: _Step, journal: Journal, descriptors: Descriptors, observer: Observer) -> list[str]:
    """Run the step for every entry, newest first; errors are noted, so that the rest is still tried."""
    failures: list[str] = []
    for entry in journal.entries(newest_first=True):
        try:
            step(journal, descriptors, entry, observer)
        except OSError as error:
            # A directory that somebody has removed meanwhile needs no undoing.
            if error.errno != errno.ENOENT:
                failures.append(f"{os.fsdecode(_path(entry))}: {error.strerror or error}")
    return failures


def _path(entry: Entry) -> bytes:
    if isinstance(entry, Change | Leftover):
        return entry.directory.rstrip(b"/") + b"/" + entry.name
    return entry.path


def _switch_back(journal: Journal, descriptors: Descriptors, entry: Entry, observer: Observer) -> None:
    if isinstance(entry, Label):
        drop_label(entry.path)
        return
    if not isinstance(entry, Change):
        return
    dir_fd = descriptors.of(entry.directory)
    new, old = new_name(journal.token, entry.number), old_name(journal.token, entry.number)
    if not _exists(dir_fd, new):
        observer("take_back", _path(entry))
        os.rename(entry.name, new, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    if not _exists(dir_fd, old):
        return
    observer("put_back", _path(entry))
    if _exists(dir_fd, entry.name):
        os.unlink(old, dir_fd=dir_fd)  # a second name of what is there
    else:
        os.rename(old, entry.name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)


def _remove_new(journal: Journal, descriptors: Descriptors, entry: Entry, observer: Observer) -> None:
    if isinstance(entry, Change):
        observer("discard", _path(entry))
        remove_tree(descriptors.of(entry.directory), new_name(journal.token, entry.number))
    elif isinstance(entry, Touched):
        observer("restore", entry.path)
        _restore_directory(descriptors.of(entry.path), entry)


def _restore_directory(dir_fd: int, was: Touched) -> None:
    now = os.stat(b".", dir_fd=dir_fd)
    if (now.st_uid, now.st_gid) != (was.uid, was.gid):
        os.chown(b".", was.uid, was.gid, dir_fd=dir_fd)
    if stat.S_IMODE(now.st_mode) != was.mode:
        os.chmod(b".", was.mode, dir_fd=dir_fd)
    if was.is_ours:
        descriptor = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            for name, value in ((ACCESS, was.access_acl), (DEFAULT, was.default_acl)):
                if read_acl(descriptor, name) != value:
                    write_acl(descriptor, name, value)
        finally:
            os.close(descriptor)
    # Only its owner may set times; where we are not, the new ones do no harm.
    with suppress(PermissionError):
        os.utime(b".", ns=(was.atime_ns, was.mtime_ns), dir_fd=dir_fd)


def _finish_entry(journal: Journal, descriptors: Descriptors, entry: Entry, observer: Observer) -> bool:
    """Do what is left to do about this entry. Whether that was removing a file of the previous revision."""
    if isinstance(entry, Change):
        if entry.replaces:
            observer("forget", _path(entry))
            remove_tree(descriptors.of(entry.directory), old_name(journal.token, entry.number))
    elif isinstance(entry, Leftover):
        dir_fd = descriptors.of(entry.directory)
        status = os.stat(entry.name, dir_fd=dir_fd, follow_symlinks=False)
        if not is_as_left(entry.name, status, entry.record, dir_fd=dir_fd):
            raise _Changed
        observer("remove", _path(entry))
        os.unlink(entry.name, dir_fd=dir_fd)
        return True
    elif isinstance(entry, LeftoverDirectory):
        above, _slash, name = entry.path.rpartition(b"/")
        observer("rmdir", entry.path)
        os.rmdir(name, dir_fd=descriptors.of(above or b"/"))
    elif isinstance(entry, LeftoverLabel):
        drop_label(entry.path)
    return False


def _exists(dir_fd: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
