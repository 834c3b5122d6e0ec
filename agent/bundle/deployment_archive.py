"""Revision → deployment archive: the whole of DownloadBundle's work on files."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agent.bundle.fetch import fetch_bundle
from agent.bundle.local import copy_local_directory
from agent.bundle.sources import FetchedBundle
from agent.bundle.unpack import unpack_bundle
from agent.errors import CommandFailure
from agent.logs import get_logger
from agent.protocol import BundleType
from agent.specification import GitHubRevision, LocalRevision, S3Revision

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agent.bundle.limits import ArchiveLimits
    from agent.bundle.sources import BundleSources
    from agent.specification import Revision

log = get_logger()


def make_deployment_archive(
    revision: Revision,
    *,
    bundle: Path,
    archive: Path,
    sources: BundleSources,
    limits: ArchiveLimits,
    appspec_names: Sequence[str],
) -> FetchedBundle:
    """Afterwards `archive` is the revision, unpacked, and `bundle` its file (none for a local directory).

    Args:
        revision: what to deploy.
        bundle: where its file goes; a symbolic link to it when it is on this host already.
        archive: where it is unpacked; if anything fails, it is what it was before.
        sources: where bundles come from.
        limits: what a bundle may hold.
        appspec_names: paths that an AppSpec may have, relative to the archive: the contents of the one
            top-level directory which has one of them become the archive, where the top has none.

    Raises:
        CommandFailure: the bundle can't be had, is refused, or can't be unpacked.
    """
    began = time.monotonic()
    if isinstance(revision, LocalRevision) and revision.bundle_type is BundleType.DIRECTORY:
        size = copy_local_directory(revision, archive)
        return FetchedBundle(bundle_type=BundleType.DIRECTORY, size_bytes=size)
    fetched = fetch_bundle(revision, sources, bundle)
    fetched_at = time.monotonic()
    if fetched.doubt:
        log.warning("bundle_etag_differs", doubt=fetched.doubt)
    try:
        unpack_bundle(bundle, fetched.bundle_type, archive, limits, appspec_names)
    except CommandFailure as failure:
        # The file on this host is only a copy: what has to be fixed is where it came from.
        way = (
            f", through {fetched.proxy}: if what lies there is right, look at what that sends"
            if fetched.proxy
            else ""
        )
        failure.add(f"It came from {_name_of(revision)}{way}.")
        if fetched.doubt:
            failure.add(f"It may have been damaged on the way: {fetched.doubt}.")
        raise
    log.info(
        "bundle_unpacked",
        bundle_type=fetched.bundle_type.value,
        size_bytes=fetched.size_bytes,
        sha256=fetched.sha256,
        fetch_s=round(fetched_at - began, 3),
        unpack_s=round(time.monotonic() - fetched_at, 3),
    )
    return fetched


def _name_of(revision: Revision) -> str:
    """Where the revision's author finds it."""
    match revision:
        case S3Revision():
            version = f", version {revision.version}" if revision.version else ""
            return f"s3://{revision.bucket}/{revision.key}{version}"
        case GitHubRevision():
            return f"github.com/{revision.account}/{revision.repository} at {revision.commit_id}"
        case LocalRevision():
            return str(revision.location)
