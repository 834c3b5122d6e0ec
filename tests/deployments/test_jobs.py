"""Job records: what survives a crash, and who holds them."""

from __future__ import annotations

import errno
import os
import resource
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.deployments import CommandResult, DeploymentFacts, JobStore, RecordedProcess
from agent.files import FileDamaged
from agent.protocol import CommandStatus, HostCommand

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = HostCommand(
    identifier="id/with+odd=characters ü",
    host_identifier="arn:aws:iam::1:user/web",
    deployment_execution_id="us-east-1/1/d-A/1",
    name="Install",
    nonce=7,
)
FACTS = DeploymentFacts(
    deployment_id="d-A", deployment_group_id="g", deployment_group_name="group", application_name="app"
)
RESULT = CommandResult(status=CommandStatus.FAILED, error_code=5, message="m", payload="{}", error_id="e")


def test_a_record_gives_back_all_that_was_noted_in_it(tmp_path: Path) -> None:
    """The next daemon knows nothing else about the command."""
    job = JobStore(tmp_path).accept(COMMAND)
    worker = RecordedProcess(pid=4, start_ticks=5, boot_id="b")
    job.note_worker(worker)
    job.note_deployment(FACTS)
    job.note_step("run")
    job.note_result(RESULT)
    state = JobStore(tmp_path).jobs()[0].read()
    assert state is not None
    assert (COMMAND, worker, FACTS, "run", RESULT, 1) == (
        state.command,
        state.worker,
        state.deployment,
        state.step,
        state.result,
        state.attempts,
    )


@pytest.mark.parametrize("kept", [0, 1, 20, -3])
def test_a_line_that_was_cut_off_is_as_if_it_had_not_been_written(tmp_path: Path, kept: int) -> None:
    """Power went in the middle of the write: the step before it is what counts."""
    job = JobStore(tmp_path).accept(COMMAND)
    before = job.record.stat().st_size
    job.note_step("run")
    line = job.record.read_bytes()[before:]
    job.record.write_bytes(job.record.read_bytes()[:before] + line[:kept])
    state = job.read()
    assert state is not None
    assert "accepted" == state.step


def test_a_line_after_one_that_was_cut_off_can_be_read(tmp_path: Path) -> None:
    """The disk was full for a moment."""
    job = JobStore(tmp_path).accept(COMMAND)
    os.write(job._descriptor, b'{"entry": "step", "at": 1')
    job.note_step("run")
    state = job.read()
    assert state is not None
    assert "run" == state.step


def test_a_record_cut_off_in_its_first_line_says_nothing(tmp_path: Path) -> None:
    """Nothing had been done, and nobody had been told."""
    job = JobStore(tmp_path).accept(COMMAND)
    job.record.write_bytes(job.record.read_bytes()[:30])
    assert job.read() is None


@pytest.mark.parametrize("first", [b"\0\0\0", b"5", b"[]", b'{"entry": "accepted"}'])
def test_a_record_whose_first_line_is_damaged_is_not_taken_for_one_of_nothing(
    tmp_path: Path, first: bytes
) -> None:
    """Its command has run; to remove the record would be to say that nobody ever wanted it."""
    store = JobStore(tmp_path)
    job = store.accept(COMMAND)
    job.note_step("run")
    _accepted, step = filter(None, job.record.read_bytes().split(b"\n"))
    job.record.write_bytes(b"\n" + first + b"\n\n" + step + b"\n")
    with pytest.raises(FileDamaged):
        job.read()
    job.let_go()
    assert [job.directory] == [other.directory for other in store.undelivered()]


def test_records_are_listed_in_the_order_of_acceptance_and_found_by_identifier(tmp_path: Path) -> None:
    """The order decides whose turn it is."""
    store = JobStore(tmp_path)
    names = [f"command-{number}" for number in range(12)]
    for name in names:
        store.accept(HostCommand(identifier=name, host_identifier="h", deployment_execution_id="e", name="n"))
    read = [job.read() for job in store.jobs()]
    assert names == [state.command.identifier for state in read if state]
    found = store.find("command-7")
    assert found is not None
    assert [7, 7] == [found.number - 1, len(list(store.earlier(found)))]
    assert store.find("command-12") is None


def test_a_record_is_alive_as_long_as_the_process_that_inherited_its_lock(tmp_path: Path) -> None:
    """A pid can be somebody else's; a lock can't. It goes with the worker, however that ends."""
    job = JobStore(tmp_path).accept(COMMAND)
    worker = os.fork()
    if worker == 0:
        signal.pause()
        os._exit(0)
    job.let_go()
    seen_by_others = JobStore(tmp_path).jobs()[0]
    try:
        alive, taken = seen_by_others.is_alive(), seen_by_others.hold()
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
    assert (True, False) == (alive, taken)
    assert (False, True) == (seen_by_others.is_alive(), seen_by_others.hold())
    seen_by_others.let_go()


def test_a_removed_record_is_neither_found_nor_alive(tmp_path: Path) -> None:
    """What has been reported is history."""
    store = JobStore(tmp_path)
    job = store.accept(COMMAND)
    job.let_go()
    job.remove()
    assert ([], None, False, None) == (
        store.jobs(),
        store.find(COMMAND.identifier),
        job.is_alive(),
        job.read(),
    )


def test_a_half_made_record_goes_even_when_no_descriptor_is_left(tmp_path: Path) -> None:
    """Later commands wait for earlier ones, so one that nobody works on must not stay."""
    store = JobStore(tmp_path)
    store.accept(COMMAND).let_go()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/", os.O_RDONLY)
    os.close(free)
    # The listing needs one descriptor and gives it back, the record takes that one, and its directory needs a second.
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            store.accept(replace(COMMAND, identifier="second"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert [1] == [job.number for job in store.jobs()]


def test_a_half_made_record_that_could_not_be_removed_goes_before_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was read-only for a while."""
    store = JobStore(tmp_path)
    job = store.accept(COMMAND)
    with monkeypatch.context() as patch:
        patch.setattr(type(job.record), "unlink", _refuse)
        store.discard(job)
        with pytest.raises(OSError, match="Read-only"):
            store.accept(replace(COMMAND, identifier="second"))
    store.accept(replace(COMMAND, identifier="third"))
    assert [1] == [job.number for job in store.jobs()]


def _refuse(*_arguments: object, **_options: object) -> None:
    raise OSError(errno.EROFS, "Read-only file system")
