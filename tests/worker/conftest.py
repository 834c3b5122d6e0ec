"""One agent, one control endpoint and one bucket for all tests of a module; each test has a group of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.daemon.agent_process import Agent
from tests.daemon.control_server import ControlServer
from tests.daemon.revisions import Application, Bucket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def bucket() -> Iterator[Bucket]:
    """A bucket for everybody."""
    made = Bucket()
    with made.server.running():
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[ControlServer]:
    """A control endpoint that holds empty polls."""
    running = ControlServer().start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, server: ControlServer, bucket: Bucket) -> Iterator[Agent]:
    """An agent that polls the endpoint."""
    settings = {"deploy_control_endpoint": server.url, "s3_endpoint_override": bucket.server.url}
    running = Agent(tmp_path_factory.mktemp("agent"), settings).start()
    yield running
    running.clear_away()


@pytest.fixture
def application(bucket: Bucket, tmp_path: Path) -> Application:
    """An application in a group of its own."""
    return Application(bucket, tmp_path)
