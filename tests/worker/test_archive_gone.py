"""The unpacked revision disappears between two events: what can't be looked up is never reported as done."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.e2e.bundles import pack

if TYPE_CHECKING:
    from pathlib import Path

    from tests.daemon.agent_process import Agent
    from tests.daemon.control_server import Completion, ControlServer, Deployment
    from tests.daemon.revisions import Application

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("agent")]

ROLLBACK = {"DeploymentType": "BLUE_GREEN", "DeploymentCreator": "codeDeployRollback"}
LATER = ["AfterInstall", "ApplicationStart", "ValidateService", "BeforeAllowTraffic", "AfterAllowTraffic"]


def archive_of(deployment: Deployment, agent: Agent) -> Path:
    """Where the deployment is unpacked."""
    return agent.root / deployment.group_id / deployment.deployment_id / "deployment-archive"


def assert_gone(completion: Completion) -> None:
    """The report says what it is, and can be explained."""
    assert ("Failed", 5) == (completion.status, completion.code), completion.message
    assert completion.message.endswith("[deployment-archive-gone]")


def test_events_after_a_hook_that_moved_its_archive_away_fail(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """A script made room; the start script never ran, and its deployment must not look as if it had."""
    deployment = application.revise(
        "one", ["AfterInstall", "ApplicationStart"], script='cd /; mv "$(dirname "$0")" "$(dirname "$0")-old"'
    )
    server.carry(deployment, "DownloadBundle", "Install", "AfterInstall")
    completion = server.run("ApplicationStart", deployment)
    assert_gone(completion)
    assert f"{archive_of(deployment, agent)}, is gone" in completion.message
    assert "It was still there when AfterInstall began" in completion.message
    assert ["AfterInstall of one"] == application.trace


@pytest.mark.parametrize("event", LATER)
@pytest.mark.parametrize(
    "others", [{}, {"DeploymentCreator": "codeDeployRollback"}], ids=["forward", "rollback"]
)
def test_every_event_that_needs_the_archive_fails_without_it(
    server: ControlServer, agent: Agent, application: Application, event: str, others: dict[str, str]
) -> None:
    """Somebody tidied up between two events."""
    deployment = application.revise("one", LATER, others=others)
    server.carry(deployment, "DownloadBundle", "Install")
    shutil.rmtree(archive_of(deployment, agent))
    assert_gone(server.run(event, deployment))


def test_a_deployment_without_its_whole_directory_fails_its_events(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """Retention of another program took everything."""
    deployment = application.revise("one", LATER)
    server.carry(deployment, "DownloadBundle", "Install")
    shutil.rmtree(archive_of(deployment, agent).parent)
    completion = server.run("ApplicationStart", deployment)
    assert_gone(completion)
    assert "is gone, with the whole directory of the deployment" in completion.message


def test_an_archive_whose_files_were_cleaned_away_fails_the_events(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """Cleaners of temporary files leave the directories."""
    deployment = application.revise("one", LATER)
    server.carry(deployment, "DownloadBundle", "Install", "AfterInstall")
    for file in archive_of(deployment, agent).iterdir():
        file.unlink()
    completion = server.run("ApplicationStart", deployment)
    assert_gone(completion)
    assert "has no AppSpec file any more" in completion.message


def test_install_names_an_archive_that_has_gone(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """The revision has its AppSpec; it is this host that has lost it."""
    deployment = application.revise("one")
    server.carry(deployment, "DownloadBundle")
    shutil.rmtree(archive_of(deployment, agent))
    completion = server.run("Install", deployment)
    assert_gone(completion)
    assert "DownloadBundle had made it at" in completion.message


def test_install_names_an_appspec_that_somebody_has_removed(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """To have people look for it in their revision would cost them the night."""
    deployment = application.revise("one")
    server.carry(deployment, "DownloadBundle")
    (archive_of(deployment, agent) / "appspec.yml").unlink()
    completion = server.run("Install", deployment)
    assert_gone(completion)
    assert "has no AppSpec file any more" in completion.message


def test_a_revision_that_never_had_an_appspec_is_named_as_such(
    server: ControlServer, application: Application
) -> None:
    """Nobody has removed anything."""
    deployment = application.deploy(application.bucket.put(pack("tar", {"file.txt": "one"})))
    server.carry(deployment, "DownloadBundle")
    assert server.run("Install", deployment).message.endswith("[appspec-missing]")


@pytest.mark.parametrize("event", ["BeforeInstall", *LATER])
def test_events_of_a_revision_that_was_never_fetched_fail(
    server: ControlServer, application: Application, event: str
) -> None:
    """The host was replaced in the middle of a deployment, or its root was wiped."""
    completion = server.run(event, application.revise("one", LATER))
    assert_gone(completion)
    assert "was never fetched on this host" in completion.message


def test_a_blue_green_rollback_fails_where_the_scripts_that_take_the_traffic_back_are_gone(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """The traffic would go to an application that was never told."""
    installed = application.revise("installed", LATER)
    server.carry(installed, "DownloadBundle", "Install")
    shutil.rmtree(archive_of(installed, agent))
    rollback = application.revise("rollback", LATER, others=ROLLBACK)
    assert_gone(server.run("BeforeAllowTraffic", rollback))
    assert_gone(server.run("ApplicationStart", rollback))


def test_a_blue_green_rollback_without_any_earlier_deployment_has_nothing_to_run(
    server: ControlServer, application: Application
) -> None:
    """A fleet that never had a deployment rolls its first one back."""
    rollback = application.revise("rollback", LATER, others=ROLLBACK)
    server.carry(rollback, "BeforeBlockTraffic", "ApplicationStop", "BeforeAllowTraffic")


def test_an_earlier_archive_that_is_gone_is_said_in_the_report_of_its_early_event(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """The new revision can be deployed, but nobody may think that the old one was stopped by its scripts."""
    first, second = application.revise("one", ["ApplicationStop"]), application.revise("two")
    server.carry(first, "DownloadBundle", "Install")
    shutil.rmtree(archive_of(first, agent))
    completion = server.run("ApplicationStop", second)
    assert "Succeeded" == completion.status
    assert completion.message.startswith(
        f"Succeeded: no script has run, since {archive_of(first, agent)} is gone"
    )


def test_an_unknown_command_before_any_download_is_named_as_such(
    server: ControlServer, application: Application
) -> None:
    """Nothing is missing on this host."""
    completion = server.run("Reboot", application.revise("one"))
    assert completion.message.endswith("[command-unknown]")
