"""File systems on devices of our own, for what a file system in memory can't show: a loss of power, a missing volume."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.install.mounts import with_mounts

_SIZES = {"ext4": "32M", "btrfs": "128M"}
_OPTIONS = {"ext4": ["-q", "-F"], "btrfs": ["-q", "-f", "--mixed"]}


class Image:
    """A file with a file system in it, mounted at `place` or not. For processes with mounts of their own."""

    def __init__(self, kind: str, file: Path, place: Path) -> None:
        self.place = place
        self._file = file
        with file.open("wb"):
            os.truncate(file, _bytes(_SIZES[kind]))
        _run(f"mkfs.{kind}", *_OPTIONS[kind], file)

    def mount(self) -> None:
        """Afterwards it is there."""
        self.place.mkdir(exist_ok=True)
        _run("mount", "-o", "loop", self._file, self.place)

    def unmount(self) -> None:
        """Afterwards the place is an empty directory, as on a host whose volume is missing."""
        _run("umount", self.place)

    def save(self, copy: Path) -> None:
        """Copy what has reached the device by now: that is what a loss of power leaves."""
        _run("cp", "--sparse=always", self._file, copy)

    def load(self, copy: Path) -> None:
        """Afterwards the device holds this; it must not be mounted."""
        _run("cp", "--sparse=always", copy, self._file)


def skip_without(kind: str) -> None:
    """Skips the test where such a file system can't be made or mounted."""
    if not _is_possible(kind):
        pytest.skip(f"no {kind} in a file can be mounted here")


@functools.cache
def _is_possible(kind: str) -> bool:
    programs = (f"mkfs.{kind}", "mount", "umount")
    if os.geteuid() != 0 or not all(map(shutil.which, programs)):
        return False
    with tempfile.TemporaryDirectory() as directory:
        image = Image(kind, Path(directory, "image"), Path(directory, "place"))
        return with_mounts({}, lambda: _can_be_mounted(image))


def _can_be_mounted(image: Image) -> bool:
    try:
        image.mount()
    except AssertionError:
        return False
    image.unmount()
    return True


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}"


def _bytes(size: str) -> int:
    return int(size.removesuffix("M")) << 20
