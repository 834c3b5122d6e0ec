"""What a run does follows from its seed alone."""

from __future__ import annotations

import random

from chaos.schedule import (
    Disk,
    FaultKind,
    NetworkFault,
    Script,
    choose_network_fault,
    make_schedule,
)


def test_the_same_seed_gives_the_same_schedule() -> None:
    """A violation can only be looked into when its run can be repeated."""
    assert [make_schedule(seed) for seed in range(200)] == [make_schedule(seed) for seed in range(200)]


def test_a_few_hundred_seeds_do_everything_that_can_be_done() -> None:
    """A kind of fault that is never chosen would look as if the agent withstood it."""
    schedules = [make_schedule(seed) for seed in range(500)]
    assert set(FaultKind) == {action.kind for schedule in schedules for action in schedule.actions}
    assert set(Script) == {script for schedule in schedules for script in schedule.revisions}
    assert set(Disk) == {schedule.disk for schedule in schedules}


def test_a_run_that_fills_a_disk_has_a_small_disk_of_its_own() -> None:
    """The machine's own disk must never be filled."""
    for schedule in map(make_schedule, range(500)):
        kinds = {action.kind for action in schedule.actions}
        if kinds & {FaultKind.FULL_DISK, FaultKind.READ_ONLY}:
            assert schedule.disk is not Disk.SHARED


def test_every_network_fault_happens_and_none_without_a_share() -> None:
    """Faults must end when a run is to become quiet."""
    chance = random.Random(1)
    operations = ("PollHostCommand", "PutHostCommandComplete")
    seen = {choose_network_fault(chance, 0.5, operation) for _ in range(2000) for operation in operations}
    assert set(NetworkFault) == seen
    quiet = {choose_network_fault(chance, 0.0, operation) for _ in range(200) for operation in operations}
    assert {NetworkFault.NONE} == quiet
