"""Real S3 servers, and connections to them that end at every kind of place."""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from agent.bundle import ArchiveLimits, make_deployment_archive
from agent.bundle.fetch import fetch_bundle
from agent.errors import CommandFailure
from agent.identity.credentials import Credentials
from agent.protocol import BundleType, Secret
from agent.specification import S3Revision
from tests.bundle.conftest import APPSPEC_NAMES
from tests.bundle.packing import file, tar_bytes, tgz_bytes, tree_of
from tests.bundle.real_servers import BUCKET, Cut, CuttingProxy, rclone_server, seaweedfs_server
from tests.bundle.transfers import sources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bundle.conftest import Deployment
    from tests.bundle.real_servers import S3Server

pytestmark = pytest.mark.server

KEY = "web app/v1 (ü+~).tgz"
MEMBERS = [file("appspec.yml", b"version: 0.0\n"), *(file(f"d/f{n}", bytes([n]) * 30_000) for n in range(8))]
TAR = tar_bytes(*MEMBERS)
with tarfile.open(fileobj=io.BytesIO(TAR)) as opened:
    BETWEEN = [member.offset for member in opened.getmembers()]


@pytest.fixture(scope="module", params=["rclone", "seaweedfs"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Each of them in turn, with a tgz and a tar in its bucket."""
    start = rclone_server if request.param == "rclone" else seaweedfs_server
    with start(tmp_path_factory.mktemp("s3")) as running:
        running.put(KEY, tgz_bytes(file("top/appspec.yml", b"version: 0.0\n"), file("top/ü", b"x" * 500_000)))
        running.put("app.tar", TAR)
        yield running


def revision(key: str, bundle_type: BundleType) -> S3Revision:
    return S3Revision(bucket=BUCKET, key=key, bundle_type=bundle_type)


def unpack(deployment: Deployment, wanted: S3Revision, url: str) -> str | None:
    """Fetch and unpack; returns the SHA-256 of what came."""
    fetched = make_deployment_archive(
        wanted,
        bundle=deployment.bundle,
        archive=deployment.archive,
        sources=sources(url),
        limits=ArchiveLimits(),
        appspec_names=APPSPEC_NAMES,
    )
    return fetched.sha256


def test_a_real_server_takes_our_signature_and_the_revision_is_unpacked(
    deployment: Deployment, server: S3Server
) -> None:
    """The whole way, against a server that nobody here wrote."""
    unpack(deployment, revision(KEY, BundleType.TGZ), server.url)

    assert ["appspec.yml", "ü"] == list(tree_of(deployment.archive))


@pytest.mark.parametrize(
    "cuts",
    [
        [Cut(0, in_head=True)],
        [Cut(1, in_head=True)],
        [Cut(12, in_head=True)],
        [Cut(60, in_head=True)],
        [Cut(200, in_head=True)],
        [Cut(-2, in_head=True)],
        [Cut(-20, in_head=True)],
        [Cut(0)],
        [Cut(1)],
        [Cut(BETWEEN[1])],
        [Cut(BETWEEN[4])],
        [Cut(BETWEEN[4] + 300)],
        [Cut(BETWEEN[4] + 5000)],
        [Cut(len(TAR) - 1)],
        [Cut(len(TAR))],
        [Cut(BETWEEN[3]), Cut(BETWEEN[5] - BETWEEN[3])],
        [Cut(BETWEEN[3]), Cut(40, in_head=True), Cut(0), Cut(1), Cut(BETWEEN[7] - BETWEEN[3] - 1)],
        [Cut(BETWEEN[2]), *([Cut(30_000)] * 5)],
    ],
    ids=lambda cuts: " ".join(f"{'head ' if cut.in_head else ''}{cut.at}" for cut in cuts),
)
@pytest.mark.parametrize("with_reset", [False, True], ids=["closed", "reset"])
def test_a_transfer_that_is_cut_anywhere_ends_with_the_very_object(
    deployment: Deployment, server: S3Server, cuts: list[Cut], *, with_reset: bool
) -> None:
    """In the head, before the first byte, between two members, at the last byte, and once more while resuming."""
    made = [Cut(cut.at, in_head=cut.in_head, with_reset=with_reset) for cut in cuts]
    with CuttingProxy(server, made).running() as proxy:
        sha256 = unpack(deployment, revision("app.tar", BundleType.TAR), proxy.url)

    assert hashlib.sha256(TAR).hexdigest() == sha256
    assert TAR == deployment.bundle.read_bytes()
    assert {member.name: member.content for member in MEMBERS} == {
        name: content for name, (kind, _, content) in tree_of(deployment.archive).items() if kind == "file"
    }


def test_a_transfer_goes_on_where_it_was_cut(deployment: Deployment, server: S3Server) -> None:
    """A large bundle over a bad line must come to an end: what has come is not asked for again."""
    with CuttingProxy(server, [Cut(BETWEEN[4])]).running() as proxy:
        fetch_bundle(revision("app.tar", BundleType.TAR), sources(proxy.url), deployment.bundle)

    assert f"content-range: bytes {BETWEEN[4]}-{len(TAR) - 1}/{len(TAR)}" in proxy.heads[-1].decode().lower()


def test_an_object_that_is_replaced_while_it_is_cut_is_fetched_anew(
    deployment: Deployment, server: S3Server
) -> None:
    """The members of two revisions must not be mixed."""
    server.put("replaced.tar", TAR)
    newer = tar_bytes(*(file(member.name, b"newer" + member.content) for member in MEMBERS))
    proxy = CuttingProxy(server, [Cut(BETWEEN[4])], on_cut=lambda: server.put("replaced.tar", newer))
    with proxy.running():
        fetch_bundle(revision("replaced.tar", BundleType.TAR), sources(proxy.url), deployment.bundle)

    assert newer == deployment.bundle.read_bytes()


def test_a_real_server_refuses_a_wrong_secret_and_a_missing_key(
    deployment: Deployment, server: S3Server
) -> None:
    """Its words for it end up in the message."""
    wrong = Credentials(access_key_id="AKIATESTTESTTESTTEST", secret_access_key=Secret("wrong"))

    with pytest.raises(CommandFailure, match="SignatureDoesNotMatch") as failure:
        fetch_bundle(
            revision(KEY, BundleType.TGZ),
            sources(server.url, credentials=lambda: wrong),
            deployment.bundle,
        )
    assert "bundle-access-denied" == failure.value.error_id

    with pytest.raises(CommandFailure, match="NoSuchKey") as failure:
        fetch_bundle(revision("gone", BundleType.TAR), sources(server.url), deployment.bundle)
    assert "bundle-not-found" == failure.value.error_id
