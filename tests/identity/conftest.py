"""Fixtures of the identity tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.identity.metadata import InstanceMetadata
from tests.identity.metadata_server import MetadataServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def metadata_server() -> Iterator[MetadataServer]:
    yield from MetadataServer().running()


@pytest.fixture
def metadata(metadata_server: MetadataServer) -> InstanceMetadata:
    """A client that does not wait between its attempts."""
    return InstanceMetadata(endpoint=metadata_server.url, sleep=lambda _: None)
