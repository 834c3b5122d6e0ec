"""Commands whose scripts run as a user, in a session of theirs."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.e2e.bundles import pack
from tests.waiting import is_running, wait_until

if TYPE_CHECKING:
    from tests.daemon.agent_process import Agent
    from tests.daemon.control_server import ControlServer, Deployment
    from tests.daemon.revisions import Application, Gate

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root opens sessions of users"),
]


def as_root(application: Application, script: str) -> Deployment:
    """A deployment whose AfterInstall runs this script with `runas: root`."""
    appspec = f"{application.appspec(['AfterInstall'])}      runas: root\n"
    files = {"file.txt": "one", "hook.sh": f"#!/bin/sh\n{script}\n", "appspec.yml": appspec}
    return application.deploy(application.bucket.put(pack("tar", files)))


def parent_of(pid: int) -> int:
    """The process that keeps the session of this script."""
    parent = psutil.Process(pid).ppid()
    assert psutil.Process(parent).name() == "hook-session"
    return parent


def test_a_killed_worker_leaves_neither_script_nor_session(
    server: ControlServer, agent: Agent, application: Application, gate: Gate
) -> None:
    """The record names the process of the session, and the script below it is ended with its own name."""
    deployment = as_root(application, gate.script)
    server.carry(deployment, "DownloadBundle", "Install")
    lost = server.send("AfterInstall", deployment)
    wait_until(lambda: gate.is_reached, "the script runs")
    keeper = parent_of(gate.pid)
    (worker,) = agent.workers()
    os.kill(worker, signal.SIGKILL)
    report = server.completion(lost)
    assert report.code == 7
    assert "hook.sh" in report.message
    assert "codedeploy-agent: " not in report.message
    wait_until(lambda: not is_running(keeper) and not is_running(gate.pid), "all of it has gone")


def test_a_killed_session_leaves_the_command_to_its_true_end(
    server: ControlServer, agent: Agent, application: Application, gate: Gate
) -> None:
    """The script is none the worse for it, and the report is its own."""
    deployment = as_root(application, f"{gate.script}\nexit 3")
    server.carry(deployment, "DownloadBundle", "Install")
    command = server.send("AfterInstall", deployment)
    wait_until(lambda: gate.is_reached, "the script runs")
    os.kill(parent_of(gate.pid), signal.SIGKILL)
    gate.open()
    report = server.completion(command)
    assert report.code == 4
    assert "failed with exit code 3" in report.message
    agent.wait_until_idle()
