"""What the service is told before a command runs, and what its answer does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.protocol import IN_PLACE_ORDER, LIFECYCLE_EVENTS
from tests.daemon.control_server import SPECIFICATION

if TYPE_CHECKING:
    from tests.daemon.agent_process import Agent
    from tests.daemon.control_server import ControlServer, Deployment
    from tests.daemon.revisions import Application

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("agent")]

BEFORE_DOWNLOAD = ("BeforeBlockTraffic", "AfterBlockTraffic", "ApplicationStop")


def noops(server: ControlServer, deployment: Deployment) -> list[str]:
    """The commands of a whole deployment, all successful, that were acknowledged as no-ops."""
    found = []
    for name in IN_PLACE_ORDER:
        completion = server.run(name, deployment)
        assert ("Succeeded", 0) == (completion.status, completion.code), completion
        if server.is_noop(completion.identifier):
            found.append(name)
    return found


def test_a_first_deployment_has_nothing_to_run_before_its_download(
    server: ControlServer, application: Application
) -> None:
    """The service shows people which events did something."""
    assert list(BEFORE_DOWNLOAD) == noops(server, application.revise("one", LIFECYCLE_EVENTS))
    ran = [f"{event} of one" for event in LIFECYCLE_EVENTS if event not in BEFORE_DOWNLOAD]
    assert ran == application.trace


def test_a_second_deployment_runs_the_first_ones_scripts_before_its_download(
    server: ControlServer, application: Application
) -> None:
    """Only the revision that runs knows how to stop itself."""
    noops(server, application.revise("one", LIFECYCLE_EVENTS))
    before = len(application.trace)
    assert [] == noops(server, application.revise("two", LIFECYCLE_EVENTS))
    expected = [f"{event} of {'one' if event in BEFORE_DOWNLOAD else 'two'}" for event in LIFECYCLE_EVENTS]
    assert expected == application.trace[before:]


def test_events_without_scripts_are_noops_and_download_and_install_never_are(
    server: ControlServer, application: Application
) -> None:
    """Each event is judged by the AppSpec that it would use."""
    first = [name for name in LIFECYCLE_EVENTS if name != "AfterInstall"]
    assert first == noops(server, application.revise("one", ["ApplicationStop", "AfterInstall"]))
    second = [name for name in LIFECYCLE_EVENTS if name not in ("ApplicationStop", "ValidateService")]
    assert second == noops(server, application.revise("two", ["ValidateService"]))


def test_a_custom_event_runs_when_the_appspec_has_scripts_for_it(
    server: ControlServer, application: Application
) -> None:
    """Events of a deployment are not limited to those that somebody thought of."""
    deployment = application.revise("one", ["WarmCaches"])
    server.carry(deployment, "DownloadBundle")
    completion = server.run("WarmCaches", deployment)
    assert "Succeeded" == completion.status
    assert not server.is_noop(completion.identifier)
    assert ["WarmCaches of one"] == application.trace


def test_a_custom_event_that_the_deployment_knows_of_is_a_noop_without_scripts(
    server: ControlServer, application: Application
) -> None:
    """AllPossibleLifecycleEvents names it, so it is no mistake."""
    deployment = application.revise("one", others={"AllPossibleLifecycleEvents": ["WarmCaches"]})
    server.carry(deployment, "DownloadBundle")
    completion = server.run("WarmCaches", deployment)
    assert "Succeeded" == completion.status
    assert server.is_noop(completion.identifier)


@pytest.mark.parametrize("answer", ["Succeeded", "Failed"])
def test_a_command_that_is_over_for_the_service_is_not_run_and_not_reported(
    server: ControlServer, agent: Agent, application: Application, answer: str
) -> None:
    """The deployment was stopped meanwhile: running its script would surprise everybody."""
    deployment = application.revise("one", ["BeforeInstall"])
    server.carry(deployment, "DownloadBundle")
    identifier = f"unwanted {answer} {deployment.deployment_id}"
    server.answers[identifier] = answer
    server.send("BeforeInstall", deployment, HostCommandIdentifier=identifier)
    server.carry(deployment, "AfterInstall")
    agent.wait_until_idle()
    assert ([], []) == (application.trace, server.completions(identifier))
    (entry,) = [entry for entry in agent.history() if entry["host_command_identifier"] == identifier]
    assert (answer, False) == (entry["result"]["status"], entry["result"]["wanted"])


def test_a_noop_that_the_service_answers_with_failed_is_completed_as_succeeded(
    server: ControlServer, application: Application
) -> None:
    """That is how the service asks for the report of a no-op; it looks for exactly this text."""
    deployment = application.revise("one")
    server.carry(deployment, "DownloadBundle")
    identifier = f"noop {deployment.deployment_id}"
    server.answers[identifier] = "Failed"
    server.send("BeforeInstall", deployment, HostCommandIdentifier=identifier)
    completion = server.completion(identifier)
    assert ("Succeeded", 0, "Succeeded: CompletedNoopCommand") == (
        completion.status,
        completion.code,
        completion.message,
    )


@pytest.mark.parametrize("answer", ["InProgress", "Pending", "Wondering", ""])
def test_any_other_answer_means_run_it(server: ControlServer, application: Application, answer: str) -> None:
    """A service that says nothing, or something new, has asked for the command all the same."""
    deployment = application.revise("one", ["BeforeInstall"])
    server.carry(deployment, "DownloadBundle")
    identifier = f"{answer} {deployment.deployment_id}"
    server.answers[identifier] = answer
    server.send("BeforeInstall", deployment, HostCommandIdentifier=identifier)
    assert "Succeeded" == server.completion(identifier).status
    assert ["BeforeInstall of one"] == application.trace


def test_every_request_names_what_it_is_about(server: ControlServer, application: Application) -> None:
    """The service knows hosts by their identifier, and commands by theirs."""
    deployment = application.revise()
    identifier = server.send("DownloadBundle", deployment, HostIdentifier="user/web-1")
    completion = server.completion(identifier)
    asked = server.of(SPECIFICATION)[-1]
    assert deployment.execution_id == asked.request["DeploymentExecutionId"]
    assert "arn:aws:iam::123456789012:user/web-1" == asked.request["HostIdentifier"]
    assert "application/x-amz-json-1.1" == asked.headers["content-type"]
    assert asked.headers["x-amz-codedeploy-agent-version"]
    assert "Succeeded: BundleSource=downloaded" == completion.message
