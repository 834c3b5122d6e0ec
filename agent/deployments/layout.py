"""Where things lie below the deployment root. Arithmetic only: nothing here touches a disk.

The paths are those of the existing agents, so that a host can change agents between two
deployments. See docs/on-disk.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentDirectory:
    """All that belongs to one deployment of one group."""

    path: Path

    @property
    def bundle(self) -> Path:
        """The bundle as it was downloaded; the name is the same whatever its type."""
        return self.path / "bundle.tar"

    @property
    def archive(self) -> Path:
        """The unpacked revision."""
        return self.path / "deployment-archive"

    @property
    def logs(self) -> Path:
        """Directory of this deployment's own logs."""
        return self.path / "logs"

    @property
    def scripts_log(self) -> Path:
        """What the hooks of this deployment printed."""
        return self.logs / "scripts.log"

    @property
    def bundle_etag(self) -> Path:
        """Holds the ETag of the bundle, when it came with one."""
        return self.path / ".bundle-etag"

    @property
    def bundle_source(self) -> Path:
        """Holds `downloaded` or `archive-reuse`."""
        return self.path / ".bundle-source"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentRoot:
    """The directory that `root_dir` names."""

    path: Path

    def group(self, group_id: str) -> Path:
        """Directory of a deployment group; its entries are deployment directories."""
        return self.path / group_id

    def deployment(self, group_id: str, deployment_id: str) -> DeploymentDirectory:
        """Directory of one deployment."""
        return DeploymentDirectory(path=self.group(group_id) / deployment_id)

    @property
    def instructions(self) -> Path:
        """Directory of what Install leaves for the next one, and of the pointers."""
        return self.path / "deployment-instructions"

    def last_successful(self, group_id: str) -> Path:
        """File that names the deployment directory whose Install last succeeded."""
        return self.instructions / f"{group_id}_last_successful_install"

    def most_recent(self, group_id: str) -> Path:
        """File that names the deployment directory that was last downloaded."""
        return self.instructions / f"{group_id}_most_recent_install"

    def ongoing(self, tracking_name: str) -> Path:
        """Directory with one file per deployment of which a command is running."""
        return self.path / tracking_name
