"""The unpacked revision disappears between two events: what can't be looked up is never reported as done."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.e2e.bundles import pack

if TYPE_CHECKING:
    from collections.abc import Callable
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
    assert "So nothing has been installed." in completion.message


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


def emptied(archive: Path) -> None:
    for file in archive.iterdir():
        file.unlink()


@pytest.mark.parametrize(
    "lose",
    [
        emptied,
        lambda archive: shutil.rmtree(archive.parent),
        lambda archive: shutil.rmtree(archive.parent.parent),
    ],
    ids=["files", "deployment", "group"],
)
def test_a_blue_green_rollback_fails_whatever_is_missing_of_what_it_needs(
    server: ControlServer, agent: Agent, application: Application, lose: Callable[[Path], None]
) -> None:
    """Cleaners leave directories, people remove all of them."""
    installed = application.revise("installed", LATER)
    server.carry(installed, "DownloadBundle", "Install")
    lose(archive_of(installed, agent))
    completion = server.run("BeforeAllowTraffic", application.revise("rollback", LATER, others=ROLLBACK))
    assert_gone(completion)
    assert f"{application.group_id}/{installed.deployment_id}" in completion.message
    early = server.run("ApplicationStop", application.revise("next"))
    assert early.message.startswith("Succeeded: no script has run, since "), early.message


@pytest.mark.parametrize("text", ["", "/etc", "{group}", "d-1", "{directory}/deployment-archive", "a\0b"])
def test_a_file_that_names_no_deployment_of_its_group_is_named(
    server: ControlServer, agent: Agent, application: Application, text: str
) -> None:
    """A crash of the host has emptied it, or somebody has moved the deployment root."""
    installed = application.revise("installed", ["ApplicationStop", *LATER])
    server.carry(installed, "DownloadBundle", "Install")
    agent.wait_until_idle()
    directory = archive_of(installed, agent).parent
    pointer = agent.root / "deployment-instructions" / f"{installed.group_id}_last_successful_install"
    pointer.write_text(text.format(directory=directory, group=directory.parent))
    completion = server.run("BeforeAllowTraffic", application.revise("rollback", LATER, others=ROLLBACK))
    assert_gone(completion)
    assert str(pointer) in completion.message
    early = server.run("ApplicationStop", application.revise("next"))
    assert early.message.startswith(f"Succeeded: no script has run, since {pointer} says "), early.message
    assert [] == application.trace


def test_a_file_that_should_name_a_deployment_and_is_lost_is_not_taken_for_a_first_deployment(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """What the group has installed is on record: there is an application, and it was not stopped."""
    installed = application.revise("installed", ["ApplicationStop", *LATER])
    server.carry(installed, "DownloadBundle", "Install")
    agent.wait_until_idle()
    pointer = agent.root / "deployment-instructions" / f"{installed.group_id}_last_successful_install"
    pointer.unlink()
    completion = server.run("BeforeAllowTraffic", application.revise("rollback", LATER, others=ROLLBACK))
    assert_gone(completion)
    early = server.run("ApplicationStop", application.revise("next"))
    expected = f"Succeeded: no script has run, since {pointer} is not there, although {pointer.parent}/"
    assert early.message.startswith(expected), early.message
    assert [] == application.trace


LEFT = {
    "is no directory any more": lambda archive: archive.write_text("a file"),
    "is a link to elsewhere, where there is no directory": lambda archive: archive.symlink_to("elsewhere"),
    "is a link to deployment-archive, where there is no directory": lambda archive: archive.symlink_to(
        archive.name
    ),
}


@pytest.mark.parametrize("left", LEFT)
def test_what_stands_in_the_place_of_an_archive_is_named(
    server: ControlServer, agent: Agent, application: Application, left: str
) -> None:
    """Whoever looks finds something under that name."""
    deployment = application.revise("one", ["ApplicationStop", *LATER])
    server.carry(deployment, "DownloadBundle", "Install")
    archive = archive_of(deployment, agent)
    shutil.rmtree(archive)
    LEFT[left](archive)
    completion = server.run("ApplicationStart", deployment)
    assert_gone(completion)
    assert f"{archive}, {left}. " in completion.message
    early = server.run("ApplicationStop", application.revise("next"))
    assert f"no script has run, since {archive} {left}" in early.message


def test_an_archive_that_was_moved_behind_a_link_is_where_it_was(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """Somebody made room on the disk, and lost nothing."""
    deployment = application.revise("one", LATER)
    server.carry(deployment, "DownloadBundle", "Install", "AfterInstall")
    archive = archive_of(deployment, agent)
    archive.rename(application.directory / "moved")
    archive.symlink_to(application.directory / "moved")
    server.carry(deployment, "ApplicationStart", "ValidateService")
    assert ["AfterInstall of one", "ApplicationStart of one", "ValidateService of one"] == application.trace


def test_a_script_that_was_removed_from_the_archive_is_not_said_to_lack_in_the_revision(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """People would look for the fault in their build, where there is none."""
    deployment = application.revise("one", LATER)
    server.carry(deployment, "DownloadBundle", "Install")
    (archive_of(deployment, agent) / "hook.sh").unlink()
    completion = server.run("AfterInstall", deployment)
    assert ("Failed", 1) == (completion.status, completion.code)
    assert "although the revision has it" in completion.message
    assert completion.message.endswith("[hook-script-missing]")


def test_a_deployment_that_only_the_groups_files_know_is_not_said_to_be_new(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """Old lines of the history go, and with the directory everything else of the deployment."""
    deployment = application.revise("one", LATER)
    server.carry(deployment, "DownloadBundle")
    agent.wait_until_idle()
    (agent.state / "history.jsonl").unlink()
    shutil.rmtree(archive_of(deployment, agent).parent)
    completion = server.run("AfterInstall", deployment)
    assert_gone(completion)
    assert "is gone, with the whole directory of the deployment" in completion.message


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
