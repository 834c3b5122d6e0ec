"""Fixtures: running endpoints, and an application on one."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.controlplane.endpoint_process import ControlEndpoint, Shop, open_shop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def start_endpoint(tmp_path: Path) -> Iterator[Callable[..., ControlEndpoint]]:
    """Starts endpoints of the test's own with its options; polls are held for 0.3 s unless it says otherwise."""
    started: list[ControlEndpoint] = []

    def start(*options: str) -> ControlEndpoint:
        endpoint = ControlEndpoint(tmp_path / f"control{len(started)}")
        started.append(endpoint)
        return endpoint.start("--poll-hold", "0.3", *options)

    yield start
    for endpoint in started:
        if endpoint.process is not None:
            endpoint.end(signal.SIGKILL)


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlEndpoint]:
    """One running endpoint for all tests that need no options: they keep apart by names."""
    shared = ControlEndpoint(tmp_path_factory.mktemp("shared") / "control").start("--poll-hold", "0.3")
    yield shared
    assert shared.end() == 0, shared.log()


@pytest.fixture
def shop(endpoint: ControlEndpoint) -> Shop:
    """An application with an empty group on the shared endpoint."""
    return open_shop(endpoint)


@pytest.fixture(autouse=True, scope="session")
def no_foreign_configuration() -> Iterator[None]:
    """Neither the developer's proxies and profiles nor those of CI reach a test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("AWS_", "CODEDEPLOY_")) or name.lower().endswith("_proxy"):
                patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield
