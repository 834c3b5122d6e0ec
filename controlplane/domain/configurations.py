"""Deployment configurations: how many hosts must stay healthy while a deployment runs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class HealthyHostsUnit(str, Enum):
    """What the value of a minimum counts."""

    HOST_COUNT = "HOST_COUNT"
    FLEET_PERCENT = "FLEET_PERCENT"


@dataclass(frozen=True, slots=True, kw_only=True)
class MinimumHealthyHosts:
    """A minimum as an operator writes it: a number of hosts, or a percentage of the fleet."""

    unit: HealthyHostsUnit
    value: int

    def required(self, fleet_size: int) -> int:
        """The number of hosts that must stay healthy; a percentage is rounded up to whole hosts."""
        if self.unit is HealthyHostsUnit.HOST_COUNT:
            return self.value
        return -(-self.value * fleet_size // 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentConfiguration:
    """A named rule. `minimum` is what the API shows of it."""

    name: str
    minimum: MinimumHealthyHosts

    def required(self, fleet_size: int) -> int:
        """The number of hosts that must stay healthy in a fleet of this size.

        The predefined configurations promise a number of hosts at a time rather than a percentage:
        99 % of ten hosts would round up to ten and deploy to none. So OneAtATime leaves room for exactly
        one host, and HalfAtATime for half of them, rounded down, but for at least one.
        """
        if self.name == ONE_AT_A_TIME.name:
            return max(0, fleet_size - 1)
        if self.name == HALF_AT_A_TIME.name:
            return max(0, fleet_size - max(1, fleet_size // 2))
        return self.minimum.required(fleet_size)


ONE_AT_A_TIME: Final = DeploymentConfiguration(
    name="CodeDeployDefault.OneAtATime",
    minimum=MinimumHealthyHosts(unit=HealthyHostsUnit.FLEET_PERCENT, value=99),
)
HALF_AT_A_TIME: Final = DeploymentConfiguration(
    name="CodeDeployDefault.HalfAtATime",
    minimum=MinimumHealthyHosts(unit=HealthyHostsUnit.FLEET_PERCENT, value=50),
)
ALL_AT_ONCE: Final = DeploymentConfiguration(
    name="CodeDeployDefault.AllAtOnce",
    minimum=MinimumHealthyHosts(unit=HealthyHostsUnit.HOST_COUNT, value=0),
)

PREDEFINED: Final = {rule.name: rule for rule in (ONE_AT_A_TIME, HALF_AT_A_TIME, ALL_AT_ONCE)}
RESERVED_PREFIX: Final = "CodeDeployDefault."
