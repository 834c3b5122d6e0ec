"""Who holds the lock of a file or directory, as the kernel tells."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
from typing import TYPE_CHECKING

import pytest

from agent.deployments.group import GroupBusy, group_holder, group_lock, group_lock_at_once
from agent.files import lock_holder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Event
    from pathlib import Path


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[int]:
    """The test's directory is locked by this process; yields the descriptor."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield descriptor
    os.close(descriptor)


def test_who_has_the_lock_is_known_by_pid(locked: int) -> None:
    """The message that names it can be acted upon."""
    assert os.getpid() == lock_holder(os.fstat(locked))


def test_what_nobody_has_locked_has_no_holder(tmp_path: Path) -> None:
    """Also when the file beside it is locked."""
    (tmp_path / "file").touch()
    assert None is lock_holder(os.stat(tmp_path / "file"))


def test_a_lock_of_another_kind_does_not_count(tmp_path: Path) -> None:
    """A record lock on the same file keeps nobody away."""
    with open(tmp_path / "file", "w") as stream:
        fcntl.lockf(stream, fcntl.LOCK_EX)
        assert None is lock_holder(os.fstat(stream.fileno()))


def _wait(path: Path, ready: Connection, over: Event) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    ready.send(None)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    over.set()


@pytest.mark.usefixtures("locked")
def test_a_group_that_is_at_work_is_busy_and_its_holder_named(tmp_path: Path) -> None:
    """Nobody is waited for where somebody sits in front of a terminal."""
    with pytest.raises(GroupBusy) as raised, group_lock_at_once(tmp_path):
        pass
    assert (os.getpid(), os.getpid()) == (raised.value.holder, group_holder(tmp_path))


def test_a_group_without_a_directory_has_no_holder(tmp_path: Path) -> None:
    """Nothing was ever deployed there, and looking makes no directory."""
    assert None is group_holder(tmp_path / "group")
    assert [] == os.listdir(tmp_path)


def test_a_group_is_free_after_the_block(tmp_path: Path) -> None:
    """And made, where it was not there."""
    group = tmp_path / "root" / "group"
    with group_lock(group):
        assert os.getpid() == group_holder(group)
    with group_lock_at_once(group):
        pass
    assert None is group_holder(group)


def test_those_who_wait_for_a_lock_are_not_taken_for_its_holder(tmp_path: Path, locked: int) -> None:
    """The kernel lists them, too."""
    context = multiprocessing.get_context("fork")
    ready, sender = context.Pipe(duplex=False)
    over = context.Event()
    process = context.Process(target=_wait, args=(tmp_path, sender, over))
    process.start()
    ready.recv()
    assert os.getpid() == lock_holder(os.fstat(locked))
    fcntl.flock(locked, fcntl.LOCK_UN)
    assert over.wait(10)
    process.join()
