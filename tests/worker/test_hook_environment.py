"""From the configuration file, the AppSpec file and the agent's own environment to what a hook finds in its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.daemon.agent_process import Agent
from tests.e2e.bundles import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.daemon.control_server import ControlServer
    from tests.daemon.revisions import Application, Bucket

pytestmark = pytest.mark.server

OF_THE_AGENT = {"LD_LIBRARY_PATH": "/opt/of-the-agent", "FOR_THE_AGENT": "alone", "LC_ALL": "C.UTF-8"}
APPSPEC = """\
version: 0.0
os: linux
environment:
  APPSPEC_WINS: appspec
  SCRIPT_WINS: appspec
  ONLY_APPSPEC: appspec
hooks:
  BeforeInstall:
    - location: print.sh
      environment:
        SCRIPT_WINS: script
        ONLY_SCRIPT: script
"""


@pytest.fixture
def environment_with(
    tmp_path: Path, server: ControlServer, bucket: Bucket, application: Application
) -> Iterator[Callable[..., dict[str, str]]]:
    """What a hook finds in its environment on a host with these settings."""
    made: list[Agent] = []

    def run(**settings: object) -> dict[str, str]:
        urls = {"deploy_control_endpoint": server.url, "s3_endpoint_override": bucket.server.url}
        made.append(Agent(tmp_path / "agent", {**urls, **settings}, **OF_THE_AGENT).start())
        script = f"#!/bin/sh\nenv -0 > {tmp_path}/environment\n"
        revision = bucket.put(pack("tar", {"appspec.yml": APPSPEC, "print.sh": script}))
        server.carry(application.deploy(revision), "DownloadBundle", "BeforeInstall")
        pairs = (tmp_path / "environment").read_text().split("\0")
        return dict(pair.split("=", 1) for pair in pairs if pair)

    yield run
    for agent in made:
        agent.clear_away()


def test_a_hook_finds_the_agents_environment_and_that_of_the_deployment(
    environment_with: Callable[..., dict[str, str]],
) -> None:
    """As with the existing agents; what the settings below take away is there without them."""
    found = environment_with()
    assert found.items() >= OF_THE_AGENT.items()
    assert "BeforeInstall" == found["LIFECYCLE_EVENT"]


def test_strip_loader_env_in_hooks_reaches_the_hook(
    environment_with: Callable[..., dict[str, str]],
) -> None:
    """The agent's libraries are none of the application's; everything else stays."""
    found = environment_with(strip_loader_env_in_hooks="true")
    assert "LD_LIBRARY_PATH" not in found
    assert "alone" == found["FOR_THE_AGENT"]


def test_restrict_hook_env_to_allowlist_reaches_the_hook(
    environment_with: Callable[..., dict[str, str]],
) -> None:
    """Nothing passes but what a shell needs, what the deployment says of itself, and what somebody has asked for."""
    found = environment_with(restrict_hook_env_to_allowlist="true")
    assert {"LD_LIBRARY_PATH", "FOR_THE_AGENT"}.isdisjoint(found)
    assert ("C.UTF-8", "BeforeInstall", "script") == (
        found["LC_ALL"],
        found["LIFECYCLE_EVENT"],
        found["ONLY_SCRIPT"],
    )


def test_the_environments_of_host_appspec_and_script_are_joined_and_the_nearest_wins(
    environment_with: Callable[..., dict[str, str]],
) -> None:
    """Three people set them: whoever runs the host, whoever wrote the AppSpec, whoever wrote the script."""
    of_host = {"ONLY_HOST": "host", "APPSPEC_WINS": "host", "SCRIPT_WINS": "host", "FOR_THE_AGENT": "host"}
    found = environment_with(environment=json.dumps(of_host))
    expected = {
        "ONLY_HOST": "host",
        "FOR_THE_AGENT": "host",
        "APPSPEC_WINS": "appspec",
        "ONLY_APPSPEC": "appspec",
        "SCRIPT_WINS": "script",
        "ONLY_SCRIPT": "script",
    }
    assert expected == {name: found.get(name) for name in expected}
