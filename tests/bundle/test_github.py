"""Bundles that GitHub makes of commits: redirects, tokens, refusals."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

import pytest

from agent.bundle import (
    ArchiveLimits,
    BundleSources,
    FetchedBundle,
    TransferPatience,
    make_deployment_archive,
)
from agent.bundle.fetch import fetch_bundle
from agent.errors import CommandFailure
from agent.protocol import BundleType, Secret
from agent.specification import GitHubRevision
from tests.bundle.conftest import APPSPEC_NAMES
from tests.bundle.packing import directory, file, tgz_bytes, tree_of, zip_bytes
from tests.bundle.servers import Answer, Authority, Request, Server, chunked, make_authority
from tests.bundle.transfers import MovedClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.identity.credentials import Credentials
    from tests.bundle.conftest import Deployment

pytestmark = pytest.mark.server

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MEMBERS = (directory("acme-shop-0123456"), file("acme-shop-0123456/appspec.yml"), file("acme-shop-0123456/x"))


class GitHub:
    """The API, and the other host that it sends everybody to."""

    def __init__(self, authority: Authority) -> None:
        self.ca_file = authority.ca_file
        self.patience = TransferPatience()
        self.clock = MovedClock()
        self.downloads = Server(self._download, authority.context)
        self.api = Server(self._redirect, authority.context)

    def _redirect(self, request: Request) -> Answer:
        kind = "legacy.zip" if "/zipball/" in request.path else "legacy.tar.gz"
        return Answer(302, b"", {"Location": f"{self.downloads.url}/acme/shop/{kind}/{COMMIT}?token=private"})

    @staticmethod
    def _download(request: Request) -> Answer:
        content = zip_bytes(*MEMBERS) if "legacy.zip" in request.path else tgz_bytes(*MEMBERS)
        return Answer(200, content, {"ETag": 'W/"x"'})

    @contextlib.contextmanager
    def running(self) -> Iterator[GitHub]:
        with self.downloads.running(), self.api.running():
            yield self

    def sources(self, token: str | None = None) -> BundleSources:
        def no_credentials() -> Credentials:
            raise AssertionError("GitHub has nothing to do with our credentials")

        return BundleSources(
            s3_endpoint="",
            region="",
            credentials=no_credentials,
            github_api_endpoint=f"{self.api.url}/",
            github_token=None if token is None else Secret(token),
            ca_path=self.ca_file,
            patience=self.patience,
            clock=self.clock,
        )


@pytest.fixture
def github(tmp_path: Path) -> Iterator[GitHub]:
    with GitHub(make_authority(tmp_path)).running() as running:
        yield running


def revision(bundle_type: BundleType | None = None) -> GitHubRevision:
    return GitHubRevision(account="acme", repository="shop", commit_id=COMMIT, bundle_type=bundle_type)


@pytest.mark.parametrize(
    ("asked", "kind", "got"),
    [
        (None, "tarball", BundleType.TGZ),
        (BundleType.TAR, "tarball", BundleType.TGZ),
        (BundleType.ZIP, "zipball", BundleType.ZIP),
    ],
)
def test_a_commit_becomes_a_deployment_archive(
    deployment: Deployment, github: GitHub, asked: BundleType | None, kind: str, got: BundleType
) -> None:
    """GitHub's `tar` is compressed, wrapped in a directory, and on another host than its API."""
    fetched = make_deployment_archive(
        revision(asked),
        bundle=deployment.bundle,
        archive=deployment.archive,
        sources=github.sources(),
        limits=ArchiveLimits(),
        appspec_names=APPSPEC_NAMES,
    )

    assert got is fetched.bundle_type
    assert fetched.etag is None
    assert ["appspec.yml", "x"] == list(tree_of(deployment.archive))
    assert [f"/repos/acme/shop/{kind}/{COMMIT}"] == [request.path for request in github.api.requests]


def test_the_token_goes_to_the_api_and_to_nobody_else(deployment: Deployment, github: GitHub) -> None:
    """Whoever gets it can read every private repository of the account."""
    fetch_bundle(revision(), github.sources("ghp_private"), deployment.bundle)

    assert ["token ghp_private"] == [request.headers.get("authorization") for request in github.api.requests]
    assert [None] == [request.headers.get("authorization") for request in github.downloads.requests]


def test_without_a_token_none_is_sent(deployment: Deployment, github: GitHub) -> None:
    """Public repositories need none."""
    fetch_bundle(revision(), github.sources(), deployment.bundle)

    assert [None] == [request.headers.get("authorization") for request in github.api.requests]


def test_a_redirect_within_the_api_keeps_the_token(deployment: Deployment, github: GitHub) -> None:
    """Renamed repositories answer with one."""
    github.api.answer = lambda request: (
        Answer(301, b"", {"Location": "/repositories/7/tarball"})
        if request.path.startswith("/repos/")
        else Answer(200, tgz_bytes(*MEMBERS))
    )

    fetch_bundle(revision(), github.sources("ghp_private"), deployment.bundle)

    assert ["token ghp_private"] * 2 == [
        request.headers.get("authorization") for request in github.api.requests
    ]


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:9/",
        "",
        "file:///etc/passwd",
        "https:///nohost",
        "ftp://127.0.0.1/",
        "https://127.0.0.1:99999/",
        "https://[::1",
    ],
)
def test_a_redirect_out_of_https_is_refused(deployment: Deployment, github: GitHub, location: str) -> None:
    """On the way, anybody could put another bundle in its place."""
    github.api.answer = lambda _: Answer(302, b"", {"Location": location})

    with pytest.raises(CommandFailure) as failure:
        fetch_bundle(revision(), github.sources(), deployment.bundle)

    assert "bundle-redirect-refused" == failure.value.error_id
    assert [] == deployment.left()


def test_redirects_in_a_circle_end(deployment: Deployment, github: GitHub) -> None:
    """A broken proxy must not hold a deployment for ever."""
    github.api.answer = lambda request: Answer(302, b"", {"Location": request.path})

    with pytest.raises(CommandFailure, match="more than 5 redirects"):
        fetch_bundle(revision(), github.sources(), deployment.bundle)

    assert 6 == len(github.api.requests)


@pytest.mark.parametrize(
    ("token", "hint"),
    [(None, "A private repository needs a token"), ("t", "Check account, repository, commit")],
)
def test_a_404_is_final_and_may_mean_that_access_is_missing(
    deployment: Deployment, github: GitHub, token: str | None, hint: str
) -> None:
    """GitHub doesn't say which of the two; trying again for two minutes changes neither."""
    github.api.answer = lambda _: Answer(404, b'{"message":"Not Found"}')

    with pytest.raises(CommandFailure, match=hint) as failure:
        fetch_bundle(revision(), github.sources(token), deployment.bundle)

    assert "bundle-not-found" == failure.value.error_id
    assert f"acme/shop at {COMMIT}" in failure.value.message
    assert 1 == len(github.api.requests)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (Answer(401), "expired"),
        (Answer(403), "may read this repository"),
        (Answer(403, b"", {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1500000000"}), "2017-07-14 02:40:00 UTC"),
    ],
)  # fmt: skip
def test_other_refusals_say_what_to_do(
    deployment: Deployment, github: GitHub, answer: Answer, hint: str
) -> None:
    """Each has another remedy."""
    github.api.answer = lambda _: answer

    with pytest.raises(CommandFailure, match=hint) as failure:
        fetch_bundle(revision(), github.sources("ghp_private"), deployment.bundle)

    assert "bundle-github-refused" == failure.value.error_id
    assert "ghp_private" not in failure.value.message


def test_passing_trouble_on_either_host_is_tried_again_from_the_start(
    deployment: Deployment, github: GitHub
) -> None:
    """The address behind the redirect is only good for a few minutes."""
    content = tgz_bytes(*MEMBERS)
    answers = {1: Answer(502), 2: Answer(200, content, cut_at=10)}
    github.downloads.answer = lambda request: answers.get(request.number, Answer(200, content))

    fetched = fetch_bundle(revision(), github.sources(), deployment.bundle)

    assert (
        FetchedBundle(bundle_type=BundleType.TGZ, size_bytes=len(content), sha256=fetched.sha256) == fetched
    )
    assert 3 == len(github.api.requests) == len(github.downloads.requests)


def test_what_stands_in_a_redirect_does_not_stand_in_messages(deployment: Deployment, github: GitHub) -> None:
    """GitHub puts a short-lived token into the address; reports are read by many."""
    github.downloads.answer = lambda _: Answer(200, b"12345", cut_at=2)

    with pytest.raises(CommandFailure) as failure:
        fetch_bundle(revision(), github.sources(), deployment.bundle)

    assert "bundle-download-failed" == failure.value.error_id
    assert "private" not in failure.value.message


def test_an_archive_whose_chunks_end_early_is_asked_for_again(deployment: Deployment, github: GitHub) -> None:
    """GitHub says no length: only the last chunk tells a whole archive from half of one."""
    content = tgz_bytes(*MEMBERS, file("acme-shop-0123456/large", os.urandom(300_000)))
    streamed: dict[str, str | None] = {"Transfer-Encoding": "chunked", "Content-Length": None}
    github.downloads.answer = lambda request: (
        Answer(200, chunked(content[:200_000], last=b""), streamed, cut_at=1 << 20)
        if request.number == 1
        else Answer(200, chunked(content), streamed)
    )

    fetched = fetch_bundle(revision(), github.sources(), deployment.bundle)

    assert len(content) == fetched.size_bytes
    assert content == deployment.bundle.read_bytes()


def test_a_part_of_an_archive_is_not_taken_for_one(deployment: Deployment, github: GitHub) -> None:
    """Nothing was asked for but all of it; a cache that answers with a range of its own is at fault."""
    content = tgz_bytes(*MEMBERS)
    odd: dict[str, str | None] = {"Content-Range": f"bytes 10-{len(content) - 1}/{len(content)}"}
    github.downloads.answer = lambda _: Answer(200, content[10:], odd)

    with pytest.raises(CommandFailure) as failure:
        fetch_bundle(revision(), github.sources(), deployment.bundle)

    assert "bundle-answers-inconsistent" == failure.value.error_id
    assert [] == deployment.left()


def test_a_short_rate_limit_is_waited_for_and_a_long_one_is_named(
    deployment: Deployment, github: GitHub
) -> None:
    """What comes back within the patience of a download is worth the wait; an hour is not."""
    limited: dict[str, str | None] = {
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": str(int(time.time()) + 100),
    }
    github.api.answer = lambda request: (
        Answer(403, b"", limited) if request.number == 1 else Answer(200, tgz_bytes(*MEMBERS))
    )

    fetch_bundle(revision(), github.sources(), deployment.bundle)

    assert 2 == len(github.api.requests)
    assert 90 < github.clock.now <= 100

    limited["X-RateLimit-Reset"] = str(int(time.time()) + 3000)
    github.api.answer = lambda _: Answer(403, b"", limited)
    with pytest.raises(CommandFailure, match="rate limit is used up until") as failure:
        fetch_bundle(revision(), github.sources(), deployment.bundle)
    assert "bundle-github-refused" == failure.value.error_id
    assert 3 == len(github.api.requests)
