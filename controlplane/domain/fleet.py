"""Which hosts of a deployment may start now, and when the deployment is over: the minimum-healthy rule.

A host counts as healthy unless its last deployment in this group failed. Starting a healthy host takes it
offline, so it may start only while more than the required number of healthy hosts would stay behind.
Unhealthy hosts go first: starting them costs nothing, and each that succeeds makes room for others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from controlplane.domain.statuses import DeploymentErrorCode, TargetStatus

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetHost:
    """One host of a deployment; `was_healthy` is its health when the deployment was created."""

    name: str
    status: TargetStatus
    was_healthy: bool

    @property
    def is_healthy(self) -> bool:
        """True when the host serves now: it is not being deployed to, and nothing failed on it."""
        if self.status is TargetStatus.SUCCEEDED:
            return True
        return self.status in {TargetStatus.PENDING, TargetStatus.SKIPPED} and self.was_healthy


@dataclass(frozen=True, slots=True, kw_only=True)
class StartHosts:
    """Start these now, in this order; the deployment goes on."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to start before a running host has finished."""


@dataclass(frozen=True, slots=True)
class Succeed:
    """Every host has finished and enough of them succeeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    """No further host may start, or too few succeeded; hosts not started are skipped."""

    code: DeploymentErrorCode


FleetDecision: TypeAlias = StartHosts | Wait | Succeed | Fail


def decide(hosts: Sequence[FleetHost], required: int) -> FleetDecision:
    """What happens next in a deployment to `hosts` (in starting order) that must keep `required` healthy."""
    if not hosts:
        return Fail(code=DeploymentErrorCode.NO_INSTANCES)
    startable = _startable(hosts, required)
    if startable:
        return StartHosts(names=startable)
    if any(host.status is TargetStatus.IN_PROGRESS for host in hosts):
        return Wait()
    if all(host.status is TargetStatus.PENDING for host in hosts):
        return Fail(code=DeploymentErrorCode.HEALTH_CONSTRAINTS_INVALID)
    succeeded = sum(host.status is TargetStatus.SUCCEEDED for host in hosts)
    finished = all(host.status.is_final for host in hosts)
    if finished and succeeded >= max(1, required):
        return Succeed()
    return Fail(code=DeploymentErrorCode.HEALTH_CONSTRAINTS)


def _startable(hosts: Sequence[FleetHost], required: int) -> tuple[str, ...]:
    """Unhealthy hosts first, never more at a time than the rule allows to be offline (but at least one)."""
    running = sum(host.status is TargetStatus.IN_PROGRESS for host in hosts)
    healthy = sum(host.is_healthy for host in hosts)
    free_slots = max(1, len(hosts) - required) - running
    pending = [host for host in hosts if host.status is TargetStatus.PENDING]
    chosen: list[str] = []
    for host in sorted(pending, key=lambda pending_host: pending_host.was_healthy):
        if len(chosen) >= free_slots:
            break
        if host.was_healthy:
            if healthy - 1 < required:
                break
            healthy -= 1
        chosen.append(host.name)
    return tuple(chosen)
