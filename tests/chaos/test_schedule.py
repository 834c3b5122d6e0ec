"""What a run does follows from its seed alone."""

from __future__ import annotations

import random

from chaos.faults import RANGE_FAULTS, FaultKind, NetworkFault, S3Fault, S3Faults, choose_network_fault
from chaos.schedule import BundleType, Disk, Script, make_schedule


def test_the_same_seed_gives_the_same_schedule() -> None:
    """A violation can only be looked into when its run can be repeated."""
    assert [make_schedule(seed) for seed in range(200)] == [make_schedule(seed) for seed in range(200)]


def test_a_few_hundred_seeds_do_everything_that_can_be_done() -> None:
    """A kind of fault that is never chosen would look as if the agent withstood it."""
    schedules = [make_schedule(seed) for seed in range(500)]
    assert set(FaultKind) == {action.kind for schedule in schedules for action in schedule.actions}
    assert set(Script) == {script for schedule in schedules for script in schedule.revisions}
    assert set(Disk) == {schedule.disk for schedule in schedules}
    assert set(BundleType) == {schedule.bundle_type for schedule in schedules}
    assert {True, False} == {schedule.tls for schedule in schedules}
    assert {True, False} == {schedule.pre_accept for schedule in schedules}
    assert {True, False} == {schedule.names_etag for schedule in schedules}


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


def test_a_fault_that_needs_a_condition_finds_it() -> None:
    """A certificate that nobody looks at, or a refusal that nobody asks for, would harm nothing."""
    for schedule in map(make_schedule, range(500)):
        kinds = {action.kind for action in schedule.actions}
        if kinds & {FaultKind.EXPIRED_CERTIFICATE, FaultKind.OTHER_CERTIFICATE}:
            assert schedule.tls
        if FaultKind.REFUSE in kinds:
            assert schedule.pre_accept


def test_every_fault_of_a_download_happens_and_none_without_a_share() -> None:
    """Ranges are asked for seldom: each way to answer them has its turn."""
    faults = S3Faults(7)
    seen = {faults.choose(1.0, is_range=False) for _ in range(500)}
    assert set(S3Fault) - {S3Fault.NONE, *RANGE_FAULTS} == seen
    assert set(RANGE_FAULTS) <= {faults.choose(1.0, is_range=True) for _ in range(20)}
    assert {S3Fault.NONE} == {faults.choose(0.0, is_range=True) for _ in range(100)}


def test_the_same_seed_gives_the_same_faults_of_downloads() -> None:
    """A violation can only be looked into when its run can be repeated."""
    one, other = S3Faults(7), S3Faults(7)
    assert [one.choose(0.5, is_range=True) for _ in range(100)] == (
        [other.choose(0.5, is_range=True) for _ in range(100)]
    )
