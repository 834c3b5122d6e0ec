"""Where bundles come from, and how those places are reached."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.identity.credentials import Credentials
    from agent.protocol import BundleType, Secret


class Clock(Protocol):
    """What waiting needs; the module `time` is one."""

    def monotonic(self) -> float:
        """Seconds since some moment in the past."""

    def sleep(self, seconds: float, /) -> None:
        """Let that much time pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferPatience:
    """When a transfer is tried again, and when it is given up.

    Attributes:
        give_up_after_s: time without one new byte after which the transfer is given up.
        first_wait_s: longest first wait between two attempts; doubled each time, with jitter.
        longest_wait_s: what the waits grow to.
        connect_timeout_s: for a connection.
        stall_timeout_s: how long no byte may come.
    """

    give_up_after_s: float = 300.0
    first_wait_s: float = 0.5
    longest_wait_s: float = 10.0
    connect_timeout_s: float = 10.0
    stall_timeout_s: float = 60.0


def _nothing_to_renew() -> None:
    """Credentials that are asked for each time are as new as they get."""


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleSources:
    """The places that this host takes bundles from.

    Attributes:
        s3_endpoint: URL without bucket: the region's own, or the administrator's.
        region: that requests to S3 are signed for.
        credentials: asked before every request to S3; raises IdentityError when there are none.
        renew_credentials: called when S3 says that they have expired; they are then asked for again.
        credentials_source: where they come from, in words that go into a sentence.
        github_api_endpoint: URL that paths such as `/repos/…` are appended to.
        github_token: for private repositories; goes to this endpoint and nowhere else.
        proxy_uri: for all of them; None = as HTTPS_PROXY and HTTP_PROXY say. NO_PROXY counts always.
        ca_path: file with CA certificates, or a directory of them with hashed names; None = the
            public ones that come with the libraries, if they do.
        patience: with all of them.
        is_cancelled: asked often during a transfer; once True, it is ended.
        clock: that patience goes by.
    """

    s3_endpoint: str
    region: str
    credentials: Callable[[], Credentials]
    renew_credentials: Callable[[], None] = _nothing_to_renew
    credentials_source: str = "this host's identity"
    github_api_endpoint: str = "https://api.github.com"
    github_token: Secret | None = None
    proxy_uri: str | None = None
    ca_path: Path | None = None
    patience: TransferPatience = field(default_factory=TransferPatience)
    is_cancelled: Callable[[], bool] = _never
    clock: Clock = field(default=time)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedBundle:
    """What was fetched.

    Attributes:
        bundle_type: what the file is: a GitHub revision only knows it by now.
        size_bytes: of the file; of everything in it for a DIRECTORY.
        etag: that S3 sent, without quotes; None from elsewhere.
        sha256: of the file, in hexadecimal; None where nothing was transferred.
        proxy: that it was downloaded through, in words; empty = none.
        doubt: what speaks against the file being the one that its server means, as a clause; None = nothing.
    """

    bundle_type: BundleType
    size_bytes: int
    etag: str | None = None
    sha256: str | None = None
    proxy: str = ""
    doubt: str | None = None
