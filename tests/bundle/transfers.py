"""Fetching one object from a server that answers as a test says."""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING, Any

from agent.bundle import BundleSources, FetchedBundle, TransferPatience
from agent.bundle.fetch import fetch_bundle
from agent.errors import CommandFailure
from agent.identity.credentials import Credentials
from agent.protocol import BundleType, Secret
from agent.specification import S3Revision
from tests.bundle.servers import Answer, Request, Server, s3_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bundle.conftest import Deployment

CREDENTIALS = Credentials(
    access_key_id="AKIATESTTESTTESTTEST", secret_access_key=Secret("secret-secret-secret")
)
BODY = os.urandom(300_000)
ETAG = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
REVISION = S3Revision(bucket="releases", key="web app/v1.tgz", bundle_type=BundleType.TGZ)


class MovedClock:
    """Time that passes only where somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.naps: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.naps.append(seconds)


def sources(
    endpoint: str, *, credentials: Callable[[], Credentials] = lambda: CREDENTIALS, **more: Any
) -> BundleSources:
    """This endpoint, and a clock that only moves while somebody waits."""
    patience = TransferPatience(stall_timeout_s=5.0, connect_timeout_s=5.0)
    usual = {"patience": patience, "clock": MovedClock()}
    return BundleSources(
        s3_endpoint=endpoint, region="us-east-1", credentials=credentials, **{**usual, **more}
    )


def whole(request: Request) -> Answer:
    """What S3 answers, ranges included."""
    start = int(re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", "bytes=0-"))[1])  # type: ignore[index]
    if request.headers.get("if-match", f'"{ETAG}"') != f'"{ETAG}"':
        return s3_error(412, "PreconditionFailed")
    ranged = {"Content-Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"} if start else {}
    return Answer(206 if start else 200, BODY[start:], {"ETag": f'"{ETAG}"', **ranged})


def fetch(
    deployment: Deployment,
    answer: Callable[[Request], Answer],
    revision: S3Revision = REVISION,
    **more: Any,
) -> tuple[FetchedBundle | CommandFailure, list[Request]]:
    """The outcome of a fetch from a server that answers so, and the requests that it took."""
    outcome: FetchedBundle | CommandFailure
    with Server(answer).running() as server:
        try:
            outcome = fetch_bundle(revision, sources(server.url, **more), deployment.bundle)
        except CommandFailure as failure:
            outcome = failure
    return outcome, server.requests


def failed(outcome: FetchedBundle | CommandFailure, deployment: Deployment) -> CommandFailure:
    assert isinstance(outcome, CommandFailure)
    assert [] == deployment.left()
    return outcome
