"""`agentctl` as people call it: the console script, in a process of its own."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.daemon.agent_process import AGENTCTL, Agent, clean_environment
from tests.daemon.fixtures import addresses, application, bucket, gate, server
from tests.waiting import PATIENCE_S

__all__ = ["application", "bucket", "gate", "server"]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.daemon.control_server import ControlServer
    from tests.daemon.revisions import Bucket

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


@pytest.fixture
def agent(tmp_path: Path, server: ControlServer, bucket: Bucket) -> Iterator[Agent]:
    """An agent that has not been started."""
    made = Agent(tmp_path / "agent", addresses(server, bucket))
    yield made
    made.clear_away()
