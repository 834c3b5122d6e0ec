"""How long a command waits for those of its group that came before it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from agent.deployments import CommandResult, DeploymentFacts, JobStore, RecordedProcess
from agent.protocol import CommandStatus, HostCommand
from agent.worker.turns import wait_for_turn

if TYPE_CHECKING:
    from pathlib import Path

    from agent.deployments import Job

NO_PATIENCE_S = 0.05


def accepted(jobs: JobStore, identifier: str) -> Job:
    """A record of a command of the group `shops`, held by this process."""
    command = HostCommand(
        identifier=identifier,
        host_identifier="h",
        deployment_execution_id="r/1/d-A/1",
        name="BeforeInstall",
        nonce=None,
    )
    job = jobs.accept(command)
    job.note_worker(RecordedProcess(pid=1, start_ticks=1, boot_id="b"))
    job.note_deployment(
        DeploymentFacts(
            deployment_id="d-A",
            deployment_group_id="shops",
            deployment_group_name="Shops",
            application_name="shop",
        )
    )
    return job


def note_result(job: Job) -> None:
    job.note_result(CommandResult(status=CommandStatus.SUCCEEDED, error_code=0, message="", payload="{}"))


@pytest.fixture
def jobs(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path)


def test_a_report_that_nobody_takes_does_not_hold_up_the_group_for_ever(jobs: JobStore) -> None:
    """The endpoint refuses one report, and goes on refusing it; the next deployment must not wait for that."""
    earlier, later = accepted(jobs, "1"), accepted(jobs, "2")
    note_result(earlier)
    wait_for_turn(later, "shops", jobs, patience_s=NO_PATIENCE_S)
    assert earlier.is_alive()


def test_a_command_whose_group_nobody_knows_does_not_hold_up_the_others_for_ever(jobs: JobStore) -> None:
    """The endpoint does not give its specification, which may take minutes; other groups have theirs."""
    unknown = jobs.accept(
        HostCommand(identifier="1", host_identifier="h", deployment_execution_id="r/1/d-A/1", name="Install")
    )
    unknown.note_worker(RecordedProcess(pid=1, start_ticks=1, boot_id="b"))
    later = accepted(jobs, "2")
    wait_for_turn(later, "shops", jobs, patience_s=NO_PATIENCE_S)
    assert unknown.is_alive()


def test_work_that_goes_on_is_waited_for_however_long_it_takes(jobs: JobStore) -> None:
    """Two deployments that write the same files at once leave neither of them."""
    earlier, later = accepted(jobs, "1"), accepted(jobs, "2")
    waiting = threading.Thread(
        target=wait_for_turn, args=(later, "shops", jobs), kwargs={"patience_s": 0}, daemon=True
    )
    waiting.start()
    waiting.join(4 * NO_PATIENCE_S)
    assert waiting.is_alive()
    note_result(earlier)
    earlier.let_go()
    waiting.join(10)
    assert not waiting.is_alive()


def test_another_group_is_not_waited_for(jobs: JobStore) -> None:
    """Different groups run side by side."""
    accepted(jobs, "1")
    later = accepted(jobs, "2")
    wait_for_turn(later, "others", jobs, patience_s=60)
