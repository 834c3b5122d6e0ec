"""AppSpecs as they are found in the field, carried out by a whole agent: deployed, warned about, or refused."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.e2e.bundles import pack

if TYPE_CHECKING:
    from tests.daemon.agent_process import Agent
    from tests.daemon.control_server import ControlServer, Deployment
    from tests.daemon.revisions import Application

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("agent")]

HEAD = "version: 0.0\nos: linux\n"
FILES = HEAD + "files: [{source: /, destination: '@DEST@'}]\n"
ECS = """\
Resources:
  - TargetService:
      Type: AWS::ECS::Service
      Properties: {TaskDefinition: "arn:aws:ecs:us-east-1:000000000000:task-definition/web:1"}
Hooks:
  - BeforeInstall: check
"""
LAMBDA = "Resources:\n  - fn:\n      Type: AWS::Lambda::Function\n      Properties: {Name: fn}\n"


def deployment_of(application: Application, appspec: str, **others: str) -> Deployment:
    """A new revision with this AppSpec, and a script that says that it ran, and with which arguments."""
    trace = application.directory / f"{application.group_id}-trace"
    files = {
        "s.sh": f'#!/bin/sh\necho "ran${{1:+ with $*}}" >> {trace}\n',
        "appspec.yml": appspec.replace("@DEST@", str(application.destination)),
        **others,
    }
    return application.deploy(application.bucket.put(pack("tar", files)))


def script(keys: str) -> str:
    return HEAD + "hooks:\n  AfterInstall:\n    - location: s.sh\n" + textwrap.indent(keys, "      ") + "\n"


@pytest.mark.parametrize(
    ("appspec", "warning", "ran"),
    [
        pytest.param(script("args: --verbose"), "args is ignored", True, id="arguments as a text"),
        pytest.param(script("login: deploy"), "login is ignored", True, id="a user to log in as"),
        pytest.param(script("login: true\nsudo: false"), "", True, id="login without sudo"),
        pytest.param(
            script("environment: [A=b]"), "environment is ignored", True, id="variables of a script"
        ),
        pytest.param(script("runas: ''"), "", True, id="no user"),
        pytest.param(script("timeout: 1_000"), "", True, id="a timeout in groups"),
        pytest.param(
            HEAD + "environment: {my-var: 1}\n", "'my-var' can't be the name", False, id="a variable's name"
        ),
        pytest.param(
            HEAD + "environment:\n  - STAGE=prod\n", "environment is ignored", False, id="variables as a list"
        ),
        pytest.param(
            HEAD + "environment: production\n", "environment is ignored", False, id="variables as a text"
        ),
        pytest.param(HEAD + "files: {}\n", "", False, id="files that are an empty mapping"),
        pytest.param(
            HEAD + "hooks:\n  AfterInstall: {}\n", "", False, id="scripts that are an empty mapping"
        ),
        pytest.param(HEAD + 'x-role: !Sub "${Role}"\n', "unknown key 'x-role'", False, id="a foreign tag"),
        pytest.param(
            FILES + "Hooks: {AfterInstall: [{location: s.sh}]}\n", "did you mean 'hooks'?", False, id="Hooks"
        ),
    ],
)
def test_what_other_agents_take_is_deployed_and_what_is_ignored_is_in_the_report(
    server: ControlServer, application: Application, appspec: str, warning: str, *, ran: bool
) -> None:
    """The console shows the report, and hardly anybody reads the log of an agent whose deployments are green."""
    deployment = deployment_of(application, appspec)

    server.carry(deployment, "DownloadBundle")
    installed = server.run("Install", deployment)
    after = server.run("AfterInstall", deployment)

    assert ("Succeeded", "Succeeded") == (installed.status, after.status), (installed, after)
    assert (["ran"] if ran else []) == application.trace
    if warning:
        assert installed.log.startswith("Warning: appspec.yml, line ")
        assert warning in installed.log
    else:
        assert "" == installed.log


def test_an_empty_source_is_the_whole_revision(server: ControlServer, application: Application) -> None:
    """The path of nothing below the archive is the archive."""
    deployment = deployment_of(application, HEAD + "files: [{source: '', destination: '@DEST@'}]\n", a="a")

    server.carry(deployment, "DownloadBundle", "Install")

    assert {"a", "s.sh", "appspec.yml"} == {path.name for path in application.destination.iterdir()}


def test_the_log_of_the_agent_has_the_warnings_too(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """Whoever searches the logs of a fleet finds the AppSpecs to correct."""
    server.carry(deployment_of(application, HEAD + "speed: fast\n"), "DownloadBundle", "Install")

    assert any("'speed'" in line for line in agent.logged("appspec_warning"))


def test_more_warnings_than_a_report_has_room_for_are_counted(
    server: ControlServer, application: Application
) -> None:
    """The first ones are whole, and nobody takes them for all."""
    keys = "".join(f"key-number-{number}: x\n" for number in range(60))
    deployment = deployment_of(application, HEAD + keys)

    server.carry(deployment, "DownloadBundle")
    lines = server.run("Install", deployment).log.splitlines()

    assert "key-number-0" in lines[0]
    assert lines[-1].endswith("more warnings are in the agent's log.")
    assert 50 == len(lines) - 1 + int(lines[-1].split()[0])


def test_an_install_that_fails_says_what_was_ignored_as_well(
    server: ControlServer, application: Application
) -> None:
    """It may be the very reason, such as a behavior under a misspelt key."""
    application.destination.mkdir()
    (application.destination / "s.sh").write_text("somebody's")
    deployment = deployment_of(application, FILES + "file_exist_behavior: OVERWRITE\n")

    server.carry(deployment, "DownloadBundle")
    completion = server.run("Install", deployment)

    assert "[install-conflicts]" in completion.message
    assert "did you mean 'file_exists_behavior'?" in completion.log


@pytest.mark.parametrize(
    ("appspec", "platform"),
    [
        pytest.param("version: 0.0\n" + ECS, "Amazon ECS", id="ECS"),
        pytest.param(HEAD + ECS, "Amazon ECS", id="ECS with os"),
        pytest.param("version: 0.0\n" + LAMBDA, "AWS Lambda", id="Lambda"),
        pytest.param(HEAD + LAMBDA, "AWS Lambda", id="Lambda with os"),
        pytest.param(HEAD + LAMBDA + "files: []\nhooks:\n", "AWS Lambda", id="with empty sections"),
        pytest.param(HEAD + "hooks:\n  - BeforeInstall: check\n", "Amazon ECS or AWS Lambda", id="hooks"),
    ],
)
def test_an_appspec_for_another_platform_is_refused_and_the_platform_is_named(
    server: ControlServer, application: Application, appspec: str, platform: str
) -> None:
    """It holds nothing for a host to do, and a green deployment would say that it was done."""
    deployment = deployment_of(application, appspec)

    server.carry(deployment, "DownloadBundle")
    completion = server.run("Install", deployment)

    assert "Failed" == completion.status
    assert completion.message.endswith("[appspec-invalid]")
    assert f"this is an AppSpec for {platform} (" in completion.message


@pytest.mark.parametrize(
    "appspec",
    [
        pytest.param(HEAD + "Files: [{source: /, destination: '@DEST@'}]\n", id="a section in capitals"),
        pytest.param(HEAD + "hooks: {afterInstall: [{location: s.sh}]}\n", id="an event in other letters"),
        pytest.param(HEAD + "AfterInstall: [{location: s.sh}]\n", id="an event at the top"),
        pytest.param(HEAD + "---\nhooks: {AfterInstall: [{location: s.sh}]}\n", id="a second document"),
        pytest.param(HEAD + "hooks: {AfterInstall: [{location: s.sh}]}\nhooks: {}\n", id="a key twice"),
        pytest.param(HEAD + "hooks: {Install: [{location: s.sh}]}\n", id="an event without scripts"),
    ],
)
def test_an_appspec_that_would_do_nothing_of_what_it_says_is_refused(
    server: ControlServer, application: Application, appspec: str
) -> None:
    """Green without a file or a script is what its author finds out last."""
    deployment = deployment_of(application, appspec)

    server.carry(deployment, "DownloadBundle")
    completion = server.run("Install", deployment)

    assert "Failed" == completion.status
    assert "nothing at all would be done" in completion.message
    assert completion.message.endswith("[appspec-invalid]")


def test_a_revision_that_another_agent_has_deployed_for_nothing_does_not_block_its_successor(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """The corrected revision is the way out, and its first event looks into the old AppSpec."""
    first = application.revise("one", ["ApplicationStop"])
    server.carry(first, "DownloadBundle", "Install")
    archive = agent.root / first.group_id / first.deployment_id / "deployment-archive"
    (archive / "appspec.yml").write_text(HEAD + ECS)

    completion = server.run("ApplicationStop", application.revise("two"))

    assert "Succeeded" == completion.status, completion.message


def test_a_revision_that_another_agent_has_deployed_is_stopped_whatever_else_its_appspec_says(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """A host changes agents between two deployments, and the first event is the old revision's."""
    first = application.revise("one", ["ApplicationStop"])
    server.carry(first, "DownloadBundle", "Install")
    appspec = agent.root / first.group_id / first.deployment_id / "deployment-archive" / "appspec.yml"
    others = (
        "  AfterInstall:\n    - location: hook.sh\n      timeout: 5m\npermissions: [{object: /x, mode: ''}]\n"
    )
    appspec.write_text(appspec.read_text() + others)

    server.carry(application.revise("two"), "ApplicationStop")

    assert ["ApplicationStop of one"] == application.trace


def test_of_two_appspecs_the_one_called_yml_counts_at_every_event(
    server: ControlServer, application: Application
) -> None:
    """Some bundles hold an appspec.yaml for another tool beside it."""
    deployment = deployment_of(
        application, script("args: [yml]"), **{"appspec.yaml": script("args: [yaml]"), "other": ""}
    )

    server.carry(deployment, "DownloadBundle", "Install", "AfterInstall")

    assert ["ran with yml"] == application.trace
