"""Servers for the tests of the endpoint's client side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.endpoint.scripted_server import ScriptedServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A plain http server."""
    with ScriptedServer() as running:
        yield running
