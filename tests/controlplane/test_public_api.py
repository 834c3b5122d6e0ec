"""The public API through boto3: nouns, refusals and both wire protocols."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.loaders import Loader

from controlplane.api.public.operations import OPERATIONS, service_model
from controlplane.api.refusals import INVALID, REQUIRED
from tests.controlplane.scripted_host import REGION, REVISION, post, sign

if TYPE_CHECKING:
    from tests.controlplane.endpoint_process import ControlEndpoint, Shop

CONTROLPLANE = Path(__file__).parents[2] / "controlplane"


def code_of(caught: pytest.ExceptionInfo[ClientError]) -> str:
    code: str = caught.value.response["Error"]["Code"]
    return code


def call_raw(endpoint: ControlEndpoint, operation: str, body: bytes) -> Any:
    """A request that boto3 would not send, because its own checks refuse it."""
    target = f"CodeDeploy_20141006.{operation}"
    headers = sign(endpoint.url, target, body, credentials=endpoint.user, service="codedeploy")
    return post(endpoint.url, "/", headers, body)


@pytest.mark.server
class TestHosts:
    """On-premises instances."""

    def test_registration_by_api_alone(self, shop: Shop) -> None:
        """Provisioning scripts use the same three calls as with the cloud service, once the host has a key."""
        name = f"api-{shop.label}"
        key = json.loads(shop.endpoint.control("host", "create-key", name, "--json"))
        arn = key["iamUserArn"]
        shop.client.register_on_premises_instance(instanceName=name, iamUserArn=arn)
        tags = [{"Key": "Role", "Value": shop.tag}, {"Key": "Stage", "Value": "prod"}]
        shop.client.add_tags_to_on_premises_instances(instanceNames=[name], tags=tags)
        found = shop.client.get_on_premises_instance(instanceName=name)["instanceInfo"]
        assert (found["iamUserArn"], found["tags"]) == (arn, tags)
        assert found["instanceArn"].startswith(f"arn:aws:codedeploy:us-east-1:000000000000:instance/{name}_")
        deployment = shop.deploy()
        targets = shop.client.list_deployment_targets(deploymentId=deployment)["targetIds"]
        assert targets == [name]
        assert shop.client.batch_get_on_premises_instances(instanceNames=[name])["instanceInfos"] == [found]

    def test_an_arn_without_a_key_here_is_refused(self, shop: Shop) -> None:
        """A host registered under it could never poll: say so now."""
        arn = "arn:aws:iam::000000000000:user/nobody"
        with pytest.raises(shop.client.exceptions.InvalidIamUserArnException, match="create-key"):
            shop.client.register_on_premises_instance(instanceName=f"x-{shop.label}", iamUserArn=arn)

    def test_names_and_arns_are_registered_once(self, shop: Shop) -> None:
        """Two machines under one name would share commands."""
        host = shop.host("web-1")
        other = json.loads(shop.endpoint.control("host", "create-key", f"o-{shop.label}", "--json"))
        with pytest.raises(shop.client.exceptions.InstanceNameAlreadyRegisteredException):
            shop.client.register_on_premises_instance(instanceName=host.name, iamUserArn=other["iamUserArn"])
        with pytest.raises(shop.client.exceptions.IamUserArnAlreadyRegisteredException, match=host.name):
            shop.client.register_on_premises_instance(instanceName=f"o-{shop.label}", iamUserArn=host.arn)

    def test_a_deregistered_host_can_be_read_and_registered_again(self, shop: Shop) -> None:
        """A reinstalled machine comes back under its name, without its old tags."""
        host = shop.host("web-1")
        shop.client.deregister_on_premises_instance(instanceName=host.name)
        found = shop.client.get_on_premises_instance(instanceName=host.name)["instanceInfo"]
        assert found["deregisterTime"] >= found["registerTime"]
        listed = shop.client.list_on_premises_instances(
            registrationStatus="Deregistered", tagFilters=[{"Value": shop.tag, "Type": "VALUE_ONLY"}]
        )
        assert listed["instanceNames"] == [host.name]
        shop.client.register_on_premises_instance(instanceName=host.name, iamUserArn=host.arn)
        again = shop.client.get_on_premises_instance(instanceName=host.name)["instanceInfo"]
        assert (again["tags"], again.get("deregisterTime")) == ([], None)

    def test_tags_are_replaced_by_key_and_removed_by_key_and_value(self, shop: Shop) -> None:
        """Moving a host from one stage to the next is one call."""
        host = shop.host("web-1", "Stage=test", "Keep=1")
        client = shop.client
        client.add_tags_to_on_premises_instances(
            instanceNames=[host.name], tags=[{"Key": "Stage", "Value": "prod"}]
        )
        client.remove_tags_from_on_premises_instances(
            instanceNames=[host.name],
            tags=[{"Key": "Stage", "Value": "test"}, {"Key": "Keep", "Value": "1"}],
        )
        tags = client.get_on_premises_instance(instanceName=host.name)["instanceInfo"]["tags"]
        assert tags == [{"Key": "Stage", "Value": "prod"}]

    def test_an_eleventh_tag_is_refused(self, shop: Shop) -> None:
        """The limit of the cloud service: what works here must work there."""
        host = shop.host("web-1", *(f"K{number}=v" for number in range(10)))
        with pytest.raises(shop.client.exceptions.TagLimitExceededException):
            shop.client.add_tags_to_on_premises_instances(
                instanceNames=[host.name], tags=[{"Key": "K10", "Value": "v"}]
            )

    @pytest.mark.parametrize("name", ["i-0123", "mi-0123", "a/b", "x" * 101])
    def test_names_that_mean_something_else_are_refused(self, shop: Shop, name: str) -> None:
        """Names with i- are instances of the cloud."""
        with pytest.raises(shop.client.exceptions.InvalidInstanceNameException):
            shop.client.get_on_premises_instance(instanceName=name)


@pytest.mark.server
class TestGroups:
    """Whom a group selects, and what it refuses."""

    def test_a_tag_set_needs_one_match_in_every_list(self, shop: Shop) -> None:
        """`web or api` and `prod`."""
        role = f"Role{shop.label}"
        inside = [
            shop.host("a", f"{role}=web", "Stage=prod"),
            shop.host("b", f"{role}=api", "Stage=prod"),
        ]
        shop.host("c", f"{role}=web", "Stage=test")
        shop.host("d", f"{role}=db", "Stage=prod")
        lists = [
            [{"Key": role, "Value": value, "Type": "KEY_AND_VALUE"} for value in ("web", "api")],
            [{"Key": "Stage", "Value": "prod", "Type": "KEY_AND_VALUE"}],
        ]
        shop.create_group("both", onPremisesTagSet={"onPremisesTagSetList": lists})
        deployment = shop.deploy(deploymentGroupName="both")
        targets = shop.client.list_deployment_targets(deploymentId=deployment)["targetIds"]
        assert targets == [host.name for host in inside]

    def test_a_group_without_filters_selects_no_host(self, shop: Shop) -> None:
        """A forgotten filter must not deploy to everything."""
        shop.host("web-1")
        shop.create_group("empty")
        info = shop.get(shop.deploy(deploymentGroupName="empty"))
        assert info["errorInformation"]["code"] == "NO_INSTANCES"

    def test_a_group_shows_what_it_was_made_with_and_its_last_deployments(self, shop: Shop) -> None:
        """Terraform and dashboards compare these."""
        host = shop.host("web-1")
        deployment = shop.deploy()
        host.carry_out()
        group = shop.client.get_deployment_group(applicationName=shop.application, deploymentGroupName="web")[
            "deploymentGroupInfo"
        ]
        assert group["deploymentConfigName"] == "CodeDeployDefault.OneAtATime"
        assert group["onPremisesInstanceTagFilters"] == [
            {"Key": "Role", "Value": shop.tag, "Type": "KEY_AND_VALUE"}
        ]
        assert group["lastSuccessfulDeployment"]["deploymentId"] == deployment
        assert group["lastAttemptedDeployment"]["status"] == "Succeeded"
        assert group["targetRevision"] == REVISION

    @pytest.mark.parametrize(
        ("parameters", "code"),
        [
            ({"ec2TagFilters": [{"Key": "a", "Type": "KEY_ONLY"}]}, "InvalidEC2TagException"),
            ({"autoScalingGroups": ["asg"]}, "InvalidAutoScalingGroupException"),
            ({"loadBalancerInfo": {"elbInfoList": [{"name": "lb"}]}}, "InvalidLoadBalancerInfoException"),
            (
                {"alarmConfiguration": {"enabled": True, "alarms": [{"name": "a"}]}},
                "InvalidAlarmConfigException",
            ),
            (
                {"autoRollbackConfiguration": {"enabled": True, "events": ["DEPLOYMENT_FAILURE"]}},
                "InvalidAutoRollbackConfigException",
            ),
            ({"deploymentStyle": {"deploymentType": "BLUE_GREEN"}}, "InvalidDeploymentStyleException"),
            (
                {
                    "triggerConfigurations": [
                        {"triggerName": "t", "triggerTargetArn": "a", "triggerEvents": []}
                    ]
                },
                "InvalidTriggerConfigException",
            ),
            ({"outdatedInstancesStrategy": "UPDATE"}, "InvalidInputException"),
        ],
    )
    def test_what_is_not_there_yet_is_refused_and_never_ignored(
        self, shop: Shop, parameters: dict[str, Any], code: str
    ) -> None:
        """Silently without alarms is worse than not at all."""
        with pytest.raises(ClientError, match="not available at this endpoint yet") as caught:
            shop.create_group("more", **parameters)
        assert code_of(caught) == code
        listed = shop.client.list_deployment_groups(applicationName=shop.application)
        assert listed["deploymentGroups"] == ["web"]

    def test_features_that_are_switched_off_are_accepted(self, shop: Shop) -> None:
        """Consoles and templates send these blocks always."""
        shop.create_group(
            "off",
            alarmConfiguration={"enabled": False, "alarms": []},
            autoRollbackConfiguration={"enabled": False},
            deploymentStyle={"deploymentType": "IN_PLACE", "deploymentOption": "WITHOUT_TRAFFIC_CONTROL"},
            ec2TagFilters=[],
        )


@pytest.mark.server
class TestRefusals:
    """Errors that SDKs catch by name."""

    @pytest.mark.parametrize(
        ("operation", "parameters", "code"),
        [
            ("get_application", {"applicationName": "none"}, "ApplicationDoesNotExistException"),
            ("create_application", {"applicationName": "a b"}, "InvalidApplicationNameException"),
            (
                "create_application",
                {"applicationName": "l", "computePlatform": "Lambda"},
                "InvalidComputePlatformException",
            ),
            ("get_deployment", {"deploymentId": "d-NONE"}, "DeploymentDoesNotExistException"),
            ("stop_deployment", {"deploymentId": "d-NONE"}, "DeploymentDoesNotExistException"),
            (
                "get_deployment_config",
                {"deploymentConfigName": "none"},
                "DeploymentConfigDoesNotExistException",
            ),
            (
                "get_on_premises_instance",
                {"instanceName": "unknown"},
                "InstanceNotRegisteredException",
            ),
            ("list_applications", {"nextToken": "made-up"}, "InvalidNextTokenException"),
            ("batch_get_deployments", {"deploymentIds": ["x"] * 26}, "BatchLimitExceededException"),
            (
                "batch_get_deployment_targets",
                {"deploymentId": "d-X", "targetIds": []},
                "DeploymentTargetIdRequiredException",
            ),
            ("continue_deployment", {"deploymentId": "d-X"}, "OperationNotSupportedException"),
        ],
    )
    def test_mistakes_have_the_exception_of_the_model(
        self, shop: Shop, operation: str, parameters: dict[str, Any], code: str
    ) -> None:
        """Existing tooling branches on these."""
        with pytest.raises(ClientError) as caught:
            getattr(shop.client, operation)(**parameters)
        assert code_of(caught) == code

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"applicationName": "none"}, "ApplicationDoesNotExistException"),
            ({"deploymentGroupName": "none"}, "DeploymentGroupDoesNotExistException"),
            ({"deploymentGroupName": None}, "DeploymentGroupNameRequiredException"),
            ({"deploymentConfigName": "none"}, "DeploymentConfigDoesNotExistException"),
            ({"revision": None}, "RevisionRequiredException"),
            (
                {"revision": {"revisionType": "String", "string": {"content": "x"}}},
                "InvalidRevisionException",
            ),
            ({"revision": {"revisionType": "S3", "s3Location": {"bucket": "b"}}}, "InvalidRevisionException"),
            (
                {"revision": {"revisionType": "GitHub", "gitHubLocation": {"repository": "x"}}},
                "InvalidRevisionException",
            ),
            ({"description": "x" * 257}, "DescriptionTooLongException"),
            ({"fileExistsBehavior": "PANIC"}, "InvalidFileExistsBehaviorException"),
            ({"updateOutdatedInstancesOnly": True}, "InvalidUpdateOutdatedInstancesOnlyValueException"),
            ({"targetInstances": {"autoScalingGroups": ["a"]}}, "InvalidTargetInstancesException"),
            ({"deploymentMode": "RESTART"}, "InvalidInputException"),
        ],
    )
    def test_a_deployment_is_refused_by_name_and_nothing_is_left(
        self, shop: Shop, changes: dict[str, Any], code: str
    ) -> None:
        """A refused deployment must not block the group."""
        request: dict[str, Any] = {
            "applicationName": shop.application,
            "deploymentGroupName": "web",
            "revision": REVISION,
        }
        request |= changes
        with pytest.raises(ClientError) as caught:
            shop.client.create_deployment(
                **{name: value for name, value in request.items() if value is not None}
            )
        assert code_of(caught) == code
        assert shop.client.list_deployments(applicationName=shop.application)["deployments"] == []

    def test_a_missing_name_has_its_own_exception(self, endpoint: ControlEndpoint) -> None:
        """Clients without checks of their own rely on it."""
        answer = call_raw(endpoint, "CreateApplication", b"{}")
        assert (answer.status, answer.document["__type"]) == (400, "ApplicationNameRequiredException")

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"{half", "SerializationException"),
            (b"\xff\xfe", "SerializationException"),
            (b"[" * 100_000, "SerializationException"),
            (b"[]", "ValidationException"),
            (b'{"applicationName": 5}', "InvalidApplicationNameException"),
            (b'{"applicationName": "\\ud800"}', "InvalidApplicationNameException"),
            (b'{"applicationName": "a", "colour": "blue"}', "ValidationException"),
        ],
    )
    def test_damaged_requests_are_the_callers_fault(
        self, endpoint: ControlEndpoint, body: bytes, code: str
    ) -> None:
        """Fuzzers and broken proxies must not cause server errors."""
        answer = call_raw(endpoint, "CreateApplication", body)
        assert (answer.status, answer.document["__type"]) == (400, code)

    @pytest.mark.parametrize("start", [b"1e400", b"-1", b"NaN", b'"now"', b"1" * 400])
    def test_times_out_of_range_are_refused(self, endpoint: ControlEndpoint, start: bytes) -> None:
        """Also numbers no clock will ever show."""
        answer = call_raw(endpoint, "ListDeployments", b'{"createTimeRange": {"start": %s}}' % start)
        assert (answer.status, answer.document["__type"]) == (400, "InvalidTimeRangeException")

    def test_an_unknown_operation_says_so(self, endpoint: ControlEndpoint) -> None:
        """An SDK newer than the model."""
        answer = call_raw(endpoint, "LaunchRocket", b"{}")
        assert (answer.status, answer.document["__type"]) == (400, "UnknownOperationException")


@pytest.mark.server
class TestListsAndRevisions:
    """Long lists, configurations, revisions."""

    def test_long_lists_come_in_pages(self, shop: Shop) -> None:
        """A hundred names at a time, none twice and none missing."""
        for number in range(105):
            shop.create_group(f"g{number:03}")
        pages = shop.client.get_paginator("list_deployment_groups").paginate(applicationName=shop.application)
        listed = [page["deploymentGroups"] for page in pages]
        assert [len(page) for page in listed] == [100, 6]
        assert [name for page in listed for name in page] == [
            *(f"g{number:03}" for number in range(105)),
            "web",
        ]

    def test_deployments_come_in_pages(self, shop: Shop) -> None:
        """The history of a busy application."""
        made = [shop.deploy() for _ in range(101)]
        pages = shop.client.get_paginator("list_deployments").paginate(applicationName=shop.application)
        listed = [name for page in pages for name in page["deployments"]]
        assert listed == made[::-1]

    def test_the_predefined_configurations_are_there(self, shop: Shop) -> None:
        """Every tutorial names them."""
        names = shop.client.list_deployment_configs()["deploymentConfigsList"]
        assert {f"CodeDeployDefault.{name}" for name in ("OneAtATime", "HalfAtATime", "AllAtOnce")} <= set(
            names
        )
        half = shop.client.get_deployment_config(deploymentConfigName="CodeDeployDefault.HalfAtATime")
        assert half["deploymentConfigInfo"]["minimumHealthyHosts"] == {"type": "FLEET_PERCENT", "value": 50}

    @pytest.mark.parametrize(
        "minimum", [{}, {"type": "FLEET_PERCENT", "value": 100}, {"type": "HOST_COUNT", "value": -1}]
    )
    def test_a_configuration_out_of_range_is_refused(self, shop: Shop, minimum: dict[str, Any]) -> None:
        """100 % healthy would never deploy anything."""
        with pytest.raises(shop.client.exceptions.InvalidMinimumHealthyHostValueException):
            shop.client.create_deployment_config(
                deploymentConfigName=f"c-{shop.label}", minimumHealthyHosts=minimum
            )

    def test_revisions_are_known_once_registered_or_deployed(self, shop: Shop) -> None:
        """Where is this revision running?"""
        shop.client.register_application_revision(
            applicationName=shop.application, revision=REVISION, description="nightly"
        )
        request = {"applicationName": shop.application, "revision": REVISION}
        before = shop.client.get_application_revision(**request)["revisionInfo"]
        assert (before["description"], before["deploymentGroups"]) == ("nightly", [])
        shop.deploy()
        after = shop.client.get_application_revision(**request)["revisionInfo"]
        assert after["deploymentGroups"] == ["web"]
        assert after["firstUsedTime"] == after["lastUsedTime"]


@pytest.mark.server
def test_the_cbor_protocol_carries_a_whole_deployment(shop: Shop, tmp_path: Path) -> None:
    """SDKs that prefer RPC v2 with CBOR need no setting to work here."""
    model = copy.deepcopy(Loader().load_service_model("codedeploy", "service-2"))
    model["metadata"]["protocols"] = ["smithy-rpc-v2-cbor"]
    place = tmp_path / "codedeploy" / "2014-10-06"
    place.mkdir(parents=True)
    (place / "service-2.json").write_text(json.dumps(model))
    session = boto3.Session(*shop.endpoint.user, region_name=REGION)
    session._loader.search_paths.insert(0, str(tmp_path))
    client = session.client("codedeploy", endpoint_url=shop.endpoint.url)
    assert client.meta.service_model.resolved_protocol == "smithy-rpc-v2-cbor"
    host = shop.host("web-1")
    deployment = client.create_deployment(
        applicationName=shop.application, deploymentGroupName="web", revision=REVISION
    )["deploymentId"]
    host.carry_out()
    assert client.get_deployment(deploymentId=deployment)["deploymentInfo"] == shop.get(deployment)
    since = shop.get(deployment)["createTime"]
    recent = client.list_deployments(applicationName=shop.application, createTimeRange={"start": since})
    assert recent["deployments"] == [deployment]
    with pytest.raises(
        client.exceptions.ApplicationDoesNotExistException, match="no application none"
    ) as caught:
        client.get_application(applicationName="none")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_every_error_code_is_in_the_service_model() -> None:
    """A misspelt exception name is caught by no client."""
    modelled = {shape.name for shape in service_model().error_shapes}
    written: set[str] = set()
    for source in [*(CONTROLPLANE / "api" / "public").glob("*.py"), CONTROLPLANE / "api" / "refusals.py"]:
        written |= set(re.findall(r'"([A-Z]\w+Exception)"', source.read_text()))
    assert written - modelled == {"UnknownOperationException", "ValidationException"}
    assert {*REQUIRED.values(), *INVALID.values()} <= modelled


def test_every_operation_is_in_the_service_model() -> None:
    """An operation under a wrong name could never be called."""
    assert set(OPERATIONS) <= set(service_model().operation_names)
