"""`agentctl` as people call it: the console script, in a process of its own."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.daemon.agent_process import AGENTCTL, Agent, clean_environment
from tests.daemon.control_server import ControlServer
from tests.daemon.revisions import Application, Bucket, Gate
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Done = subprocess.CompletedProcess[str]
    AgentCtl = Callable[..., Done]


@pytest.fixture
def agentctl(tmp_path: Path) -> AgentCtl:
    """Calls agentctl with these arguments, in the directory `here`; keywords go into its environment."""
    here = tmp_path / "here"
    here.mkdir()

    def call(*arguments: object, **environment: str) -> Done:
        return subprocess.run(
            [AGENTCTL, *map(str, arguments)],
            env=clean_environment(**environment),
            cwd=here,
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    return call


@pytest.fixture(scope="session")
def bucket() -> Iterator[Bucket]:
    """A bucket for everybody."""
    made = Bucket()
    with made.server.running():
        yield made


@pytest.fixture
def server() -> Iterator[ControlServer]:
    """A control endpoint that holds empty polls."""
    running = ControlServer().start()
    yield running
    running.stop()


@pytest.fixture
def agent(tmp_path: Path, server: ControlServer, bucket: Bucket) -> Iterator[Agent]:
    """An agent that has not been started."""
    settings = {"deploy_control_endpoint": server.url, "s3_endpoint_override": bucket.server.url}
    made = Agent(tmp_path / "agent", settings)
    yield made
    made.clear_away()


@pytest.fixture
def application(bucket: Bucket, tmp_path: Path) -> Application:
    """An application in a group of its own."""
    return Application(bucket, tmp_path)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Opened at the end at the latest."""
    made = Gate(tmp_path / "gate")
    yield made
    made.open()
