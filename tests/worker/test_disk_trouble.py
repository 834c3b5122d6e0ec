"""The disk that the agent works on is full, or not to be written: commands fail with the reason, or don't mind."""

from __future__ import annotations

import contextlib
import json
import os
import resource
from typing import TYPE_CHECKING

import pytest

from tests.daemon.control_server import SERVER_ERROR, SPECIFICATION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.daemon.agent_process import Agent
    from tests.daemon.control_server import Completion, ControlServer, Deployment
    from tests.daemon.revisions import Application

pytestmark = pytest.mark.server


def run_with_a_file_in_the_way(
    server: ControlServer, agent: Agent, application: Application, in_the_way: Path, name: str
) -> Completion:
    """What becomes of a command when a directory that it needs can't be made.

    The same error path as with a full disk, and it can be had without being root.
    """
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    if in_the_way.is_dir():
        os.rename(in_the_way, f"{in_the_way}.away")
    in_the_way.touch()
    try:
        return server.run(name, application.revise("one", ["AfterInstall"]))
    finally:
        in_the_way.unlink()


@pytest.mark.parametrize("name", ["DownloadBundle", "ApplicationStop"])
def test_a_group_directory_that_cannot_be_made_is_named(
    server: ControlServer, agent: Agent, application: Application, name: str
) -> None:
    """`internal error` would send people to us instead of to their disk."""
    completion = run_with_a_file_in_the_way(
        server, agent, application, agent.root / application.group_id, name
    )
    assert ("Failed", 5) == (completion.status, completion.code)
    assert str(agent.root / application.group_id) in completion.message
    assert completion.message.endswith("[deployment-directory-unwritable]")


def test_a_tracking_directory_that_cannot_be_made_is_named(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """A host without the mark of its deployment looks idle to whoever wants to switch it off."""
    completion = run_with_a_file_in_the_way(
        server, agent, application, agent.root / "ongoing-deployment", "DownloadBundle"
    )
    assert ("Failed", 5) == (completion.status, completion.code)
    assert str(agent.root / "ongoing-deployment") in completion.message
    assert completion.message.endswith("[deployment-directory-unwritable]")


def test_a_command_of_which_no_record_can_be_made_is_refused_with_the_reason(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """Without a record a crash would lose it; so it fails at once, and the service does not wait."""
    agent.wait_until_idle()
    completion = run_with_a_file_in_the_way(
        server, agent, application, agent.state / "jobs", "DownloadBundle"
    )
    assert ("Failed", 5) == (completion.status, completion.code)
    assert str(agent.state / "jobs") in completion.message
    assert completion.message.endswith("[record-impossible]")
    agent.kill()
    agent.start()
    server.carry(application.revise("one"), "DownloadBundle", "Install")


@contextlib.contextmanager
def files_no_longer_than(size_bytes: int, agent: Agent) -> Iterator[None]:
    """What the daemon and its workers write is cut off there, as a full disk cuts it off."""
    before = resource.prlimit(agent.pid, resource.RLIMIT_FSIZE)
    processes = [agent.pid, *agent.children()]
    for pid in processes:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def sizes_of_record(server: ControlServer, agent: Agent, deployment: Deployment) -> dict[str, int]:
    """How long the record of a command is after each kind of line, until its specification is known."""
    server.break_down(SPECIFICATION, SERVER_ERROR)
    identifier = server.send("BeforeInstall", deployment)
    server.wait_for_requests(SPECIFICATION, len(server.of(SPECIFICATION)) + 1)
    (path,) = agent.state.glob("jobs/*/record.jsonl")
    sizes, size = {}, 0
    for line in path.read_text().splitlines(keepends=True):
        size += len(line)
        if line.strip():
            sizes[json.loads(line)["entry"]] = size
    server.heal()
    server.completion(identifier)
    agent.wait_until_idle()
    return sizes


@pytest.mark.parametrize("last_whole", ["accepted", "worker", "step"])
def test_a_command_whose_record_cannot_be_continued_fails_with_the_reason_before_it_begins(
    server: ControlServer, agent: Agent, application: Application, last_whole: str
) -> None:
    """After a crash nobody would know what it had done. `internal error` would send people to us."""
    agent.wait_until_idle()
    deployment = application.revise("one", ["BeforeInstall"])
    server.carry(deployment, "DownloadBundle")
    agent.wait_until_idle()
    limit = sizes_of_record(server, agent, deployment)[last_whole] + 20
    ran_before = application.trace
    with files_no_longer_than(limit, agent):
        completion = server.run("BeforeInstall", deployment)
        agent.wait_until_idle()
    assert ("Failed", 5) == (completion.status, completion.code)
    assert "record.jsonl: File too large" in completion.message
    assert "Nothing has been changed." in completion.message
    assert completion.message.endswith("[record-impossible]")
    assert ran_before == application.trace


def test_a_mark_that_could_not_be_removed_goes_with_the_next_command(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """The disk was read-only when its deployment ended; other tools believe that it is still under way."""
    marks = agent.root / "ongoing-deployment"
    marks.mkdir(exist_ok=True)
    (marks / "d-LEFTBEHIND").write_text("a host command of long ago")
    server.carry(application.revise("one"), "DownloadBundle")
    agent.wait_until_idle()
    assert [] == list(marks.iterdir())
