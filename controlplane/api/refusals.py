"""Which modelled exception a bad member of a public request becomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from controlplane.errors import ServiceError

if TYPE_CHECKING:
    from botocore.model import OperationModel

    from controlplane.api.shapes import InvalidMemberError

FALLBACK: Final = "ValidationException"
"""For what the service model has no exception for."""

REQUIRED: Final = {
    "applicationName": "ApplicationNameRequiredException",
    "applicationNames": "ApplicationNameRequiredException",
    "deploymentGroupName": "DeploymentGroupNameRequiredException",
    "deploymentGroupNames": "DeploymentGroupNameRequiredException",
    "deploymentConfigName": "DeploymentConfigNameRequiredException",
    "deploymentId": "DeploymentIdRequiredException",
    "deploymentIds": "DeploymentIdRequiredException",
    "instanceName": "InstanceNameRequiredException",
    "instanceNames": "InstanceNameRequiredException",
    "revision": "RevisionRequiredException",
    "serviceRoleArn": "RoleRequiredException",
    "tags": "TagRequiredException",
    "targetId": "DeploymentTargetIdRequiredException",
    "targetIds": "DeploymentTargetIdRequiredException",
}

INVALID: Final = {
    "alarmConfiguration": "InvalidAlarmConfigException",
    "applicationName": "InvalidApplicationNameException",
    "applicationNames": "InvalidApplicationNameException",
    "autoRollbackConfiguration": "InvalidAutoRollbackConfigException",
    "autoScalingGroups": "InvalidAutoScalingGroupException",
    "blueGreenDeploymentConfiguration": "InvalidBlueGreenDeploymentConfigurationException",
    "computePlatform": "InvalidComputePlatformException",
    "createTimeRange": "InvalidTimeRangeException",
    "deploymentConfigName": "InvalidDeploymentConfigNameException",
    "deploymentGroupName": "InvalidDeploymentGroupNameException",
    "deploymentGroupNames": "InvalidDeploymentGroupNameException",
    "deploymentId": "InvalidDeploymentIdException",
    "deploymentIds": "InvalidDeploymentIdException",
    "deploymentStyle": "InvalidDeploymentStyleException",
    "ec2TagFilters": "InvalidEC2TagException",
    "ec2TagSet": "InvalidEC2TagCombinationException",
    "ecsServices": "InvalidECSServiceException",
    "externalId": "InvalidExternalIdException",
    "fileExistsBehavior": "InvalidFileExistsBehaviorException",
    "iamSessionArn": "InvalidIamSessionArnException",
    "iamUserArn": "InvalidIamUserArnException",
    "ignoreApplicationStopFailures": "InvalidIgnoreApplicationStopFailuresValueException",
    "includeOnlyStatuses": "InvalidDeploymentStatusException",
    "instanceName": "InvalidInstanceNameException",
    "instanceNames": "InvalidInstanceNameException",
    "loadBalancerInfo": "InvalidLoadBalancerInfoException",
    "minimumHealthyHosts": "InvalidMinimumHealthyHostValueException",
    "nextToken": "InvalidNextTokenException",
    "onPremisesInstanceTagFilters": "InvalidTagException",
    "onPremisesTagSet": "InvalidOnPremisesTagCombinationException",
    "overrideAlarmConfiguration": "InvalidAlarmConfigException",
    "registrationStatus": "InvalidRegistrationStatusException",
    "revision": "InvalidRevisionException",
    "serviceRoleArn": "InvalidRoleException",
    "tagFilters": "InvalidTagFilterException",
    "tags": "InvalidTagException",
    "targetFilters": "InvalidTargetFilterNameException",
    "targetId": "InvalidDeploymentTargetIdException",
    "targetIds": "InvalidDeploymentTargetIdException",
    "targetInstances": "InvalidTargetInstancesException",
    "trafficRoutingConfig": "InvalidTrafficRoutingConfigurationException",
    "triggerConfigurations": "InvalidTriggerConfigException",
    "updateOutdatedInstancesOnly": "InvalidUpdateOutdatedInstancesOnlyValueException",
    "zonalConfig": "InvalidZonalDeploymentConfigurationException",
}


def refusal(operation: OperationModel, error: InvalidMemberError) -> ServiceError:
    """The exception the operation's model has for this member, and the fallback where it has none."""
    table = REQUIRED if error.is_missing and len(error.path) == 1 else INVALID
    code = table.get(error.path[0], FALLBACK) if error.path else FALLBACK
    modelled = {shape.name for shape in operation.error_shapes}
    return ServiceError(code if code in modelled else FALLBACK, str(error))
