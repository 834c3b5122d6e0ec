"""UpdateDeploymentAgent: the service asks the agent to update itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.daemon.agent_process import Agent

if TYPE_CHECKING:
    from pathlib import Path

    from tests.daemon.control_server import Completion, ControlServer
    from tests.daemon.revisions import Application

pytestmark = pytest.mark.server


def update(
    server: ControlServer, application: Application, directory: Path, command: str | None
) -> Completion:
    """What an agent with this agent_update_command reports."""
    settings = {"deploy_control_endpoint": server.url}
    agent = Agent(directory / "agent", {**settings, **({"agent_update_command": command} if command else {})})
    try:
        agent.start()
        return server.run("UpdateDeploymentAgent", application.revise())
    finally:
        agent.clear_away()


def test_without_a_command_of_the_administrators_it_is_refused(
    server: ControlServer, application: Application, tmp_path: Path
) -> None:
    """Code from the network that replaces a root process needs somebody's consent."""
    completion = update(server, application, tmp_path, None)
    assert ("Failed", 5) == (completion.status, completion.code)
    assert "agent_update_command" in completion.message
    assert completion.message.endswith("[update-not-allowed]")
    assert not server.is_noop(completion.identifier)


def test_the_administrators_command_is_run_without_a_shell_and_its_output_reported(
    server: ControlServer, application: Application, tmp_path: Path
) -> None:
    """What it is given is what is run."""
    script = tmp_path / "update.sh"
    script.write_text('#!/bin/sh\necho "updating $1 to $2; key: $AWS_SECRET_ACCESS_KEY"\n')
    script.chmod(0o755)
    completion = update(server, application, tmp_path, f"{script} agent '$(id)'")
    assert ("Succeeded", 0) == (completion.status, completion.code)
    assert "updating agent to $(id); key: \n" == completion.log


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("/bin/sh -c 'echo no repository >&2; exit 9'", "it exited with 9"),
        ("/nowhere/update", "No such file"),
    ],
)
def test_a_command_that_fails_is_reported_with_what_it_said(
    server: ControlServer, application: Application, tmp_path: Path, command: str, why: str
) -> None:
    """The host keeps the agent that it has."""
    completion = update(server, application, tmp_path, command)
    assert ("Failed", 5) == (completion.status, completion.code)
    assert why in completion.message
    assert completion.message.endswith("[update-failed]")
    assert ("no repository" in completion.log) == ("exited" in why)
