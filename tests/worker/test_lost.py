"""What the report of a lost command says of how it was lost: what the agent saw, and no more."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from agent.deployments import JobStore, RecordedProcess
from agent.processes import boot_id
from agent.protocol import HostCommand
from agent.worker.results import lost_result

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("code", "boot", "told"),
    [
        (-signal.SIGKILL, "this", "was killed while it ran: by the kernel for lack of memory"),
        (-signal.SIGSEGV, "this", "was ended by signal 11 (SIGSEGV) while it ran"),
        (70, "this", "met an error of the agent's own while it ran, and ended with code 70"),
        (None, "this", "was killed while it ran, and no agent saw it"),
        (None, "another", "the host was restarted while it ran (AfterInstall)"),
    ],
)
def test_a_lost_command_says_how_its_worker_ended(
    tmp_path: Path, code: int | None, boot: str, told: str
) -> None:
    """People look for a reboot that never was."""
    store = JobStore(tmp_path)
    job = store.accept(
        HostCommand(identifier="c", host_identifier="h", deployment_execution_id="e", name="AfterInstall")
    )
    job.note_worker(
        RecordedProcess(pid=1, start_ticks=1, boot_id=boot_id() if boot == "this" else "an earlier one")
    )
    job.note_step("run")
    if code is not None:
        job.note_worker_end(code)
    state = job.read()
    job.let_go()
    assert state is not None
    result = lost_result(state, "Nothing was undone.")
    assert told in result.message
    assert 7 == result.error_code
    assert result.message.startswith("Failed: ")


def test_the_end_of_a_worker_that_had_not_begun_is_not_that_of_the_next_one(tmp_path: Path) -> None:
    """Its command was given to another worker, whose end is what counts."""
    store = JobStore(tmp_path)
    job = store.accept(
        HostCommand(identifier="c", host_identifier="h", deployment_execution_id="e", name="AfterInstall")
    )
    job.note_worker_end(70)
    job.note_worker(RecordedProcess(pid=1, start_ticks=1, boot_id=boot_id()))
    job.note_step("run")
    job.note_worker_end(-9)
    job.note_worker_end(70)
    state = job.read()
    job.let_go()
    assert state is not None
    assert -9 == state.worker_exit
