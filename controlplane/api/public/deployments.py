"""Deployments: create, look at, stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import structlog
from sqlalchemy import select

from controlplane.api.public.applications import SERVER_PLATFORM, require_application
from controlplane.api.public.call import PublicCall, PublicOperation, refuse_unsupported
from controlplane.api.public.deployment_configs import require_configuration
from controlplane.api.public.deployment_groups import IN_PLACE, refuse_automation, require_group
from controlplane.api.public.paging import PAGE_SIZE, after_key, token_after
from controlplane.api.public.revisions import description_of, require_revision, use_revision
from controlplane.api.public.tag_filters import parse_selection
from controlplane.dispatch.beginning import DeploymentRequest, begin_deployment
from controlplane.dispatch.progress import stop
from controlplane.domain.statuses import DeploymentStatus, TargetStatus
from controlplane.errors import ServiceError
from controlplane.store import deployments as store
from controlplane.store.schema import DeploymentGroupRow, DeploymentRow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = structlog.get_logger()

MAX_BATCH: Final = 25

_UNSUPPORTED: Final = {
    "targetInstances": "InvalidTargetInstancesException",
    "updateOutdatedInstancesOnly": "InvalidUpdateOutdatedInstancesOnlyValueException",
    "ec2DeploymentOptions": "InvalidInputException",
}


def create_deployment(call: PublicCall) -> dict[str, Any]:
    """The deployment is on its way; whether it can succeed is told by GetDeployment."""
    parameters = call.parameters
    application = require_application(call, parameters["applicationName"])
    if not parameters.get("deploymentGroupName"):
        raise ServiceError("DeploymentGroupNameRequiredException", "deploymentGroupName is required.")
    group = require_group(call, application.name, parameters["deploymentGroupName"])
    revision = require_revision(parameters)
    _refuse_what_is_missing(parameters)
    config_name = parameters.get("deploymentConfigName", group.deployment_config_name)
    configuration = require_configuration(call, config_name)
    _refuse_second(call, group)
    use_revision(call, application.name, revision)
    deployment = begin_deployment(
        call.transaction,
        DeploymentRequest(
            group=group,
            selection=parse_selection(group.tag_filters, group.tag_set),
            configuration=configuration,
            revision=revision,
            description=description_of(parameters),
            ignore_application_stop_failures=parameters.get("ignoreApplicationStopFailures", False),
            file_exists_behavior=parameters.get("fileExistsBehavior", "DISALLOW"),
        ),
    )
    log.info(
        "deployment_created", deployment_id=deployment.id, application=application.name, group=group.name
    )
    return {"deploymentId": deployment.id}


def get_deployment(call: PublicCall) -> dict[str, Any]:
    """One deployment."""
    deployment = require_deployment(call, call.parameters["deploymentId"])
    return {"deploymentInfo": _descriptions(call, [deployment])[0]}


def batch_get_deployments(call: PublicCall) -> dict[str, Any]:
    """Several deployments, at most 25; ids without a deployment are left out."""
    ids = call.parameters["deploymentIds"]
    if not ids:
        raise ServiceError("DeploymentIdRequiredException", "deploymentIds is empty.")
    if len(ids) > MAX_BATCH:
        raise ServiceError("BatchLimitExceededException", f"At most {MAX_BATCH} deployments at a time.")
    found = [store.find_deployment(call.transaction.session, deployment_id) for deployment_id in ids]
    return {"deploymentsInfo": _descriptions(call, [row for row in found if row is not None])}


def list_deployments(call: PublicCall) -> dict[str, Any]:
    """Ids of the deployments that fit all the filters, the newest first."""
    parameters = call.parameters
    query = select(DeploymentRow.number, DeploymentRow.id).order_by(DeploymentRow.number.desc())
    if parameters.get("externalId"):
        raise ServiceError("InvalidExternalIdException", "externalId is not available at this endpoint yet.")
    for group_id in _group_filter(call):
        query = query.where(DeploymentRow.group_id == group_id)
    if parameters.get("applicationName"):
        query = query.where(DeploymentRow.application_name == parameters["applicationName"])
    if parameters.get("includeOnlyStatuses"):
        query = query.where(DeploymentRow.status.in_(_known_statuses(parameters["includeOnlyStatuses"])))
    created = parameters.get("createTimeRange") or {}
    if created.get("start", 0) > created.get("end", float("inf")):
        raise ServiceError("InvalidTimeRangeException", "createTimeRange ends before it starts.")
    if "start" in created:
        query = query.where(DeploymentRow.created_at >= created["start"])
    if "end" in created:
        query = query.where(DeploymentRow.created_at <= created["end"])
    after = after_key(call)
    if after is not None:
        query = query.where(DeploymentRow.number < int(after))
    rows = call.transaction.session.execute(query.limit(PAGE_SIZE + 1)).all()
    page = rows[:PAGE_SIZE]
    token = token_after(call, str(page[-1].number)) if len(rows) > PAGE_SIZE else None
    return {"deployments": [row.id for row in page], "nextToken": token}


def stop_deployment(call: PublicCall) -> dict[str, Any]:
    """The deployment is stopped; Pending while a host still runs an event that can't be taken back."""
    if call.parameters.get("autoRollbackEnabled"):
        raise ServiceError(
            "UnsupportedActionForDeploymentTypeException",
            "autoRollbackEnabled is not available at this endpoint yet; stop without it and deploy the earlier revision.",
        )
    deployment = require_deployment(call, call.parameters["deploymentId"])
    if deployment.status.is_final:
        raise ServiceError(
            "DeploymentAlreadyCompletedException",
            f"Deployment {deployment.id} is {deployment.status.value} already.",
        )
    if stop(call.transaction, deployment):
        return {"status": "Succeeded", "statusMessage": "No host is running anything for this deployment."}
    return {
        "status": "Pending",
        "statusMessage": "Nothing new is started; events that hosts are running now end by themselves.",
    }


def require_deployment(call: PublicCall, deployment_id: str) -> DeploymentRow:
    """The deployment of this id; raises DeploymentDoesNotExistException."""
    deployment = store.find_deployment(call.transaction.session, deployment_id)
    if deployment is None:
        raise ServiceError("DeploymentDoesNotExistException", f"There is no deployment {deployment_id}.")
    return deployment


def _refuse_what_is_missing(parameters: Mapping[str, Any]) -> None:
    refuse_unsupported(parameters, _UNSUPPORTED)
    refuse_automation(parameters)
    if parameters.get("deploymentMode", "STANDARD") != "STANDARD":
        raise ServiceError(
            "InvalidInputException",
            f"deploymentMode {parameters['deploymentMode']} is not available at this endpoint yet.",
        )


def _refuse_second(call: PublicCall, group: DeploymentGroupRow) -> None:
    active = store.active_deployment(call.transaction.session, group.id)
    if active is not None:
        raise ServiceError(
            "DeploymentLimitExceededException",
            f"Deployment {active.id} to group {group.name} is not over; wait for it, or stop it first.",
        )


def _group_filter(call: PublicCall) -> list[str]:
    application_name = call.parameters.get("applicationName")
    group_name = call.parameters.get("deploymentGroupName")
    if application_name:
        require_application(call, application_name)
    if not group_name:
        return []
    if not application_name:
        raise ServiceError(
            "ApplicationNameRequiredException", "deploymentGroupName needs the applicationName beside it."
        )
    return [require_group(call, application_name, group_name).id]


def _known_statuses(wanted: Sequence[str]) -> list[DeploymentStatus]:
    """Statuses of the model that no deployment here ever has select nothing."""
    known = {status.value: status for status in DeploymentStatus}
    return [known[status] for status in wanted if status in known]


def _descriptions(call: PublicCall, rows: Sequence[DeploymentRow]) -> list[dict[str, Any]]:
    counts = store.count_targets(call.transaction.session, [row.id for row in rows])
    return [_description(row, counts[row.id]) for row in rows]


def _description(row: DeploymentRow, counts: Mapping[TargetStatus, int]) -> dict[str, Any]:
    error = None
    if row.error_code is not None:
        error = {"code": row.error_code, "message": row.error_message}
    return {
        "applicationName": row.application_name,
        "deploymentGroupName": row.group_name,
        "deploymentConfigName": row.deployment_config_name,
        "deploymentId": row.id,
        "previousRevision": row.previous_revision,
        "revision": row.revision,
        "status": row.status,
        "errorInformation": error,
        "createTime": row.created_at,
        "startTime": row.started_at,
        "completeTime": row.completed_at,
        "deploymentOverview": {status.value: counts.get(status, 0) for status in TargetStatus} | {"Ready": 0},
        "description": row.description,
        "creator": "user",
        "ignoreApplicationStopFailures": row.ignore_application_stop_failures,
        "updateOutdatedInstancesOnly": False,
        "deploymentStyle": IN_PLACE,
        "instanceTerminationWaitTimeStarted": False,
        "fileExistsBehavior": row.file_exists_behavior,
        "computePlatform": SERVER_PLATFORM,
    }


OPERATIONS: dict[str, PublicOperation] = {
    "CreateDeployment": create_deployment,
    "GetDeployment": get_deployment,
    "BatchGetDeployments": batch_get_deployments,
    "ListDeployments": list_deployments,
    "StopDeployment": stop_deployment,
}
