"""Which revision's scripts an event runs, and by which AppSpec."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.e2e.bundles import pack

if TYPE_CHECKING:
    from tests.daemon.agent_process import Agent
    from tests.daemon.control_server import ControlServer
    from tests.daemon.revisions import Application

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("agent")]

EVENTS = ["BeforeBlockTraffic", "ApplicationStop", "AfterInstall", "BeforeAllowTraffic"]
ROLLBACK = {"DeploymentType": "BLUE_GREEN", "DeploymentCreator": "codeDeployRollback"}


def test_until_the_first_install_succeeds_nothing_runs_before_a_download(
    server: ControlServer, application: Application
) -> None:
    """A revision that never got as far as Install has nothing to stop."""
    server.carry(application.revise("one", EVENTS), "DownloadBundle")
    server.carry(application.revise("two", EVENTS), "ApplicationStop")
    assert [] == application.trace


def test_a_deployment_that_failed_after_install_still_stops_itself(
    server: ControlServer, application: Application
) -> None:
    """Its files are there, and so may be its processes: who else could end them?"""
    failed = application.revise("one", ["ApplicationStop"])
    server.carry(failed, "DownloadBundle", "Install")
    server.carry(application.revise("two"), "ApplicationStop")
    assert ["ApplicationStop of one"] == application.trace


def test_a_deployment_that_comes_again_runs_its_own_scripts(
    server: ControlServer, application: Application
) -> None:
    """Once its archive is there, it wins over all others."""
    first, second = application.revise("one", EVENTS), application.revise("two", EVENTS)
    server.carry(first, "DownloadBundle", "Install")
    server.carry(second, "DownloadBundle", "ApplicationStop")
    assert ["ApplicationStop of two"] == application.trace


def test_a_blue_green_rollback_runs_what_it_rolls_back_to(
    server: ControlServer, application: Application
) -> None:
    """The traffic goes back to a revision that is still there, so nothing is downloaded."""
    installed = application.revise("installed", EVENTS)
    downloaded = application.revise("downloaded", EVENTS)
    server.carry(installed, "DownloadBundle", "Install")
    server.carry(downloaded, "DownloadBundle")
    rollback = application.revise("rollback", EVENTS, others=ROLLBACK)
    server.carry(rollback, "BeforeBlockTraffic", "ApplicationStop", "BeforeAllowTraffic")
    assert [
        "BeforeBlockTraffic of downloaded",
        "ApplicationStop of installed",
        "BeforeAllowTraffic of installed",
    ] == application.trace


def test_an_appspec_that_was_renamed_does_not_keep_the_old_revision_from_stopping(
    server: ControlServer, application: Application
) -> None:
    """Each revision is read by the name that its own deployment gave."""
    first = application.revise("one", ["ApplicationStop"], appspec="one.yml")
    second = application.revise("two", ["ApplicationStop"], appspec="deploy/two.yml")
    third = application.revise("three")
    server.carry(first, "DownloadBundle", "Install")
    server.carry(second, "ApplicationStop", "DownloadBundle", "Install")
    server.carry(third, "ApplicationStop")
    assert ["ApplicationStop of one", "ApplicationStop of two"] == application.trace


def test_a_first_appspec_name_does_not_keep_the_old_revision_from_stopping(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """The old revision was deployed without a name: it is not read by the name that only the new one has."""
    first = application.revise("one", ["ApplicationStop"])
    second = application.revise("two", appspec="two.yml")
    server.carry(first, "DownloadBundle", "Install")
    server.carry(second, "ApplicationStop")
    # As another agent leaves it, which keeps no names.
    (agent.root / first.group_id / first.deployment_id / ".appspec-filename").unlink()
    server.carry(second, "ApplicationStop")
    assert ["ApplicationStop of one", "ApplicationStop of one"] == application.trace


def test_an_old_revision_is_read_by_its_own_name_although_it_has_a_file_of_the_new_name(
    server: ControlServer, application: Application
) -> None:
    """One repository with an AppSpec for each stage: the stage was changed since."""
    trace = application.directory / f"{application.group_id}-trace"
    files = {
        "appspec.yml": application.appspec(["ApplicationStop"]),
        "other.yml": application.appspec(),
        "hook.sh": f"#!/bin/sh\necho stopped >> {trace}\n",
        "file.txt": "one",
    }
    first = application.deploy(application.bucket.put(pack("tar", files)))
    server.carry(first, "DownloadBundle", "Install")
    server.carry(application.revise("two", appspec="other.yml"), "ApplicationStop")
    assert ["stopped"] == application.trace


def test_an_old_revision_that_was_cleared_out_does_not_block_the_new_one(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """Somebody made room on the disk."""
    first, second = application.revise("one", EVENTS), application.revise("two", EVENTS)
    server.carry(first, "DownloadBundle", "Install")
    archive = agent.root / first.group_id / first.deployment_id / "deployment-archive"
    shutil.rmtree(archive)
    server.carry(second, "ApplicationStop")
    archive.mkdir()
    server.carry(second, "BeforeBlockTraffic", "DownloadBundle", "Install", "AfterInstall")
    assert ["AfterInstall of two"] == application.trace


def test_a_failing_stop_names_the_revision_whose_script_it_is(
    server: ControlServer, application: Application
) -> None:
    """People look for the fault in the revision that they deploy, and it is not there."""
    first = application.revise("one", ["ApplicationStop"], script="exit 1")
    second = application.revise("two")
    server.carry(first, "DownloadBundle", "Install")
    completion = server.run("ApplicationStop", second)
    assert ("Failed", 4) == (completion.status, completion.code)
    assert f"the scripts of the earlier deployment {first.deployment_id} run" in completion.message


def test_hooks_know_their_deployment_and_not_the_agents_keys(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """What scripts of the existing agents rely on, and what none should ever see."""
    printed = application.directory / "environment"
    deployment = application.revise("one", ["BeforeInstall"], script=f"env > {printed}")
    server.carry(deployment, "DownloadBundle", "BeforeInstall")
    environment = dict(line.split("=", 1) for line in printed.read_text().splitlines() if "=" in line)
    bundle_key = deployment.revision["S3Revision"]["Key"]
    expected = {
        "LIFECYCLE_EVENT": "BeforeInstall",
        "DEPLOYMENT_ID": deployment.deployment_id,
        "APPLICATION_NAME": "shop",
        "DEPLOYMENT_GROUP_NAME": f"{deployment.group_id}-name",
        "DEPLOYMENT_GROUP_ID": deployment.group_id,
        "BUNDLE_BUCKET": "bundles",
        "BUNDLE_KEY": bundle_key,
        "AWS_REGION": "us-east-1",
        "AWS_HOST_IDENTIFIER": "arn:aws:iam::123456789012:user/web-1",
    }
    assert expected == {name: environment.get(name) for name in expected}
    assert not {name for name in environment if "SECRET" in name or "ACCESS_KEY" in name}
    assert "not-so-secret" not in printed.read_text()


def test_a_revision_that_could_not_be_named_when_it_was_installed_still_stops_itself(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """The disk was full for a moment; the scripts of the revision before know nothing of what runs now."""
    first, second, third = (
        application.revise(label, ["ApplicationStop"]) for label in ("one", "two", "three")
    )
    server.carry(first, "DownloadBundle", "Install")
    server.carry(second, "DownloadBundle")
    pointer = agent.root / "deployment-instructions" / f"{application.group_id}_last_successful_install"
    before = pointer.rename(f"{pointer}.before")
    pointer.mkdir()
    failed = server.run("Install", second)
    assert "Failed" == failed.status
    assert failed.message.endswith("[install-not-completed]")
    pointer.rmdir()
    before.rename(pointer)
    server.carry(third, "ApplicationStop")
    assert ["ApplicationStop of two"] == application.trace
    assert str(agent.root / second.group_id / second.deployment_id) == pointer.read_text()
