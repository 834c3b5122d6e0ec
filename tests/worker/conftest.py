"""One agent, one control endpoint and one bucket for all tests of a module; each test has a group of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.daemon.agent_process import Agent
from tests.daemon.control_server import ControlServer
from tests.daemon.fixtures import addresses, application, bucket

__all__ = ["application", "bucket"]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.daemon.revisions import Bucket


@pytest.fixture(scope="module")
def server() -> Iterator[ControlServer]:
    """A control endpoint that holds empty polls."""
    running = ControlServer().start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, server: ControlServer, bucket: Bucket) -> Iterator[Agent]:
    """An agent that polls the endpoint."""
    running = Agent(tmp_path_factory.mktemp("agent"), addresses(server, bucket)).start()
    yield running
    running.clear_away()
