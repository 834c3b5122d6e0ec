"""What a deployment installs: one of three kinds of revision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from agent.protocol import BundleType


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Revision:
    """A bundle in an S3 bucket; without a version, whatever the key holds at the time."""

    bucket: str
    key: str
    bundle_type: BundleType
    version: str | None = None
    etag: str | None = None
    """As the service wrote it, so it may stand in double quotes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitHubRevision:
    """A commit of a GitHub repository; without a bundle type, the fetcher chooses."""

    account: str
    repository: str
    commit_id: str
    bundle_type: BundleType | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRevision:
    """A bundle or directory on this host. Only `agentctl deploy` makes one, never the network."""

    location: Path
    bundle_type: BundleType


Revision = S3Revision | GitHubRevision | LocalRevision
