"""Who may hold the lock of a directory, and who does, as the kernel tells."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import signal
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.daemon.lock import AgentLock
from agent.deployments import JobStore
from agent.deployments.group import GroupBusy, group_lock, group_lock_at_once, group_lock_file
from agent.files import lock_file, lock_holder, open_lock
from agent.protocol import HostCommand

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Event


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[int]:
    """The test's directory is locked by this process; yields the descriptor."""
    descriptor = open_lock(lock_file(tmp_path))
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield descriptor
    os.close(descriptor)


@pytest.mark.usefixtures("locked")
def test_who_has_the_lock_is_known_by_pid(tmp_path: Path) -> None:
    """The message that names it can be acted upon."""
    assert os.getpid() == lock_holder(lock_file(tmp_path))


@pytest.mark.usefixtures("locked")
def test_what_nobody_has_locked_has_no_holder(tmp_path: Path) -> None:
    """Also when the directory above it is locked."""
    below = tmp_path / "below"
    below.mkdir()
    assert None is lock_holder(lock_file(below))
    os.close(open_lock(lock_file(below)))
    assert None is lock_holder(lock_file(below))


def test_a_lock_of_another_kind_does_not_count(tmp_path: Path) -> None:
    """A record lock on the same file keeps nobody away."""
    with open(lock_file(tmp_path), "w") as stream:
        fcntl.lockf(stream, fcntl.LOCK_EX)
        assert None is lock_holder(lock_file(tmp_path))


def _wait(path: Path, ready: Connection, over: Event) -> None:
    descriptor = open_lock(lock_file(path))
    ready.send(None)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    over.set()


def test_a_group_that_is_at_work_is_busy_and_its_holder_named(tmp_path: Path) -> None:
    """Nobody is waited for where somebody sits in front of a terminal."""
    group = tmp_path / "group"
    with group_lock(group), pytest.raises(GroupBusy) as raised, group_lock_at_once(group):
        pass
    assert os.getpid() == raised.value.holder


def test_a_group_without_a_directory_has_no_holder(tmp_path: Path) -> None:
    """Nothing was ever deployed there, and looking makes no directory."""
    assert None is lock_holder(group_lock_file(tmp_path / "group"))
    assert [] == os.listdir(tmp_path)


def test_a_group_is_free_after_the_block(tmp_path: Path) -> None:
    """And made, where it was not there."""
    group = tmp_path / "root" / "group"
    with group_lock(group):
        assert os.getpid() == lock_holder(group_lock_file(group))
    with group_lock_at_once(group):
        pass
    assert None is lock_holder(group_lock_file(group))


def test_those_who_wait_for_a_lock_are_not_taken_for_its_holder(tmp_path: Path, locked: int) -> None:
    """The kernel lists them, too."""
    context = multiprocessing.get_context("fork")
    ready, sender = context.Pipe(duplex=False)
    over = context.Event()
    process = context.Process(target=_wait, args=(tmp_path, sender, over))
    process.start()
    ready.recv()
    assert os.getpid() == lock_holder(lock_file(tmp_path))
    fcntl.flock(locked, fcntl.LOCK_UN)
    assert over.wait(10)
    process.join()


def lock_all_that_can_be_opened(directory: Path) -> list[str]:
    """What a user without rights has locked below the directory, until this process ends; in a process of its own."""
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    found = [directory, *directory.rglob("*")]
    locked = []
    for path in found:
        try:
            fcntl.flock(os.open(path, os.O_RDONLY | os.O_NONBLOCK), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        locked.append(str(path))
    return locked


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_no_other_user_can_keep_the_agent_from_its_locks() -> None:
    """A user whose hook once ran here could hold up every deployment of the host for ever, with one `flock`."""
    directory = Path(tempfile.mkdtemp(prefix="locks-"))  # not tmp_path: others may not enter that
    directory.chmod(0o755)
    group = directory / "group"
    store = JobStore(directory)
    command = HostCommand(identifier="c", host_identifier="", deployment_execution_id="", name="n")
    try:
        with group_lock(group):
            job = store.accept(command)
        job.let_go()
        AgentLock(directory).acquire()
        context = multiprocessing.get_context("fork")
        locked, sender = context.Pipe(duplex=False)

        def attack() -> None:
            sender.send(lock_all_that_can_be_opened(directory))
            signal.pause()

        attacker = context.Process(target=attack)
        attacker.start()
        try:
            assert str(group) in locked.recv()
            with group_lock_at_once(group):
                pass
            assert not job.is_alive()
            assert job.hold()
            job.let_go()
            AgentLock(group).acquire()
        finally:
            attacker.kill()
            attacker.join()
    finally:
        shutil.rmtree(directory)


def test_a_lock_that_others_have_been_allowed_to_open_is_closed_to_them_again(tmp_path: Path) -> None:
    """Somebody made all below the directory readable."""
    lock = tmp_path / "lock"
    os.close(open_lock(lock))
    lock.chmod(0o644)
    os.close(open_lock(lock))
    assert 0o600 == stat.S_IMODE(lock.stat().st_mode)
