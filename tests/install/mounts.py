"""Small file systems of our own, that nobody else sees and that go with the process."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.install.children import in_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

needs_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")


def with_mounts(places: dict[Path, str], body: Callable[[], T]) -> T:
    """What the body returns in a process for which there is a tmpfs at each place, with these options."""

    def mounted() -> T:
        libc = ctypes.CDLL(None, use_errno=True)
        _check(libc.unshare(_CLONE_NEWNS))
        _check(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
        for place, options in places.items():
            place.mkdir(parents=True, exist_ok=True)
            _check(libc.mount(b"none", os.fsencode(place), b"tmpfs", 0, options.encode()))
        return body()

    return in_child(mounted)


def _check(status: int) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Filler:
    """A file that takes all room but some of the file system at `place`."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def leave_pages(self, number: int) -> None:
        """Afterwards so many pages are free."""
        self.remove()
        statistics = os.statvfs(self._place)
        size = (statistics.f_bavail - number) * statistics.f_frsize
        with (self._place / "filler").open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, size) if size > 0 else None

    def leave_inodes(self, number: int) -> None:
        """Afterwards so many inodes are free."""
        self.remove()
        directory = self._place / "fillers"
        directory.mkdir()
        for count in range(os.statvfs(self._place).f_favail - number):
            (directory / str(count)).touch()

    def remove(self) -> None:
        """Afterwards it takes no room."""
        (self._place / "filler").unlink(missing_ok=True)
        directory = self._place / "fillers"
        if directory.exists():
            for path in directory.iterdir():
                path.unlink()
            directory.rmdir()
