"""What was installed is on the disk when Install says so; another process has the disk write before."""

from __future__ import annotations

import fcntl
import os
import pwd
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from agent.install.posix.disks import Disks
from tests.install.children import in_child, own_children
from tests.install.host import Host, failure_of
from tests.install.images import Image, skip_without
from tests.install.mounts import needs_mounts, with_mounts

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = pwd.getpwnam("nobody").pw_uid
PATIENCE_S = 10


def opened(disks: Disks, directory: Path) -> None:
    """Add the file system of this directory."""
    descriptor = os.open(directory, os.O_PATH)
    try:
        disks.add(directory.stat().st_dev, descriptor)
    finally:
        os.close(descriptor)


def test_who_has_the_disk_write_is_gone_in_the_end(tmp_path: Path) -> None:
    """A process left behind would hold up the next deployment."""
    before = own_children()
    with closing(Disks()) as disks:
        opened(disks, tmp_path)
        disks.begin_writing()
        disks.begin_writing()
        assert 1 == len(own_children() - before)
        disks.sync()
        assert set() == own_children() - before
        disks.begin_writing()
    assert set() == own_children() - before


def test_who_has_the_disk_write_holds_no_lock(tmp_path: Path) -> None:
    """When a worker is killed, its lock tells; this one may be busy with a slow disk for longer."""
    with closing(Disks()) as disks:
        opened(disks, tmp_path)
        mine = os.open(tmp_path / "lock", os.O_CREAT | os.O_WRONLY, 0o600)
        fcntl.flock(mine, fcntl.LOCK_EX)
        disks.begin_writing()
        os.close(mine)
        with open(tmp_path / "lock", "wb") as other:
            end = time.monotonic() + PATIENCE_S
            while True:
                try:
                    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    assert time.monotonic() < end
                    time.sleep(0.001)


def test_where_there_may_be_no_other_process_the_disk_is_synced_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It only takes longer."""

    def fork() -> int:
        raise BlockingIOError

    with closing(Disks()) as disks, monkeypatch.context() as patch:
        patch.setattr(os, "fork", fork)
        opened(disks, tmp_path)
        disks.begin_writing()
        disks.sync()
        assert tmp_path.stat().st_dev in disks


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="root becomes another user")
def test_a_directory_that_can_be_written_and_not_listed_is_installed_into(host: Host, tmp_path: Path) -> None:
    """Some keep what is in a directory from those who put things there."""
    host.base.chmod(0o777)
    Host(tmp_path).install({"app/a": "a"})  # what only root may read is loaded by now

    def body() -> tuple[str, dict[str, object]]:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        (host.dest / "app").mkdir(parents=True)
        (host.dest / "app").chmod(0o300)
        failure = failure_of(lambda: host.install({"app/a": "a"}, durable=True))
        (host.dest / "app").chmod(0o755)
        return str(failure), host.tree()

    assert ("None", {"app/": None, "app/a": "a"}) == in_child(body)


@needs_mounts
def test_a_file_system_in_memory_has_no_disk(tmp_path: Path) -> None:
    """Nobody need write there before the end, and a process costs time."""

    def has_disk() -> bool:
        with closing(Disks()) as disks:
            opened(disks, tmp_path / "memory")
            return disks.have_disk()

    assert not with_mounts({tmp_path / "memory": "size=1m"}, has_disk)


def test_a_file_system_on_a_device_has_a_disk(tmp_path: Path) -> None:
    """Its disk writes meanwhile."""
    skip_without("ext4")

    def has_disk() -> bool:
        image = Image("ext4", tmp_path / "image", tmp_path / "place")
        image.mount()
        with closing(Disks()) as disks:
            opened(disks, image.place)
            return disks.have_disk()

    assert with_mounts({}, has_disk)
