"""What a deployment did on each host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from controlplane.api.public.deployments import require_deployment
from controlplane.api.public.paging import page_of_names
from controlplane.domain.lifecycle import IN_PLACE_EVENTS
from controlplane.domain.statuses import EventStatus, TargetStatus
from controlplane.errors import ServiceError
from controlplane.store import deployments as store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.api.public.call import PublicCall, PublicOperation
    from controlplane.store.schema import HostCommandRow, TargetRow

MAX_BATCH: Final = 25
_STATUS_FILTER: Final = "TargetStatus"


def list_targets(call: PublicCall) -> dict[str, Any]:
    """Names of the deployment's hosts, those in the wanted statuses if any are named."""
    deployment = require_deployment(call, _deployment_id(call))
    filters: Mapping[str, list[str]] = call.parameters.get("targetFilters") or {}
    for name in filters:
        if name != _STATUS_FILTER:
            raise ServiceError(
                "InvalidTargetFilterNameException", f"targetFilters knows {_STATUS_FILTER} here, not {name}."
            )
    wanted = filters.get(_STATUS_FILTER)
    names = [
        host.name
        for host in store.fleet(call.transaction.session, deployment.id)
        if wanted is None or host.status.value in wanted
    ]
    page, token = page_of_names(call, names)
    return {"targetIds": page, "nextToken": token}


def get_target(call: PublicCall) -> dict[str, Any]:
    """One host of the deployment."""
    return {"deploymentTarget": _targets(call, [call.parameters["targetId"]])[0]}


def batch_get_targets(call: PublicCall) -> dict[str, Any]:
    """Several hosts of the deployment, at most 25; a name that is none of them is an error."""
    names = call.parameters["targetIds"]
    if not names:
        raise ServiceError("DeploymentTargetIdRequiredException", "targetIds is empty.")
    if len(names) > MAX_BATCH:
        raise ServiceError(
            "DeploymentTargetListSizeExceededException", f"At most {MAX_BATCH} targets at a time."
        )
    return {"deploymentTargets": _targets(call, names)}


def _targets(call: PublicCall, names: list[str]) -> list[dict[str, Any]]:
    session = call.transaction.session
    deployment = require_deployment(call, _deployment_id(call))
    commands = store.commands_of(session, deployment.id, names)
    descriptions = []
    for name in names:
        target = store.find_target(session, deployment.id, name)
        if target is None:
            raise ServiceError(
                "DeploymentTargetDoesNotExistException", f"{name} is no target of deployment {deployment.id}."
            )
        descriptions.append(_description(target, commands[name]))
    return descriptions


def _deployment_id(call: PublicCall) -> str:
    deployment_id: str | None = call.parameters.get("deploymentId")
    if not deployment_id:
        raise ServiceError("DeploymentIdRequiredException", "deploymentId is required.")
    return deployment_id


def _description(target: TargetRow, commands: Mapping[int, HostCommandRow]) -> dict[str, Any]:
    spoken = [moment for row in commands.values() for moment in (row.heard_at, row.completed_at) if moment]
    instance = {
        "deploymentId": target.deployment_id,
        "targetId": target.instance_name,
        "targetArn": target.instance_arn,
        "status": target.status,
        "lastUpdatedAt": max([target.updated_at, *spoken]),
        "lifecycleEvents": [
            _event(name, commands.get(position), target.status)
            for position, name in enumerate(IN_PLACE_EVENTS)
        ],
    }
    return {"deploymentTargetType": "InstanceTarget", "instanceTarget": instance}


def _event(name: str, command: HostCommandRow | None, target_status: TargetStatus) -> dict[str, Any]:
    """An event without a command has not become ready; once the host is done it never will."""
    if command is None:
        status = EventStatus.SKIPPED if target_status.is_final else EventStatus.PENDING
        return {"lifecycleEventName": name, "status": status}
    return {
        "lifecycleEventName": name,
        "status": command.status,
        "startTime": command.acknowledged_at,
        "endTime": command.completed_at,
        "diagnostics": _diagnostics(command),
    }


def _diagnostics(command: HostCommandRow) -> dict[str, Any] | None:
    if command.error_code is None:
        return None
    return {
        "errorCode": command.error_code,
        "scriptName": command.script_name or "",
        "message": command.message or "",
        "logTail": command.log_tail or "",
    }


OPERATIONS: dict[str, PublicOperation] = {
    "ListDeploymentTargets": list_targets,
    "GetDeploymentTarget": get_target,
    "BatchGetDeploymentTargets": batch_get_targets,
}
