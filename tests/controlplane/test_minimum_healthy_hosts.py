"""The minimum-healthy rule: how many hosts at a time, when to stop, when it was enough."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.configurations import (
    ALL_AT_ONCE,
    HALF_AT_A_TIME,
    ONE_AT_A_TIME,
    HealthyHostsUnit,
    MinimumHealthyHosts,
)
from controlplane.domain.fleet import Fail, FleetHost, StartHosts, Succeed, Wait, decide
from controlplane.domain.statuses import DeploymentErrorCode, TargetStatus


def fresh_fleet(size: int, unhealthy: frozenset[int] = frozenset()) -> list[FleetHost]:
    return [
        FleetHost(name=str(number), status=TargetStatus.PENDING, was_healthy=number not in unhealthy)
        for number in range(size)
    ]


def with_status(hosts: list[FleetHost], names: tuple[str, ...], status: TargetStatus) -> list[FleetHost]:
    return [replace(host, status=status) if host.name in names else host for host in hosts]


@pytest.mark.parametrize(
    ("configuration", "size", "required"),
    [
        (ONE_AT_A_TIME, 1, 0),
        (ONE_AT_A_TIME, 2, 1),
        (ONE_AT_A_TIME, 1000, 999),
        (HALF_AT_A_TIME, 1, 0),
        (HALF_AT_A_TIME, 2, 1),
        (HALF_AT_A_TIME, 9, 5),
        (HALF_AT_A_TIME, 10, 5),
        (ALL_AT_ONCE, 1, 0),
        (ALL_AT_ONCE, 10, 0),
    ],
)
def test_predefined_configurations_leave_room_for_a_host(
    configuration: object, size: int, required: int
) -> None:
    """A group of one host must be deployable under every predefined configuration."""
    assert required == configuration.required(size)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("percent", "size", "required"),
    [(95, 10, 10), (85, 10, 9), (50, 9, 5), (0, 7, 0), (99, 1, 1), (1, 1000, 10)],
)
def test_percentages_are_rounded_up_to_whole_hosts(percent: int, size: int, required: int) -> None:
    """The arithmetic of the public user guide."""
    minimum = MinimumHealthyHosts(unit=HealthyHostsUnit.FLEET_PERCENT, value=percent)
    assert required == minimum.required(size)


def test_nothing_starts_when_all_must_stay_healthy() -> None:
    """95 % of ten hosts is ten hosts."""
    assert decide(fresh_fleet(10), 10) == Fail(code=DeploymentErrorCode.HEALTH_CONSTRAINTS_INVALID)


def test_two_failures_at_a_minimum_of_eight_of_ten_end_the_deployment() -> None:
    """The example of the public user guide."""
    hosts = with_status(fresh_fleet(10), ("0", "1"), TargetStatus.FAILED)
    assert decide(hosts, 8) == Fail(code=DeploymentErrorCode.HEALTH_CONSTRAINTS)


def test_one_failure_at_a_minimum_of_eight_of_ten_leaves_room_for_one() -> None:
    """A single bad host does not end a deployment that can afford it."""
    hosts = with_status(fresh_fleet(10), ("0",), TargetStatus.FAILED)
    assert decide(hosts, 8) == StartHosts(names=("1",))


def test_a_running_host_is_waited_for_before_the_deployment_fails() -> None:
    """The one that runs may succeed and make room."""
    hosts = with_status(fresh_fleet(3), ("0",), TargetStatus.FAILED)
    hosts = with_status(hosts, ("1",), TargetStatus.IN_PROGRESS)
    assert decide(hosts, 1) == Wait()


def test_unhealthy_hosts_start_first_and_one_by_one_when_none_may_be_lost() -> None:
    """Below the minimum already: healing is allowed, further loss is not."""
    hosts = fresh_fleet(4, frozenset({2, 3}))
    assert decide(hosts, 3) == StartHosts(names=("2",))


def test_an_unhealthy_host_that_fails_again_ends_a_deployment_without_room() -> None:
    """Nothing healthy may be touched, so there is nothing left to do."""
    hosts = with_status(fresh_fleet(2, frozenset({0})), ("0",), TargetStatus.FAILED)
    assert decide(hosts, 1) == Fail(code=DeploymentErrorCode.HEALTH_CONSTRAINTS)


def test_no_host_at_all_is_a_failure() -> None:
    """Nothing was deployed, so nothing succeeded."""
    assert decide([], 0) == Fail(code=DeploymentErrorCode.NO_INSTANCES)


FLEETS = st.integers(1, 25).flatmap(
    lambda size: st.tuples(
        st.just(size),
        st.frozensets(st.integers(0, size - 1)),
        st.integers(0, size + 2),
        st.randoms(use_true_random=False),
        st.lists(st.booleans(), min_size=size, max_size=size),
    )
)


@given(FLEETS)
def test_a_deployment_always_ends_and_never_takes_out_too_many(fleet: tuple) -> None:  # type: ignore[type-arg]
    """Whatever fails in whatever order: no deadlock, no host twice, never fewer healthy hosts than allowed."""
    size, unhealthy, required, random, outcomes = fleet
    hosts = fresh_fleet(size, unhealthy)
    floor = min(required, sum(host.is_healthy for host in hosts))
    failures_of_healthy = 0
    for _ in range(4 * size + 4):
        decision = decide(hosts, required)
        if isinstance(decision, (Succeed, Fail)):
            break
        if isinstance(decision, StartHosts):
            chosen = {host.name: host.status for host in hosts if host.name in decision.names}
            assert set(chosen.values()) == {TargetStatus.PENDING}
            assert len(chosen) == len(decision.names)
            hosts = with_status(hosts, decision.names, TargetStatus.IN_PROGRESS)
            assert sum(host.is_healthy for host in hosts) >= floor
            continue
        running = [host for host in hosts if host.status is TargetStatus.IN_PROGRESS]
        host = random.choice(running)
        succeeded = outcomes[int(host.name)]
        failures_of_healthy += host.was_healthy and not succeeded
        status = TargetStatus.SUCCEEDED if succeeded else TargetStatus.FAILED
        hosts = with_status(hosts, (host.name,), status)
        assert sum(host.is_healthy for host in hosts) >= floor
    else:
        pytest.fail("the deployment did not end")
    succeeded_hosts = sum(host.status is TargetStatus.SUCCEEDED for host in hosts)
    if decision == Succeed():
        assert all(host.status.is_final for host in hosts)
        assert succeeded_hosts >= max(1, required)
    else:
        assert not any(host.status is TargetStatus.IN_PROGRESS for host in hosts)


@given(st.integers(1, 60), st.sampled_from([ONE_AT_A_TIME, HALF_AT_A_TIME, ALL_AT_ONCE]))
def test_a_good_revision_reaches_every_host_under_every_predefined_configuration(
    size: int, configuration: object
) -> None:
    """Nobody is forgotten, and the promised number of hosts at a time is kept."""
    required = configuration.required(size)  # type: ignore[attr-defined]
    at_a_time = {ONE_AT_A_TIME: 1, HALF_AT_A_TIME: max(1, size // 2), ALL_AT_ONCE: size}[configuration]  # type: ignore[index]
    hosts = fresh_fleet(size)
    while (decision := decide(hosts, required)) != Succeed():
        if isinstance(decision, StartHosts):
            hosts = with_status(hosts, decision.names, TargetStatus.IN_PROGRESS)
            assert sum(host.status is TargetStatus.IN_PROGRESS for host in hosts) <= at_a_time
        else:
            assert decision == Wait()
            running = [host.name for host in hosts if host.status is TargetStatus.IN_PROGRESS]
            hosts = with_status(hosts, (running[0],), TargetStatus.SUCCEEDED)
    assert all(host.status is TargetStatus.SUCCEEDED for host in hosts)


@given(st.integers(1, 60), st.integers(0, 99))
def test_a_percentage_never_asks_for_less_than_it_says(size: int, percent: int) -> None:
    """Rounding is on the side of the users of the service."""
    required = MinimumHealthyHosts(unit=HealthyHostsUnit.FLEET_PERCENT, value=percent).required(size)
    assert 100 * required >= percent * size > 100 * (required - 1)
