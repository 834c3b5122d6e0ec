"""Deployment configurations: the predefined ones, and those an operator makes."""

from __future__ import annotations

import uuid
from typing import Any, Final

from sqlalchemy import select

from controlplane.api.public.call import PublicCall, PublicOperation, refuse_unsupported
from controlplane.api.public.paging import page_of_names
from controlplane.domain.configurations import (
    PREDEFINED,
    RESERVED_PREFIX,
    DeploymentConfiguration,
    HealthyHostsUnit,
    MinimumHealthyHosts,
)
from controlplane.errors import ServiceError
from controlplane.store.schema import DeploymentConfigurationRow

_PREDEFINED_IDS: Final = {
    name: str(uuid.uuid5(uuid.NAMESPACE_URL, f"codedeploy-control:{name}")) for name in PREDEFINED
}


def create_configuration(call: PublicCall) -> dict[str, Any]:
    """The configuration exists."""
    name = call.parameters["deploymentConfigName"]
    refuse_unsupported(
        call.parameters,
        {
            "trafficRoutingConfig": "InvalidTrafficRoutingConfigurationException",
            "zonalConfig": "InvalidZonalDeploymentConfigurationException",
        },
    )
    if call.parameters.get("computePlatform", "Server") != "Server":
        raise ServiceError("InvalidComputePlatformException", "This endpoint deploys to servers only.")
    if name.startswith(RESERVED_PREFIX):
        raise ServiceError(
            "InvalidDeploymentConfigNameException", f"Names with {RESERVED_PREFIX} are predefined."
        )
    if call.transaction.session.get(DeploymentConfigurationRow, name) is not None:
        raise ServiceError(
            "DeploymentConfigAlreadyExistsException", f"There is a configuration {name} already."
        )
    minimum = _parse_minimum(call.parameters.get("minimumHealthyHosts") or {})
    row = DeploymentConfigurationRow(
        name=name,
        id=str(uuid.uuid4()),
        unit=minimum.unit.value,
        value=minimum.value,
        created_at=call.transaction.now,
    )
    call.transaction.session.add(row)
    return {"deploymentConfigId": row.id}


def get_configuration(call: PublicCall) -> dict[str, Any]:
    """One configuration."""
    name = call.parameters["deploymentConfigName"]
    configuration = require_configuration(call, name)
    row = call.transaction.session.get(DeploymentConfigurationRow, name)
    description = {
        "deploymentConfigId": _PREDEFINED_IDS[name] if row is None else row.id,
        "deploymentConfigName": name,
        "minimumHealthyHosts": {
            "type": configuration.minimum.unit,
            "value": configuration.minimum.value,
        },
        "createTime": None if row is None else row.created_at,
        "computePlatform": "Server",
    }
    return {"deploymentConfigInfo": description}


def list_configurations(call: PublicCall) -> dict[str, Any]:
    """Names of all configurations, the predefined ones among them."""
    made = call.transaction.session.scalars(select(DeploymentConfigurationRow.name))
    names, token = page_of_names(call, [*PREDEFINED, *made])
    return {"deploymentConfigsList": names, "nextToken": token}


def require_configuration(call: PublicCall, name: str) -> DeploymentConfiguration:
    """The configuration of this name; raises DeploymentConfigDoesNotExistException."""
    if name in PREDEFINED:
        return PREDEFINED[name]
    row = call.transaction.session.get(DeploymentConfigurationRow, name)
    if row is None:
        raise ServiceError(
            "DeploymentConfigDoesNotExistException",
            f"There is no deployment configuration {name}; list-deployment-configs names them.",
        )
    minimum = MinimumHealthyHosts(unit=HealthyHostsUnit(row.unit), value=row.value)
    return DeploymentConfiguration(name=name, minimum=minimum)


def _parse_minimum(minimum: dict[str, Any]) -> MinimumHealthyHosts:
    value = minimum.get("value")
    if not minimum.get("type") or value is None:
        raise ServiceError(
            "InvalidMinimumHealthyHostValueException", "minimumHealthyHosts needs a type and a value."
        )
    unit = HealthyHostsUnit(minimum["type"])
    if value < 0 or (unit is HealthyHostsUnit.FLEET_PERCENT and value > 99):
        raise ServiceError(
            "InvalidMinimumHealthyHostValueException",
            f"minimumHealthyHosts {value} is out of range: 0 to 99 for FLEET_PERCENT, 0 or more for HOST_COUNT.",
        )
    return MinimumHealthyHosts(unit=unit, value=value)


OPERATIONS: dict[str, PublicOperation] = {
    "CreateDeploymentConfig": create_configuration,
    "GetDeploymentConfig": get_configuration,
    "ListDeploymentConfigs": list_configurations,
}
