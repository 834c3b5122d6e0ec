"""A control endpoint and a bucket that do what a test says, and agents that know only these two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.daemon.agent_process import Agent
from tests.daemon.control_server import ControlServer
from tests.daemon.revisions import Application, Bucket, Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    MakeAgent = Callable[..., Agent]


@pytest.fixture
def server() -> Iterator[ControlServer]:
    """A control endpoint that holds empty polls."""
    running = ControlServer().start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def bucket() -> Iterator[Bucket]:
    """A bucket for everybody."""
    made = Bucket()
    with made.server.running():
        yield made


@pytest.fixture
def make_agent(tmp_path: Path, server: ControlServer, bucket: Bucket) -> Iterator[MakeAgent]:
    """Makes agents, with more settings; takes the environment as keywords."""
    made: list[Agent] = []

    def make(settings: dict[str, object] | None = None, **environment: str) -> Agent:
        urls = {"deploy_control_endpoint": server.url, "s3_endpoint_override": bucket.server.url}
        directory = tmp_path / f"agent-{len(made)}"
        made.append(Agent(directory, {**urls, **(settings or {})}, **environment))
        return made[-1]

    yield make
    for agent in made:
        agent.clear_away()


@pytest.fixture
def agent(make_agent: MakeAgent) -> Agent:
    """An agent that polls the endpoint."""
    return make_agent().start()


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
