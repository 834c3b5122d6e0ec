"""A revision's bundle onto the disk, wherever it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.bundle.local import link_local_bundle
from agent.bundle.sources import FetchedBundle
from agent.specification import GitHubRevision, LocalRevision, S3Revision

if TYPE_CHECKING:
    from pathlib import Path

    from agent.bundle.sources import BundleSources
    from agent.specification import Revision


def fetch_bundle(revision: Revision, sources: BundleSources, bundle: Path) -> FetchedBundle:
    """Afterwards `bundle` is the revision's file: whole, or, if anything fails, what it was before.

    Args:
        revision: anything but a local directory, which has no bundle.
        sources: where bundles come from.
        bundle: its parent directory must exist.

    Raises:
        CommandFailure: the bundle isn't there, isn't the right one, or can't be had.
    """
    match revision:
        case S3Revision():
            return _fetch_from_s3(revision, sources, bundle)
        case GitHubRevision():
            return _fetch_from_github(revision, sources, bundle)
        case LocalRevision():
            size = link_local_bundle(revision, bundle)
            return FetchedBundle(bundle_type=revision.bundle_type, size_bytes=size)


# requests and what it stands on take 200 ms and 10 MB, which a local deployment needn't spend.


def _fetch_from_s3(revision: S3Revision, sources: BundleSources, bundle: Path) -> FetchedBundle:
    from agent.bundle.download import download  # noqa: PLC0415 - see above
    from agent.bundle.s3 import S3Object, bare_etag  # noqa: PLC0415 - see above
    from agent.bundle.session import proxy_for  # noqa: PLC0415 - see above

    remote = S3Object(revision, sources)
    result = download(remote, bundle, sources)
    return FetchedBundle(
        bundle_type=revision.bundle_type,
        size_bytes=result.size_bytes,
        etag=None if result.etag is None else bare_etag(result.etag),
        sha256=result.sha256,
        proxy=str(proxy_for(remote.address, sources.proxy_uri) or ""),
        doubt=None if result.doubt is None else str(result.doubt),
    )


def _fetch_from_github(revision: GitHubRevision, sources: BundleSources, bundle: Path) -> FetchedBundle:
    from agent.bundle.download import download  # noqa: PLC0415 - see above
    from agent.bundle.github import GitHubArchive  # noqa: PLC0415 - see above
    from agent.bundle.session import proxy_for  # noqa: PLC0415 - see above

    remote = GitHubArchive(revision, sources)
    result = download(remote, bundle, sources)
    return FetchedBundle(
        bundle_type=remote.bundle_type,
        size_bytes=result.size_bytes,
        sha256=result.sha256,
        proxy=str(proxy_for(remote.address, sources.proxy_uri) or ""),
    )
