"""Deployments from the first command to the last, seen from hosts and from the public API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.controlplane.scripted_host import EVENTS, HostRefusedError, ScriptedHost
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.controlplane.endpoint_process import Shop

pytestmark = pytest.mark.server


def test_all_events_run_in_order_and_the_deployment_succeeds(shop: Shop) -> None:
    """One host, seven events: the sequence every deployment rests on."""
    host = shop.host("web-1")
    deployment = shop.deploy(description="first")
    host.carry_out()
    info = shop.get(deployment)
    assert info["status"] == "Succeeded"
    assert info["description"] == "first"
    assert info["creator"] == "user"
    assert info["createTime"] <= info["startTime"] <= info["completeTime"]
    assert info["deploymentOverview"] == {
        "Pending": 0,
        "InProgress": 0,
        "Succeeded": 1,
        "Failed": 0,
        "Skipped": 0,
        "Ready": 0,
    }
    assert host.seen == EVENTS
    assert set(shop.events(deployment, host).values()) == {"Succeeded"}


def test_progress_and_results_of_each_event_can_be_read(shop: Shop) -> None:
    """An operator follows a deployment event by event and reads what a script said."""
    host = shop.host("web-1")
    deployment = shop.deploy()
    host.carry_out("ApplicationStop")
    command = host.expect("DownloadBundle")
    assert shop.events(deployment, host)["DownloadBundle"] == "Pending"
    host.acknowledge(command)
    assert shop.events(deployment, host)["DownloadBundle"] == "InProgress"
    assert shop.events(deployment, host)["Install"] == "Pending"
    host.complete(command, message="Succeeded: BundleSource=downloaded")
    events = shop.target(deployment, host)["lifecycleEvents"]
    assert events[1]["status"] == "Succeeded"
    assert events[1]["startTime"] <= events[1]["endTime"]
    assert events[1]["diagnostics"] == {
        "errorCode": "Success",
        "scriptName": "scripts/x.sh",
        "message": "Succeeded: BundleSource=downloaded",
        "logTail": "last line",
    }


def test_a_failed_event_ends_the_host_and_skips_the_rest(shop: Shop) -> None:
    """A broken Install must not be followed by ApplicationStart."""
    host = shop.host("web-1")
    deployment = shop.deploy()
    host.carry_out(*EVENTS[:3])
    command = host.expect("Install")
    host.acknowledge(command)
    host.fail(command, "file conflict /var/www/x")
    assert host.poll() is None
    events = shop.events(deployment, host)
    assert events["Install"] == "Failed"
    assert [events[name] for name in EVENTS[4:]] == ["Skipped"] * 3
    error = shop.get(deployment)["errorInformation"]
    assert error["code"] == "HEALTH_CONSTRAINTS"
    assert error["message"].startswith(
        f"1 of 1 hosts failed. First: {host.name}, Install, file conflict /var/www/x."
    )


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (1, "ScriptMissing"),
        (2, "ScriptNotExecutable"),
        (3, "ScriptTimedOut"),
        (4, "ScriptFailed"),
        (5, "UnknownError"),
        (6, "ScriptFailed"),
        (7, "UnknownError"),
    ],
)
def test_host_error_codes_become_the_words_of_the_api(shop: Shop, code: int, expected: str) -> None:
    """Dashboards decide on these words."""
    host = shop.host("web-1")
    deployment = shop.deploy()
    host.fail(host.expect("ApplicationStop"), code=code)
    event = shop.target(deployment, host)["lifecycleEvents"][0]
    assert event["diagnostics"]["errorCode"] == expected


def test_an_ignored_application_stop_failure_goes_on(shop: Shop) -> None:
    """The way out when the stop script of the previous revision is broken."""
    host = shop.host("web-1")
    deployment = shop.deploy(ignoreApplicationStopFailures=True)
    command = host.expect("ApplicationStop")
    host.acknowledge(command)
    host.fail(command)
    host.carry_out(*EVENTS[1:])
    assert shop.get(deployment)["status"] == "Succeeded"
    assert shop.events(deployment, host)["ApplicationStop"] == "Failed"


def test_ignoring_application_stop_failures_ignores_no_other(shop: Shop) -> None:
    """The option must not hide a broken download."""
    host = shop.host("web-1")
    deployment = shop.deploy(ignoreApplicationStopFailures=True)
    host.carry_out("ApplicationStop")
    host.fail(host.expect("DownloadBundle"))
    assert shop.get(deployment)["status"] == "Failed"


def test_a_repeated_completion_changes_nothing(shop: Shop) -> None:
    """Agents retry reports whose answer got lost; the first report is the truth."""
    host = shop.host("web-1")
    deployment = shop.deploy()
    command = host.expect("ApplicationStop")
    host.acknowledge(command)
    host.complete(command)
    host.fail(command, "late and wrong")
    event = shop.target(deployment, host)["lifecycleEvents"][0]
    assert event["status"] == "Succeeded"
    assert host.acknowledge(command) == "Succeeded"
    host.carry_out(*EVENTS[1:])
    assert shop.get(deployment)["status"] == "Succeeded"


def test_a_command_can_fail_before_it_was_acknowledged(shop: Shop) -> None:
    """A host that can't even read the specification says so at once instead of running into a timeout."""
    host = shop.host("web-1")
    deployment = shop.deploy()
    host.fail(host.expect("ApplicationStop"), "specification is not signed by our CA", code=5)
    assert shop.get(deployment)["status"] == "Failed"


def test_unreadable_diagnostics_do_not_lose_the_result(shop: Shop) -> None:
    """A result counts even when what the host says about it is damaged."""
    host = shop.host("web-1")
    deployment = shop.deploy()
    command = host.expect("ApplicationStop")
    host.call(
        "PutHostCommandComplete",
        HostCommandIdentifier=command["HostCommandIdentifier"],
        CommandStatus="Failed",
        Diagnostics={"Format": "JSON", "Payload": "{half"},
    )
    event = shop.target(deployment, host)["lifecycleEvents"][0]
    assert event["status"] == "Failed"
    assert "{half" in event["diagnostics"]["message"]


def test_a_cut_surrogate_pair_in_the_log_is_stored_replaced(shop: Shop) -> None:
    """Agents cut the log anywhere, in the middle of an emoji too."""
    host = shop.host("web-1")
    deployment = shop.deploy()
    command = host.expect("ApplicationStop")
    host.call(
        "PutHostCommandComplete",
        HostCommandIdentifier=command["HostCommandIdentifier"],
        CommandStatus="Succeeded",
        Diagnostics={
            "Format": "JSON",
            "Payload": '{"error_code": 0, "script_name": "", "message": "", "log": "\\ud83d"}',
        },
    )
    event = shop.target(deployment, host)["lifecycleEvents"][0]
    assert event["diagnostics"]["logTail"] == "?"


class TestStopping:
    """StopDeployment, at every stage of a host."""

    def test_a_ready_command_is_withdrawn(self, shop: Shop) -> None:
        """A host that was not reached yet must not start after the stop."""
        host = shop.host("web-1")
        deployment = shop.deploy()
        answer = shop.client.stop_deployment(deploymentId=deployment)
        assert answer["status"] == "Succeeded"
        assert host.poll() is None
        info = shop.get(deployment)
        assert info["status"] == "Stopped"
        assert info["errorInformation"]["code"] == "MANUAL_STOP"
        assert info["deploymentOverview"]["Skipped"] == 1

    def test_a_delivered_command_is_refused_at_its_acknowledgement(self, shop: Shop) -> None:
        """The host has the command in hand: the acknowledgement is the last chance to hold it back."""
        host = shop.host("web-1")
        deployment = shop.deploy()
        command = host.expect("ApplicationStop")
        shop.client.stop_deployment(deploymentId=deployment)
        assert host.acknowledge(command) == "Failed"
        host.complete(command)
        assert shop.events(deployment, host)["ApplicationStop"] == "Skipped"

    def test_a_running_command_learns_of_the_stop_and_reports_its_result(self, shop: Shop) -> None:
        """What runs can't be taken back; its result is still the truth about the host."""
        host = shop.host("web-1")
        deployment = shop.deploy()
        host.carry_out("ApplicationStop")
        command = host.expect("DownloadBundle")
        host.acknowledge(command)
        update = {"HostCommandIdentifier": command["HostCommandIdentifier"]}
        assert host.call("PostHostCommandUpdate", **update) == {"CommandStatus": "InProgress"}
        assert shop.client.stop_deployment(deploymentId=deployment)["status"] == "Pending"
        assert host.call("PostHostCommandUpdate", **update) == {"CommandStatus": "Failed"}
        host.complete(command)
        assert host.poll() is None
        events = shop.events(deployment, host)
        assert (events["DownloadBundle"], events["Install"]) == ("Succeeded", "Skipped")
        assert shop.target(deployment, host)["status"] == "Failed"
        assert shop.get(deployment)["status"] == "Stopped"

    def test_a_finished_deployment_can_not_be_stopped(self, shop: Shop) -> None:
        """A pipeline must not believe that it stopped something."""
        host = shop.host("web-1")
        deployment = shop.deploy()
        host.carry_out()
        with pytest.raises(shop.client.exceptions.DeploymentAlreadyCompletedException):
            shop.client.stop_deployment(deploymentId=deployment)

    def test_a_new_deployment_may_follow_at_once(self, shop: Shop) -> None:
        """Stop and deploy the fix: nobody waits for the old one."""
        host = shop.host("web-1")
        shop.client.stop_deployment(deploymentId=shop.deploy())
        second = shop.deploy()
        host.carry_out()
        assert shop.get(second)["status"] == "Succeeded"


class TestFleets:
    """How many hosts at a time, and when it is enough."""

    def test_one_at_a_time_goes_on_to_the_next_host(self, shop: Shop) -> None:
        """No two hosts are ever out at the same time."""
        hosts = [shop.host(f"web-{number}") for number in (1, 2, 3)]
        deployment = shop.deploy("CodeDeployDefault.OneAtATime")
        for number, host in enumerate(hosts):
            assert [later.poll() for later in hosts[number + 1 :]] == [None] * (2 - number)
            host.carry_out()
        assert shop.get(deployment)["status"] == "Succeeded"

    def test_one_at_a_time_stops_at_the_first_failure(self, shop: Shop) -> None:
        """A bad revision takes one host down, not the fleet."""
        first, second = shop.host("web-1"), shop.host("web-2")
        deployment = shop.deploy("CodeDeployDefault.OneAtATime")
        first.fail(first.expect("ApplicationStop"), "no disk")
        assert second.poll() is None
        info = shop.get(deployment)
        assert info["status"] == "Failed"
        assert info["deploymentOverview"]["Skipped"] == 1
        assert info["errorInformation"]["message"].startswith(f"1 of 2 hosts failed. First: {first.name}")

    def test_one_at_a_time_forgives_the_last_host(self, shop: Shop) -> None:
        """The documented exception: one host may be out at any time, so the last one may fail."""
        first, second = shop.host("web-1"), shop.host("web-2")
        deployment = shop.deploy("CodeDeployDefault.OneAtATime")
        first.carry_out()
        second.fail(second.expect("ApplicationStop"))
        info = shop.get(deployment)
        assert (info["status"], info["deploymentOverview"]["Failed"]) == ("Succeeded", 1)

    def test_half_at_a_time_starts_half(self, shop: Shop) -> None:
        """Of five hosts two may be out."""
        hosts = [shop.host(f"web-{number}") for number in range(5)]
        deployment = shop.deploy("CodeDeployDefault.HalfAtATime")
        assert shop.get(deployment)["deploymentOverview"]["InProgress"] == 2
        hosts[0].carry_out()
        assert shop.get(deployment)["deploymentOverview"]["InProgress"] == 2
        for host in hosts[1:]:
            host.carry_out()
        assert shop.get(deployment)["status"] == "Succeeded"

    def test_all_at_once_is_content_with_one_success(self, shop: Shop) -> None:
        """AllAtOnce asks for one healthy host only."""
        first, second = shop.host("web-1"), shop.host("web-2")
        deployment = shop.deploy()
        second.fail(second.expect("ApplicationStop"))
        first.carry_out()
        assert shop.get(deployment)["status"] == "Succeeded"

    def test_a_host_that_failed_last_time_goes_first(self, shop: Shop) -> None:
        """Trying the broken host first costs nothing, and it may make room."""
        first, second = shop.host("web-1"), shop.host("web-2")
        shop.deploy("CodeDeployDefault.OneAtATime")
        first.carry_out()
        second.fail(second.expect("ApplicationStop"))
        deployment = shop.deploy("CodeDeployDefault.OneAtATime")
        assert first.poll() is None
        second.carry_out()
        first.carry_out()
        assert shop.get(deployment)["status"] == "Succeeded"

    def test_a_custom_minimum_that_leaves_no_room_fails_at_once(self, shop: Shop) -> None:
        """The rule forbids any progress: say so instead of waiting."""
        shop.host("web-1")
        shop.client.create_deployment_config(
            deploymentConfigName=f"all-{shop.label}", minimumHealthyHosts={"type": "HOST_COUNT", "value": 1}
        )
        error = shop.get(shop.deploy(f"all-{shop.label}"))["errorInformation"]
        assert error["code"] == "HEALTH_CONSTRAINTS_INVALID"

    def test_no_matching_host_fails_with_no_instances(self, shop: Shop) -> None:
        """A misspelt tag must not look like a success."""
        shop.host("db-1", "Role=db")
        info = shop.get(shop.deploy())
        assert (info["status"], info["errorInformation"]["code"]) == ("Failed", "NO_INSTANCES")

    def test_a_group_has_one_deployment_at_a_time(self, shop: Shop) -> None:
        """Two revisions must not race for the same hosts."""
        shop.host("web-1")
        first = shop.deploy()
        with pytest.raises(shop.client.exceptions.DeploymentLimitExceededException, match=first):
            shop.deploy()

    def test_groups_sharing_a_host_run_side_by_side(self, shop: Shop) -> None:
        """Application and log shipper are deployed to one host by different teams."""
        host = shop.host("web-1")
        shop.create_group("logs", onPremisesInstanceTagFilters=[{"Value": shop.tag, "Type": "VALUE_ONLY"}])
        first = shop.deploy()
        revision = {
            "revisionType": "GitHub",
            "gitHubLocation": {"repository": "acme/logs", "commitId": "a" * 40},
        }
        second = shop.deploy(deploymentGroupName="logs", revision=revision)
        commands = [host.expect("ApplicationStop"), host.expect("ApplicationStop")]
        owners = {command["DeploymentExecutionId"].split("/")[2] for command in commands}
        assert owners == {first, second}


def test_a_no_op_is_recorded_and_completed_like_any_other(shop: Shop) -> None:
    """Most events of most AppSpecs have no script."""
    host = shop.host("web-1")
    deployment = shop.deploy()
    command = host.expect("ApplicationStop")
    assert host.acknowledge(command, is_noop=True) == "InProgress"
    host.complete(command, message="Succeeded: CompletedNoopCommand")
    assert shop.events(deployment, host)["ApplicationStop"] == "Succeeded"


class TestHostsActAsThemselves:
    """One host's key opens nothing of another host."""

    @pytest.fixture
    def stranger(self, shop: Shop) -> ScriptedHost:
        return shop.host("db-1", "Role=db")

    def refused(self, call: Callable[..., Any], *arguments: Any, **members: Any) -> str:
        with pytest.raises(HostRefusedError) as caught:
            call(*arguments, **members)
        return str(caught.value.code)

    def test_polling_under_another_name_is_denied(self, shop: Shop, stranger: ScriptedHost) -> None:
        """A stolen key of a test machine must not receive the commands of production."""
        host = shop.host("web-1")
        code = self.refused(stranger.call, "PollHostCommand", HostIdentifier=host.arn)
        assert code == "AccessDeniedException"

    def test_commands_of_others_can_be_neither_read_nor_answered(
        self, shop: Shop, stranger: ScriptedHost
    ) -> None:
        """Nor may it learn of the revision or report a success that did not happen."""
        host = shop.host("web-1")
        shop.deploy()
        command = host.expect("ApplicationStop")
        assert self.refused(stranger.specification, command) == "ClientException"
        assert self.refused(stranger.acknowledge, command) == "ClientException"
        assert self.refused(stranger.complete, command) == "ClientException"

    def test_a_deregistered_host_is_denied(self, shop: Shop) -> None:
        """Deregistering is how a lost machine is shut out."""
        host = shop.host("web-1")
        shop.client.deregister_on_premises_instance(instanceName=host.name)
        assert self.refused(host.poll) == "AccessDeniedException"


@pytest.mark.parametrize(
    "diagnostics",
    [
        {"Format": "", "Payload": "{}"},
        {"Format": "x" * 65, "Payload": "{}"},
        {"Format": "JSON", "Payload": "x" * 8193},
        {"Format": "JSON"},
    ],
)
def test_envelopes_out_of_bounds_are_refused(shop: Shop, diagnostics: dict[str, str]) -> None:
    """An agent that sends too much must notice it here and not first at the cloud service."""
    host = shop.host("web-1")
    shop.deploy()
    command = host.expect("ApplicationStop")
    with pytest.raises(HostRefusedError, match="ClientException"):
        host.call(
            "PutHostCommandComplete",
            HostCommandIdentifier=command["HostCommandIdentifier"],
            CommandStatus="Failed",
            Diagnostics=diagnostics,
        )


def test_an_unfinished_status_completes_nothing(shop: Shop) -> None:
    """InProgress is no result."""
    host = shop.host("web-1")
    shop.deploy()
    with pytest.raises(HostRefusedError, match="ClientException"):
        host.complete(host.expect("ApplicationStop"), "InProgress")


def test_listed_deployments_are_filtered_and_newest_first(shop: Shop) -> None:
    """Finding yesterday's failure among hundreds."""
    host = shop.host("web-1")
    first = shop.deploy()
    host.fail(host.expect("ApplicationStop"))
    wait_until(lambda: shop.get(first)["status"] == "Failed", "the failure")
    second = shop.deploy()
    mine = {"applicationName": shop.application, "deploymentGroupName": "web"}
    assert shop.client.list_deployments(**mine)["deployments"] == [second, first]
    failed = shop.client.list_deployments(**mine, includeOnlyStatuses=["Failed"])
    assert failed["deployments"] == [first]
    since = shop.get(second)["createTime"]
    recent = shop.client.list_deployments(**mine, createTimeRange={"start": since})
    assert recent["deployments"] == [second]
    with pytest.raises(ClientError, match="InvalidTimeRangeException"):
        shop.client.list_deployments(createTimeRange={"start": 2000, "end": 1000})
