"""Deployment groups."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from controlplane.api.public.applications import SERVER_PLATFORM, require_application
from controlplane.api.public.call import PublicCall, PublicOperation, refuse_unsupported
from controlplane.api.public.deployment_configs import require_configuration
from controlplane.api.public.paging import page_of_names
from controlplane.api.public.tag_filters import parse_selection
from controlplane.domain.configurations import ONE_AT_A_TIME
from controlplane.domain.statuses import DeploymentStatus
from controlplane.errors import ServiceError
from controlplane.store.deployments import last_deployment
from controlplane.store.schema import DeploymentGroupRow, DeploymentRow

if TYPE_CHECKING:
    from collections.abc import Mapping

IN_PLACE: Final = {"deploymentType": "IN_PLACE", "deploymentOption": "WITHOUT_TRAFFIC_CONTROL"}
MAX_TAG_LISTS: Final = 3

_UNSUPPORTED: Final = {
    "ec2TagFilters": "InvalidEC2TagException",
    "ec2TagSet": "InvalidEC2TagCombinationException",
    "autoScalingGroups": "InvalidAutoScalingGroupException",
    "triggerConfigurations": "InvalidTriggerConfigException",
    "blueGreenDeploymentConfiguration": "InvalidBlueGreenDeploymentConfigurationException",
    "loadBalancerInfo": "InvalidLoadBalancerInfoException",
    "ecsServices": "InvalidECSServiceException",
    "ec2DeploymentOptions": "InvalidInputException",
    "terminationHookEnabled": "InvalidInputException",
    "tags": "InvalidTagsToAddException",
}


def create_group(call: PublicCall) -> dict[str, Any]:
    """The group exists."""
    parameters = call.parameters
    application = require_application(call, parameters["applicationName"])
    name = parameters["deploymentGroupName"]
    if _find(call, application.name, name) is not None:
        raise ServiceError(
            "DeploymentGroupAlreadyExistsException",
            f"Application {application.name} has a deployment group {name} already.",
        )
    _refuse_what_is_missing(parameters)
    config_name = parameters.get("deploymentConfigName", ONE_AT_A_TIME.name)
    require_configuration(call, config_name)
    tag_filters, tag_set = _host_tags(parameters)
    row = DeploymentGroupRow(
        id=str(uuid.uuid4()),
        application_name=application.name,
        name=name,
        deployment_config_name=config_name,
        service_role_arn=parameters["serviceRoleArn"],
        tag_filters=tag_filters,
        tag_set=tag_set,
        created_at=call.transaction.now,
    )
    call.transaction.session.add(row)
    return {"deploymentGroupId": row.id}


def get_group(call: PublicCall) -> dict[str, Any]:
    """One group."""
    require_application(call, call.parameters["applicationName"])
    row = require_group(call, call.parameters["applicationName"], call.parameters["deploymentGroupName"])
    return {"deploymentGroupInfo": _description(call, row)}


def batch_get_groups(call: PublicCall) -> dict[str, Any]:
    """Several groups of one application; names without a group are told in `errorMessage`."""
    application = require_application(call, call.parameters["applicationName"])
    rows = {name: _find(call, application.name, name) for name in call.parameters["deploymentGroupNames"]}
    absent = [name for name, row in rows.items() if row is None]
    return {
        "deploymentGroupsInfo": [_description(call, row) for row in rows.values() if row is not None],
        "errorMessage": f"No such deployment group: {', '.join(absent)}." if absent else None,
    }


def list_groups(call: PublicCall) -> dict[str, Any]:
    """Names of the application's groups."""
    application = require_application(call, call.parameters["applicationName"])
    query = select(DeploymentGroupRow.name).where(DeploymentGroupRow.application_name == application.name)
    names, token = page_of_names(call, call.transaction.session.scalars(query))
    return {"applicationName": application.name, "deploymentGroups": names, "nextToken": token}


def require_group(call: PublicCall, application_name: str, name: str) -> DeploymentGroupRow:
    """The group of this application; raises DeploymentGroupDoesNotExistException."""
    row = _find(call, application_name, name)
    if row is None:
        raise ServiceError(
            "DeploymentGroupDoesNotExistException",
            f"Application {application_name} has no deployment group {name}.",
        )
    return row


def refuse_automation(parameters: Mapping[str, Any]) -> None:
    """Raises ServiceError when rollbacks or alarms are asked for; switched off they are welcome."""
    if (parameters.get("autoRollbackConfiguration") or {}).get("enabled"):
        raise ServiceError(
            "InvalidAutoRollbackConfigException",
            "Automatic rollback is not available at this endpoint yet; leave it disabled.",
        )
    for member in ("alarmConfiguration", "overrideAlarmConfiguration"):
        alarms = parameters.get(member) or {}
        if alarms.get("enabled") or alarms.get("alarms"):
            raise ServiceError(
                "InvalidAlarmConfigException",
                f"{member} is not available at this endpoint yet; leave it out.",
            )


def _refuse_what_is_missing(parameters: Mapping[str, Any]) -> None:
    refuse_unsupported(parameters, _UNSUPPORTED)
    refuse_automation(parameters)
    style = IN_PLACE | (parameters.get("deploymentStyle") or {})
    if style != IN_PLACE:
        raise ServiceError(
            "InvalidDeploymentStyleException",
            f"deploymentStyle {style['deploymentType']}, {style['deploymentOption']} is not available at this "
            "endpoint yet; it deploys IN_PLACE, WITHOUT_TRAFFIC_CONTROL.",
        )
    if parameters.get("outdatedInstancesStrategy", "IGNORE") != "IGNORE":
        raise ServiceError(
            "InvalidInputException", "outdatedInstancesStrategy UPDATE is not available at this endpoint yet."
        )


def _host_tags(parameters: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    tag_filters = parameters.get("onPremisesInstanceTagFilters") or []
    tag_set = (parameters.get("onPremisesTagSet") or {}).get("onPremisesTagSetList") or []
    if tag_filters and tag_set:
        raise ServiceError(
            "InvalidOnPremisesTagCombinationException",
            "Give onPremisesInstanceTagFilters or onPremisesTagSet, not both.",
        )
    if len(tag_set) > MAX_TAG_LISTS:
        raise ServiceError(
            "TagSetListLimitExceededException", f"onPremisesTagSet has more than {MAX_TAG_LISTS} lists."
        )
    parse_selection(tag_filters, tag_set)
    return tag_filters, tag_set


def _find(call: PublicCall, application_name: str, name: str) -> DeploymentGroupRow | None:
    query = select(DeploymentGroupRow).where(
        DeploymentGroupRow.application_name == application_name, DeploymentGroupRow.name == name
    )
    return call.transaction.session.scalars(query).one_or_none()


def _description(call: PublicCall, row: DeploymentGroupRow) -> dict[str, Any]:
    session = call.transaction.session
    succeeded = last_deployment(session, row.id, DeploymentStatus.SUCCEEDED)
    return {
        "applicationName": row.application_name,
        "deploymentGroupId": row.id,
        "deploymentGroupName": row.name,
        "deploymentConfigName": row.deployment_config_name,
        "onPremisesInstanceTagFilters": row.tag_filters,
        "onPremisesTagSet": {"onPremisesTagSetList": row.tag_set} if row.tag_set else None,
        "serviceRoleArn": row.service_role_arn,
        "targetRevision": None if succeeded is None else succeeded.revision,
        "deploymentStyle": IN_PLACE,
        "outdatedInstancesStrategy": "IGNORE",
        "autoScalingGroups": [],
        "ec2TagFilters": [],
        "triggerConfigurations": [],
        "lastSuccessfulDeployment": _last(succeeded),
        "lastAttemptedDeployment": _last(last_deployment(session, row.id)),
        "computePlatform": SERVER_PLATFORM,
    }


def _last(deployment: DeploymentRow | None) -> dict[str, Any] | None:
    if deployment is None:
        return None
    return {
        "deploymentId": deployment.id,
        "status": deployment.status,
        "createTime": deployment.created_at,
        "endTime": deployment.completed_at,
    }


OPERATIONS: dict[str, PublicOperation] = {
    "CreateDeploymentGroup": create_group,
    "GetDeploymentGroup": get_group,
    "BatchGetDeploymentGroups": batch_get_groups,
    "ListDeploymentGroups": list_groups,
}
