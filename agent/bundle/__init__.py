"""Revision → deployment archive on disk: S3, GitHub, a local file or directory, an earlier archive.

`make_deployment_archive` does all of it; `agent.bundle.reuse.reuse_archive` takes an earlier
deployment's archive instead.
"""

from agent.bundle.deployment_archive import make_deployment_archive
from agent.bundle.limits import ArchiveLimits
from agent.bundle.reuse import reuse_archive
from agent.bundle.sources import BundleSources, FetchedBundle, TransferPatience

__all__ = [
    "ArchiveLimits",
    "BundleSources",
    "FetchedBundle",
    "TransferPatience",
    "make_deployment_archive",
    "reuse_archive",
]
