"""The file systems that an Install changes, and waiting until all of that is on their disks."""

from __future__ import annotations

import ctypes
import os
import time
from contextlib import suppress
from typing import NoReturn

from agent.processes import die_with, kill_child

_PAUSE_S = 0.01
_NO_TIME_S = 0.001
_LAST_STANDARD = 2
_IN_MEMORY = frozenset({0x01021994, 0x858458F6})  # kinds of file systems, as statfs tells them: tmpfs, ramfs
_STATUS_BYTES = 256  # at least those of a struct statfs, which begins with the kind
_ALL = -1  # instead of a descriptor: all file systems there are


class Disks:
    """File systems, each known by a directory on it. Close it in the end."""

    def __init__(self) -> None:
        self._open: dict[int, int] = {}
        self._writer = 0

    def close(self) -> None:
        """Nobody writes any more on our account."""
        self._end_writing()
        for descriptor in self._opened():
            os.close(descriptor)
        self._open.clear()

    def __contains__(self, device: int) -> bool:
        return device in self._open

    def add(self, device: int, dir_fd: int) -> None:
        """From now on, each error that the disk of this device has is ours to know, too.

        Args:
            device: number of the device, not added yet.
            dir_fd: a directory on it.
        """
        try:
            descriptor = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
        except PermissionError:
            descriptor = _ALL  # we may change the directory, but not list it
        self._open[device] = descriptor

    def have_disk(self) -> bool:
        """Whether any of them has a disk, so that it takes a while until everything is there."""
        return any(not is_in_memory(descriptor) for descriptor in self._opened())

    def begin_writing(self) -> None:
        """Let the disks write already what is there, while more is coming; otherwise they would wait until the end."""
        directories = self._opened()
        if self._writer or not directories:
            return
        parent = os.getpid()
        with suppress(OSError):  # where there may not be another process, it takes longer
            self._writer = os.fork()
            if self._writer == 0:
                _write(parent, directories)

    def sync(self) -> None:
        """Wait until everything on these file systems is on the disk.

        One wait for each file system costs far less than one for each file.

        Raises:
            OSError: the disk does not take it.
        """
        self._end_writing()
        for descriptor in self._opened():
            sync_file_system(descriptor)
        if _ALL in self._open.values():
            os.sync()

    def _opened(self) -> list[int]:
        return [descriptor for descriptor in self._open.values() if descriptor != _ALL]

    def _end_writing(self) -> None:
        if self._writer:
            kill_child(self._writer)
            self._writer = 0


def sync_file_system(descriptor: int) -> None:
    """Wait until everything on the file system of this open directory is on the disk.

    Raises:
        OSError: the disk does not take it, or has had an error since the directory was opened.
    """
    # Python has no syncfs of its own.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def is_in_memory(descriptor: int) -> bool:
    """Whether the file system of this open directory has no disk; False when that can't be told."""
    return kind_of_file_system(descriptor) in _IN_MEMORY


def kind_of_file_system(descriptor: int) -> int | None:
    """The number by which statfs tells kinds of file systems apart; None when it does not.

    Args:
        descriptor: of something on it; it may stand for the place only.
    """
    # Python does not tell the kind.
    status = ctypes.create_string_buffer(_STATUS_BYTES)
    found = ctypes.CDLL(None, use_errno=True).fstatfs(descriptor, status)
    return int(ctypes.c_long.from_buffer(status).value) if found == 0 else None


def _close_all_but(descriptors: list[int]) -> None:
    """Let nobody wait for this process who waits for a lock or the end of a pipe of the other one."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > _LAST_STANDARD and int(name) not in descriptors:
            with suppress(OSError):
                os.close(int(name))


def _write(parent: int, directories: list[int]) -> NoReturn:
    """Sync again and again, at most two thirds of the time, until we are killed, or there is nothing to wait for."""
    try:
        die_with(parent)
        # Opened anew: an error is told once to each who has it open, and the other process is to learn of it.
        descriptors = [os.open(b".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=place) for place in directories]
        _close_all_but(descriptors)
        pause_s = _PAUSE_S
        while True:
            time.sleep(pause_s)
            start = time.monotonic()
            for descriptor in descriptors:
                sync_file_system(descriptor)
            took_s = time.monotonic() - start
            if took_s < _NO_TIME_S:
                break  # it is no disk
            pause_s = max(_PAUSE_S, took_s / 2)
    finally:
        os._exit(0)
