"""Records that nobody can use, and commands that kill whoever works on them."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.daemon.control_server import HOST, SERVER_ERROR, SPECIFICATION
from tests.waiting import is_running, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.daemon.agent_process import Agent
    from tests.daemon.control_server import ControlServer, Deployment
    from tests.daemon.revisions import Application, Gate

pytestmark = pytest.mark.server


def kill_workers(agent: Agent, count: int) -> None:
    """Kill so many workers of the only command, one after the other."""
    killed: list[int] = []
    while len(killed) < count:
        (worker,) = wait_until(
            lambda: [pid for pid in agent.workers() if pid not in killed], f"worker {len(killed) + 1}"
        )
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda pid=worker: not is_running(pid), "it is gone")  # type: ignore[misc]
        killed.append(worker)


def test_a_command_that_kills_every_worker_is_reported_once_as_lost_and_blocks_nobody(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """Otherwise the service waits for an hour, and the group's next command for half a minute."""
    deployment = application.revise("one", ["BeforeInstall"])
    server.carry(deployment, "DownloadBundle")
    agent.wait_until_idle()
    server.break_down(SPECIFICATION, SERVER_ERROR)
    identifier = server.send("BeforeInstall", deployment)
    kill_workers(agent, 4)
    completion = server.completion(identifier)
    assert ("Failed", 7) == (completion.status, completion.code)
    assert completion.message.endswith("[worker-lost]")
    server.heal()
    agent.wait_until_idle()
    began = time.monotonic()
    server.carry(deployment, "BeforeInstall")
    assert time.monotonic() - began < 10
    assert 1 == len(server.completions(identifier))
    assert 1 == len(agent.logged("command_abandoned"))
    agent.kill()
    agent.start()
    server.carry(deployment, "AfterInstall")
    assert 1 == len(server.completions(identifier))


def test_records_that_wait_for_the_endpoint_at_a_start_are_held_by_their_own_workers_alone(
    server: ControlServer, agent: Agent, application: Application, gate: Gate
) -> None:
    """Else the end of one would not be noticed before that of another, which may take an hour."""
    slow = application.revise("slow", ["BeforeInstall"], script=gate.script)
    quick = application.in_another_group().revise("quick")
    server.carry(slow, "DownloadBundle")
    agent.wait_until_idle()
    server.break_down(SPECIFICATION, SERVER_ERROR)
    held, other = server.send("BeforeInstall", slow), server.send("ApplicationStop", quick)
    wait_until(lambda: len(agent.workers()) == 2, "both are at work")
    agent.kill()
    for worker in agent.workers():
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda pid=worker: not is_running(pid), "it is gone")  # type: ignore[misc]
    server.break_down(SPECIFICATION, SERVER_ERROR)
    dead = agent.workers()
    agent.start()
    wait_until(lambda: len({*agent.workers()} - {*dead}) == 2, "both are taken up")
    _, second = (pid for pid in agent.workers() if pid not in dead)
    os.kill(second, signal.SIGKILL)
    server.heal()
    assert "Succeeded" == server.completion(other).status
    gate.open()
    assert "Succeeded" == server.completion(held).status


def test_a_record_that_is_a_directory_is_named_in_the_log_and_left_alone(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """A damaged disk must not keep the agent from starting, nor other commands from being carried out."""
    agent.end()
    damaged = agent.state / "jobs" / "00000001-damaged" / "record.jsonl"
    damaged.mkdir(parents=True)
    agent.start()
    assert 1 == len(agent.logged("record_unusable"))
    server.carry(application.revise(), "DownloadBundle", "Install")
    assert damaged.is_dir()
    assert 0 == agent.agentctl("status").returncode
    assert 0 == agent.agentctl("wait-idle", "--timeout", "10").returncode
    assert 0 == agent.end()


def test_a_file_in_the_place_of_all_records_does_not_end_the_agent(agent: Agent) -> None:
    """It goes on polling, and refuses commands with the reason."""
    agent.end()
    jobs = agent.state / "jobs"
    if jobs.exists():
        jobs.rmdir()
    jobs.touch()
    agent.start()
    assert 1 == len(agent.logged("records_unusable"))
    assert is_running(agent.pid)


# -- an Install whose worker is gone ---------------------------------------------------------------


def lose_install(agent: Agent, deployment: Deployment, *steps: str) -> str:
    """Leave a record as a worker leaves it that is killed in Install after these steps."""
    identifier = "lost install"
    command = {
        "identifier": identifier,
        "host_identifier": HOST,
        "deployment_execution_id": deployment.execution_id,
        "name": "Install",
        "nonce": None,
    }
    facts = {
        "deployment_id": deployment.deployment_id,
        "deployment_group_id": deployment.group_id,
        "deployment_group_name": "shops",
        "application_name": "shop",
    }
    entries: list[dict[str, Any]] = [
        {"entry": "accepted", "command": command},
        {"entry": "worker", "pid": 2, "start_ticks": 1, "boot_id": "an earlier one"},
        {"entry": "deployment", **facts},
        *({"entry": "step", "step": step} for step in steps),
    ]
    directory = agent.state / "jobs" / "00000001-lost"
    directory.mkdir(parents=True)
    lines = [json.dumps({"at": 1.0, **entry}) for entry in entries]
    (directory / "record.jsonl").write_text("\n".join(lines) + "\n")
    return identifier


def pointer(agent: Agent, deployment: Deployment) -> Path:
    return agent.root / "deployment-instructions" / f"{deployment.group_id}_last_successful_install"


def test_an_install_that_took_effect_before_its_worker_was_killed_has_succeeded(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """The files are there; only the name of the last successful deployment and the report were missing."""
    deployment = application.revise("one", ["ApplicationStop"])
    server.carry(deployment, "DownloadBundle", "Install")
    agent.wait_until_idle()
    agent.end()
    pointer(agent, deployment).unlink()
    identifier = lose_install(agent, deployment, "run", "commit")
    agent.start()
    completion = server.completion(identifier)
    assert ("Succeeded", 0) == (completion.status, completion.code)
    agent.wait_until_idle()
    assert (
        str(agent.root / deployment.group_id / deployment.deployment_id)
        == pointer(agent, deployment).read_text()
    )
    server.carry(application.revise("two"), "ApplicationStop")
    assert ["ApplicationStop of one"] == application.trace


@pytest.mark.parametrize("steps", [("run",), ("run", "commit", "undo")], ids=["before", "taken back"])
def test_an_install_that_did_not_take_effect_is_lost(
    server: ControlServer, agent: Agent, application: Application, steps: tuple[str, ...]
) -> None:
    """The previous revision is the one that runs, and the report must say so."""
    deployment = application.revise("one")
    server.carry(deployment, "DownloadBundle")
    agent.wait_until_idle()
    agent.end()
    identifier = lose_install(agent, deployment, *steps)
    agent.start()
    completion = server.completion(identifier)
    assert ("Failed", 7) == (completion.status, completion.code)
    assert completion.message.endswith("[worker-lost]")
    assert not pointer(agent, deployment).exists()


def test_an_install_notes_that_it_is_about_to_take_effect(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """By which whoever comes after a crash goes; the record is looked at while its report can't be sent."""
    deployment = application.revise("one")
    server.carry(deployment, "DownloadBundle")
    agent.wait_until_idle()
    server.break_down("PutHostCommandComplete", SERVER_ERROR)
    identifier = server.send("Install", deployment)
    server.wait_for_requests("PutHostCommandComplete", 2)
    (record,) = agent.records()
    steps = [entry["step"] for entry in record if entry["entry"] == "step"]
    assert ["specification", "checks", "acknowledge", "run", "commit"] == steps
    server.heal()
    assert "Succeeded" == server.completion(identifier).status
