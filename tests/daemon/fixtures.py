"""What tests with an agent have in common: a control endpoint, a bucket, an application and a gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.daemon.control_server import ControlServer
from tests.daemon.revisions import Application, Bucket, Gate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def addresses(server: ControlServer, bucket: Bucket) -> dict[str, object]:
    """Settings of an agent that knows only these two."""
    return {"deploy_control_endpoint": server.url, "s3_endpoint_override": bucket.server.url}


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
def application(bucket: Bucket, tmp_path: Path) -> Application:
    """An application in a group of its own."""
    return Application(bucket, tmp_path)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Opened at the end at the latest."""
    made = Gate(tmp_path / "gate")
    yield made
    made.open()
