"""Writing files so that a reader, or a crash, never finds half of one; locks, and who holds one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO

_LOCKS = Path("/proc/locks")
_LOCK_MODE = 0o600


class FileDamaged(OSError):
    """A file of the agent's own is there, but nothing can be made of what is in it."""

    def __init__(self, path: Path) -> None:
        super().__init__(0, "what is in it is damaged", str(path))

    def __str__(self) -> str:
        """Without the number of an error of the system, which it is not."""
        return f"{self.filename}: {self.strerror}"


def replace_file(path: Path, content: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Afterwards `path` holds `content`: all of it, or, if anything fails, still what it held before.

    Args:
        path: its directory must exist.
        content: the bytes.
        mode: permission bits of the new file, whatever the umask.
        durable: also wait until it is on the disk, so that it survives a power loss.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        try:
            os.fchmod(descriptor, mode)
            write_all(descriptor, content)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
    if durable:
        sync_directory(path.parent)


def read_file(path: Path) -> bytes:
    """All that is in the file.

    Raises:
        OSError: it can't be read. It names the file in any case; Python's own does so only where opening it failed.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def is_directory(path: Path) -> bool:
    """Whether there is a directory here; a link to one counts.

    Raises:
        OSError: that can't be told, as without the permission to look. `Path.is_dir` may say no then,
            and what can't be seen must not be taken for what is not there.
    """
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise


def is_there(path: Path) -> bool:
    """Whether anything has this name, also a link that leads nowhere.

    Raises:
        OSError: that can't be told. `os.path.lexists` says no then.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """Write every byte: os.write may take fewer than it is given."""
    length = len(content)
    written = os.write(descriptor, content) if length else 0
    while written < length:
        written += os.write(descriptor, memoryview(content)[written:])


def sync_directory(path: Path) -> None:
    """Afterwards the names in this directory are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_at_once(path: Path) -> BinaryIO:
    """The file, for reading. A named pipe in its place is opened as well, instead of waiting for somebody who writes to it.

    Raises:
        OSError: it can't be opened.
    """
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))


def lock_file(directory: Path) -> Path:
    """The file that stands for this directory where somebody takes its lock, see `open_lock`."""
    return directory / ".lock"


def open_lock(path: Path) -> int:
    """A new descriptor of this lock file, which is made where there is none.

    Nobody else may open it. Whoever can read a file, or a directory, can take its lock, and would keep everybody
    waiting who has to have it: that must not be in the hands of a user whose hook once ran here.

    Raises:
        OSError: it can't be opened, or there is no such directory.
    """
    # For writing, too: over NFS nothing else can be locked.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _LOCK_MODE)
    try:
        # Such as after somebody has made all below the directory readable.
        if stat.S_IMODE(os.fstat(descriptor).st_mode) != _LOCK_MODE:
            os.fchmod(descriptor, _LOCK_MODE)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def take_lock(path: Path) -> int | None:
    """A descriptor that holds the lock of this file, until it and its copies are closed; None when somebody has it.

    Raises:
        OSError: as `open_lock`, or there are no locks here.
    """
    descriptor = open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return None
        raise
    return descriptor


def lock_holder(path: Path) -> int | None:
    """Pid of whoever has taken the lock of this file.

    Locks are handed down to children: that process may have ended, and one of its own holds on.
    None when there is no lock, or the kernel does not tell: it knows none of other pid namespaces,
    and names some file systems, such as btrfs, otherwise than stat does.

    Raises:
        OSError: this user may not look.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = _LOCKS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for fields in map(str.split, lines):
        # Lines of those who wait for a lock have an arrow before its kind.
        if fields[1] == "FLOCK" and fields[5] == file:
            pid = int(fields[4])
            return pid if pid > 0 else None
    return None
