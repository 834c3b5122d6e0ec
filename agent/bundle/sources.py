"""Where bundles come from, and how those places are reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.identity.credentials import Credentials
    from agent.protocol import BundleType, Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """When a transfer is tried again, and when it is given up.

    Attributes:
        attempts: in a row that bring not one new byte; then the transfer is given up.
        all_attempts: altogether, however much each of them brings.
        first_wait_s: longest first wait between two attempts; doubled each time, with jitter.
        longest_wait_s: what the waits grow to.
        connect_timeout_s: for a connection.
        stall_timeout_s: how long no byte may come.
    """

    attempts: int = 4
    all_attempts: int = 50
    first_wait_s: float = 0.5
    longest_wait_s: float = 20.0
    connect_timeout_s: float = 10.0
    stall_timeout_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleSources:
    """The places that this host takes bundles from.

    Attributes:
        s3_endpoint: URL without bucket: the region's own, or the administrator's.
        region: that requests to S3 are signed for.
        credentials: asked before every request to S3; raises IdentityError when there are none.
        github_api_endpoint: URL that paths such as `/repos/…` are appended to.
        github_token: for private repositories; goes to this endpoint and nowhere else.
        proxy_uri: for all of them; None = as HTTPS_PROXY and HTTP_PROXY say. NO_PROXY counts always.
        ca_path: file with CA certificates, or a directory of them with hashed names; None = the
            public ones that come with the libraries, if they do.
        patience: with all of them.
    """

    s3_endpoint: str
    region: str
    credentials: Callable[[], Credentials]
    github_api_endpoint: str = "https://api.github.com"
    github_token: Secret | None = None
    proxy_uri: str | None = None
    ca_path: Path | None = None
    patience: Patience = field(default_factory=Patience)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedBundle:
    """What was fetched.

    Attributes:
        bundle_type: what the file is: a GitHub revision only knows it by now.
        size_bytes: of the file; of everything in it for a DIRECTORY.
        etag: that S3 sent, without quotes; None from elsewhere.
        sha256: of the file, in hexadecimal; None where nothing was transferred.
    """

    bundle_type: BundleType
    size_bytes: int
    etag: str | None = None
    sha256: str | None = None
