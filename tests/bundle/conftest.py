"""Fixtures of the bundle tests."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from agent.bundle import ArchiveLimits
from agent.bundle.unpack import unpack_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.protocol import BundleType

APPSPEC_NAMES = ("appspec.yml", "appspec.yaml")


@dataclasses.dataclass(frozen=True)
class Deployment:
    """A deployment directory: where a bundle and its archive go."""

    directory: Path

    @property
    def bundle(self) -> Path:
        return self.directory / "bundle.tar"

    @property
    def archive(self) -> Path:
        return self.directory / "deployment-archive"

    def unpack(self, content: bytes, bundle_type: BundleType, limits: ArchiveLimits | None = None) -> Path:
        """Write the bundle and unpack it; returns the archive's path."""
        self.bundle.write_bytes(content)
        unpack_bundle(self.bundle, bundle_type, self.archive, limits or ArchiveLimits(), APPSPEC_NAMES)
        return self.archive

    def left(self) -> list[str]:
        """Names of what lies in the deployment directory."""
        return sorted(path.name for path in self.directory.iterdir())


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """An empty deployment directory; beside it, nothing may ever appear."""
    directory = tmp_path / "deployment"
    directory.mkdir()
    yield Deployment(directory)
    assert ["deployment"] == [path.name for path in tmp_path.iterdir() if not path.name.startswith("test-")]
