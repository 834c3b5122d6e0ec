"""StopDeployment, from the public API of our own control endpoint to the script that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from demo.stack import Stack
from tests.e2e.bundles import pack
from tests.e2e.conftest import Fleet
from tests.waiting import is_running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.daemon.revisions import Gate

pytestmark = pytest.mark.server

APPSPEC = """\
version: 0.0
os: linux
hooks:
  BeforeInstall:
    - location: hook.sh
      timeout: 60
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """One host, whose agent is quick to say that a hook still runs."""
    scratch = tmp_path / "stack"
    scratch.mkdir()
    with Stack(scratch) as stack:
        stack.start_control()
        host = stack.add_host("web-1", {"Role": "web"}, {"wait_between_updates": "0.1"})
        stack.start_s3()
        stack.start_agent(host)
        yield Fleet(stack)


def test_a_deployment_that_is_stopped_ends_the_script_that_runs(fleet: Fleet, gate: Gate) -> None:
    """The button that people press when they see that it goes wrong."""
    fleet.add_group("shop", "group", "web")
    bundle = pack("tar", {"appspec.yml": APPSPEC, "hook.sh": f"#!/bin/sh\n{gate.script}\n"})
    deployment_id = fleet.start("shop", "group", fleet.upload("shop.tar", bundle, "tar"))
    wait_until(lambda: gate.is_reached, "the script runs", within_s=40)
    fleet.codedeploy.stop_deployment(deploymentId=deployment_id)
    assert "Stopped" == fleet.wait(deployment_id)["status"]
    # The deployment is over at once; what the host has to say about it comes a moment later.
    event = wait_until(lambda: reported(fleet, deployment_id), "the host has reported")
    assert ("Failed", "hook.sh") == (event["status"], event["diagnostics"]["scriptName"])
    assert "[hook-cancelled]" in event["diagnostics"]["message"]
    assert not is_running(gate.pid)


def reported(fleet: Fleet, deployment_id: str) -> dict[str, Any]:
    """What the host says of the event; empty before it does."""
    event = fleet.events(deployment_id)["BeforeInstall"]
    return event if "diagnostics" in event else {}
