"""A control endpoint and a bucket that do what a test says, and agents that know only these two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.daemon.agent_process import Agent
from tests.daemon.fixtures import addresses, application, bucket, gate, server

__all__ = ["application", "bucket", "gate", "server"]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.daemon.control_server import ControlServer
    from tests.daemon.revisions import Bucket

    MakeAgent = Callable[..., Agent]


@pytest.fixture
def make_agent(tmp_path: Path, server: ControlServer, bucket: Bucket) -> Iterator[MakeAgent]:
    """Makes agents, with more settings; takes the environment as keywords."""
    made: list[Agent] = []

    def make(settings: dict[str, object] | None = None, **environment: str) -> Agent:
        directory = tmp_path / f"agent-{len(made)}"
        made.append(Agent(directory, {**addresses(server, bucket), **(settings or {})}, **environment))
        return made[-1]

    yield make
    for agent in made:
        agent.clear_away()


@pytest.fixture
def agent(make_agent: MakeAgent) -> Agent:
    """An agent that polls the endpoint."""
    return make_agent().start()
