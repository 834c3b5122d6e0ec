"""Bundles from S3: addresses, signatures, retries, resumption, and what refusals are called."""

from __future__ import annotations

import hashlib
import os
import socket
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest

from agent.bundle import ArchiveLimits, FetchedBundle, make_deployment_archive
from agent.bundle.fetch import fetch_bundle
from agent.bundle.s3 import object_url
from agent.errors import CommandFailure, IdentityError
from agent.protocol import BundleType
from agent.specification import S3Revision
from tests.bundle.packing import file, tgz_bytes
from tests.bundle.servers import Answer, Request, Server, make_authority, s3_error
from tests.bundle.transfers import BODY, CREDENTIALS, ETAG, REVISION, failed, fetch, sources, whole

if TYPE_CHECKING:
    from pathlib import Path

    from agent.identity.credentials import Credentials
    from tests.bundle.conftest import Deployment


@pytest.mark.parametrize(
    ("endpoint", "bucket", "expected"),
    [
        ("https://s3.eu-west-1.amazonaws.com", "my-bucket", "https://my-bucket.s3.eu-west-1.amazonaws.com/a/b"),
        ("https://s3.cn-north-1.amazonaws.com.cn", "my-bucket", "https://my-bucket.s3.cn-north-1.amazonaws.com.cn/a/b"),
        ("https://s3-fips.us-east-1.amazonaws.com", "my-bucket", "https://my-bucket.s3-fips.us-east-1.amazonaws.com/a/b"),
        ("https://s3.dualstack.us-east-1.amazonaws.com", "b-1", "https://b-1.s3.dualstack.us-east-1.amazonaws.com/a/b"),
        ("https://s3.eusc-de-east-1.amazonaws.eu", "b-1", "https://b-1.s3.eusc-de-east-1.amazonaws.eu/a/b"),
        ("https://s3.eu-west-1.amazonaws.com", "with.dots", "https://s3.eu-west-1.amazonaws.com/with.dots/a/b"),
        ("https://s3.eu-west-1.amazonaws.com", "Upper", "https://s3.eu-west-1.amazonaws.com/Upper/a/b"),
        ("http://127.0.0.1:9000", "my-bucket", "http://127.0.0.1:9000/my-bucket/a/b"),
        ("https://minio.example/s3/", "my-bucket", "https://minio.example/s3/my-bucket/a/b"),
        ("https://bucket.vpce-1.s3.us-east-1.vpce.amazonaws.com", "b-1", "https://bucket.vpce-1.s3.us-east-1.vpce.amazonaws.com/b-1/a/b"),
    ],
)  # fmt: skip
def test_the_bucket_stands_where_the_endpoint_expects_it(endpoint: str, bucket: str, expected: str) -> None:
    """Host names for the service's own endpoints; paths where certificates or servers know no such names."""
    assert expected == object_url(endpoint, bucket, "a/b", None)


def test_keys_and_versions_are_escaped_as_signatures_need_it() -> None:
    """A key may hold anything, and one wrong escape is SignatureDoesNotMatch."""
    address = object_url("http://h", "b", "a b/ü+~*(1).zip", "v/1=")

    assert "http://h/b/a%20b/%C3%BC%2B~%2A%281%29.zip?versionId=v%2F1%3D" == address


@pytest.mark.server
def test_a_bundle_is_fetched_with_one_signed_request(deployment: Deployment) -> None:
    """No HEAD before, and no range: least permissions, least requests."""
    revision = S3Revision(bucket="b", key="k", bundle_type=BundleType.TAR, version="v1", etag=f'"{ETAG}"')

    outcome, requests = fetch(deployment, whole, revision)

    expected = FetchedBundle(
        bundle_type=BundleType.TAR, size_bytes=len(BODY), etag=ETAG, sha256=hashlib.sha256(BODY).hexdigest()
    )
    assert expected == outcome
    assert BODY == deployment.bundle.read_bytes()
    assert ["bundle.tar"] == deployment.left()
    assert ["/b/k?versionId=v1"] == [request.path for request in requests]
    assert (
        requests[0].headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIATESTTESTTESTTEST/")
    )
    assert "range" not in requests[0].headers


@pytest.mark.server
def test_a_key_with_dots_is_asked_for_as_it_is(deployment: Deployment) -> None:
    """To S3 they are letters; a client that tidies them up asks for another object, and signs the first."""
    revision = S3Revision(bucket="b", key="./a/../k//x%2F.tgz", bundle_type=BundleType.TGZ)

    _, requests = fetch(deployment, whole, revision)

    assert "/b/./a/../k//x%252F.tgz" == requests[0].path


@pytest.mark.server
def test_an_interrupted_transfer_goes_on_where_it_broke_off(deployment: Deployment) -> None:
    """310 MB over a bad line must not start from nothing each time."""
    cuts = {1: 100_000, 2: 50_000, 3: 1}

    def answer(request: Request) -> Answer:
        full = whole(request)
        return Answer(full.status, full.body, full.headers, cut_at=cuts.get(request.number))

    outcome, requests = fetch(deployment, answer)

    assert isinstance(outcome, FetchedBundle)
    assert hashlib.sha256(BODY).hexdigest() == outcome.sha256
    assert BODY == deployment.bundle.read_bytes()
    ranges = [None, "bytes=100000-", "bytes=150000-", "bytes=150001-"]
    assert ranges == [request.headers.get("range") for request in requests]
    assert f'"{ETAG}"' == requests[1].headers["if-match"]


@pytest.mark.server
def test_progress_renews_the_patience(deployment: Deployment) -> None:
    """What is given up is a transfer that stands still, not one that is slow."""

    def answer(request: Request) -> Answer:
        full = whole(request)
        return Answer(full.status, full.body, full.headers, cut_at=20_000)

    outcome, requests = fetch(deployment, answer)

    assert isinstance(outcome, FetchedBundle)
    assert 15 == len(requests)


@pytest.mark.server
def test_an_object_replaced_in_the_middle_is_fetched_anew(deployment: Deployment) -> None:
    """Two halves of two revisions would pass no other check."""
    other = os.urandom(200_000)

    def answer(request: Request) -> Answer:
        if request.number == 1:
            return Answer(200, other, {"ETag": '"old"'}, cut_at=100_000)
        return whole(request)

    outcome, _ = fetch(deployment, answer)

    assert isinstance(outcome, FetchedBundle)
    assert BODY == deployment.bundle.read_bytes()


@pytest.mark.server
def test_a_server_without_ranges_is_asked_for_everything_again(deployment: Deployment) -> None:
    """Some servers behind s3_endpoint_override don't know them."""

    def answer(request: Request) -> Answer:
        return Answer(200, BODY, {"ETag": f'"{ETAG}"'}, cut_at=10_000 if request.number < 3 else None)

    outcome, _ = fetch(deployment, answer)

    assert isinstance(outcome, FetchedBundle)
    assert BODY == deployment.bundle.read_bytes()


@pytest.mark.server
@pytest.mark.parametrize(
    "passing", [s3_error(500, "InternalError"), s3_error(503, "SlowDown"), s3_error(429, "Throttling"), s3_error(400, "RequestTimeout"), Answer(502, b"<html>")]
)  # fmt: skip
def test_passing_trouble_is_tried_again(deployment: Deployment, passing: Answer) -> None:
    """S3 asks its clients to."""
    outcome, requests = fetch(deployment, lambda request: passing if request.number < 4 else whole(request))

    assert isinstance(outcome, FetchedBundle)
    assert 4 == len(requests)


@pytest.mark.server
def test_credentials_are_asked_for_before_each_attempt(deployment: Deployment) -> None:
    """They may be rotated while S3 is slow."""
    asked = []

    def credentials() -> Credentials:
        asked.append(1)
        return CREDENTIALS

    fetch(
        deployment,
        lambda request: s3_error(503, "SlowDown") if request.number < 3 else whole(request),
        credentials=credentials,
    )

    assert 3 == len(asked)


@pytest.mark.server
@pytest.mark.parametrize(
    ("answer", "error_id", "mentioned"),
    [
        (s3_error(403, "AccessDenied"), "bundle-access-denied", ["AccessDenied", "s3:GetObjectVersion", "arn:aws:s3:::releases/web/v1.tgz", "AKIATESTTESTTESTTEST, which is from this host's identity", "REQ1"]),
        (s3_error(403, "SignatureDoesNotMatch"), "bundle-access-denied", ["SignatureDoesNotMatch", "secret of this key"]),
        (s3_error(403, "RequestTimeTooSkewed"), "bundle-access-denied", ["clock"]),
        (s3_error(404, "NoSuchKey"), "bundle-not-found", ["NoSuchKey", "s3://releases/web/v1.tgz", "version 7"]),
        (s3_error(404, "NoSuchVersion"), "bundle-not-found", ["NoSuchVersion", "Check the version of the revision"]),
        (s3_error(404, "NoSuchBucket"), "bundle-not-found", ["NoSuchBucket", "Check the bucket of the revision, and s3_endpoint_override"]),
        (s3_error(301, "PermanentRedirect", x_amz_bucket_region="eu-west-3"), "bundle-wrong-region", ["eu-west-3", "us-east-1"]),
        (s3_error(307, "TemporaryRedirect", location="http://127.0.0.1:1/"), "bundle-wrong-region", ["us-east-1"]),
        (s3_error(400, "InvalidRequest", "A &lt;b&gt; &amp; c"), "bundle-s3-refused", ["A <b> & c", "Compare bucket, key and version"]),
        (Answer(403, b"<!DOCTYPE x [<!ENTITY a '&b;&b;'>]>" + b"A" * 200_000), "bundle-access-denied", ["403", "If not: it needs s3:GetObjectVersion"]),
    ],
)  # fmt: skip
def test_a_refusal_is_final_and_says_what_is_missing(
    deployment: Deployment, answer: Answer, error_id: str, mentioned: list[str]
) -> None:
    """Access Denied alone has cost people days."""
    revision = S3Revision(bucket="releases", key="web/v1.tgz", bundle_type=BundleType.TGZ, version="7")

    outcome, requests = fetch(deployment, lambda _: answer, revision)

    failure = failed(outcome, deployment)
    assert error_id == failure.error_id
    assert [] == [words for words in mentioned if words not in failure.message]
    assert 1 == len(requests)


@pytest.mark.server
def test_a_bucket_in_another_region_is_asked_there(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Teams share one bucket of artefacts among regions, and that has always worked."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    def answer(request: Request) -> Answer:
        if "eu-west-3" in request.path:
            return whole(request)
        return s3_error(301, "PermanentRedirect", x_amz_bucket_region="eu-west-3")

    with Server(answer).running() as proxy:
        asked = sources("http://s3.us-east-1.amazonaws.com", proxy_uri=proxy.url)
        fetch_bundle(S3Revision(bucket="b-1", key="k", bundle_type=BundleType.TAR), asked, deployment.bundle)

    hosts = ["b-1.s3.us-east-1.amazonaws.com", "b-1.s3.eu-west-3.amazonaws.com"]
    assert [f"http://{host}/k" for host in hosts] == [request.path for request in proxy.requests]
    assert "/eu-west-3/s3/aws4_request" in proxy.requests[1].headers["authorization"]


@pytest.mark.server
def test_a_host_whose_clock_is_wrong_goes_by_the_time_of_s3(deployment: Deployment) -> None:
    """As the usual clients do: a clock that jumped must not fail a deployment."""
    there = datetime.now(timezone.utc) - timedelta(hours=3)

    def answer(request: Request) -> Answer:
        signed = datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%S%z")
        if abs(signed - there) < timedelta(minutes=15):
            return whole(request)
        return s3_error(403, "RequestTimeTooSkewed", date=format_datetime(there))

    revision = S3Revision(bucket="b", key="k", bundle_type=BundleType.TAR)
    outcome, requests = fetch(deployment, answer, revision)

    assert not isinstance(outcome, CommandFailure)
    assert 2 == len(requests)


@pytest.mark.server
def test_another_etag_is_another_bundle(deployment: Deployment) -> None:
    """Whoever overwrites the object between registration and deployment must not get it deployed."""
    revision = S3Revision(bucket="b", key="k", bundle_type=BundleType.TAR, etag='"quoted"')

    outcome, requests = fetch(deployment, whole, revision)

    failure = failed(outcome, deployment)
    assert "bundle-etag-mismatch" == failure.error_id
    assert ETAG in failure.message
    assert "quoted" in failure.message
    assert 1 == len(requests)


@pytest.mark.server
def test_an_object_with_a_content_encoding_arrives_as_it_is_stored(deployment: Deployment) -> None:
    """`aws s3 cp --content-encoding gzip` of a tgz; a client that decodes it breaks size and type."""
    content = tgz_bytes(file("appspec.yml"))

    outcome, _ = fetch(
        deployment, lambda _: Answer(200, content, {"Content-Encoding": "gzip", "ETag": '"1"'})
    )

    assert isinstance(outcome, FetchedBundle)
    assert content == deployment.bundle.read_bytes()


@pytest.mark.server
def test_a_bundle_larger_than_the_disk_is_not_even_begun(deployment: Deployment) -> None:
    """The others on the host need the room until the end."""
    outcome, _ = fetch(
        deployment, lambda _: Answer(200, b"x", {"Content-Length": str(1 << 60), "ETag": '"1"'}, 1)
    )

    assert "bundle-disk-full" == failed(outcome, deployment).error_id


@pytest.mark.server
def test_without_credentials_nothing_is_asked(deployment: Deployment) -> None:
    """A host without a role; the message is about the host, not about S3."""

    def credentials() -> Credentials:
        raise IdentityError("No role is attached to this instance.")

    outcome, requests = fetch(deployment, whole, credentials=credentials)

    failure = failed(outcome, deployment)
    assert "bundle-credentials-missing" == failure.error_id
    assert "No role is attached to this instance." in failure.message
    assert [] == requests


def test_an_address_where_nobody_listens_is_tried_and_named(deployment: Deployment) -> None:
    """Connection refused is what a stopped proxy or server looks like."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(CommandFailure, match="refused") as failure:
        fetch_bundle(REVISION, sources(f"http://127.0.0.1:{port}"), deployment.bundle)

    assert "bundle-download-failed" == failure.value.error_id


def test_an_endpoint_that_is_no_url_is_a_matter_of_configuration(deployment: Deployment) -> None:
    """Trying again can't help."""
    with pytest.raises(CommandFailure) as failure:
        fetch_bundle(REVISION, sources("minio:9000"), deployment.bundle)

    assert "bundle-address-invalid" == failure.value.error_id


@pytest.mark.server
def test_the_proxy_is_used_unless_no_proxy_says_otherwise(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both in the configuration and in the environment; a proxy for everything breaks private endpoints."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with Server(whole).running() as proxy, Server(whole).running() as direct:
        fetch_bundle(REVISION, sources("http://s3.example", proxy_uri=proxy.url), deployment.bundle)
        assert ["http://s3.example/releases/web%20app/v1.tgz"] == [request.path for request in proxy.requests]

        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        fetch_bundle(REVISION, sources("http://s3.example"), deployment.bundle)
        assert 2 == len(proxy.requests)

        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        fetch_bundle(REVISION, sources(direct.url, proxy_uri=proxy.url), deployment.bundle)
        fetch_bundle(REVISION, sources(direct.url), deployment.bundle)
        assert (2, 2) == (len(proxy.requests), len(direct.requests))


@pytest.mark.server
@pytest.mark.parametrize("variable", ["all_proxy", "ALL_PROXY"])
def test_a_proxy_for_all_schemes_counts_for_bundles_no_more_than_for_polls(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """It is there for other programs, and is often one that the agent can't speak to."""
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server(whole).running() as proxy, Server(whole).running() as direct:
        monkeypatch.setenv(variable, proxy.url)
        fetch_bundle(REVISION, sources(direct.url), deployment.bundle)
        assert (0, 1) == (len(proxy.requests), len(direct.requests))


@pytest.mark.server
def test_only_the_configured_ca_is_trusted_whatever_the_environment_says(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REQUESTS_CA_BUNDLE is for other programs; AWS_CA_BUNDLE is for us."""
    authority = make_authority(tmp_path)
    with Server(whole, authority.context).running() as server:
        fetch_bundle(REVISION, sources(server.url, ca_path=authority.ca_file), deployment.bundle)
        deployment.bundle.unlink()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.ca_file))
        with pytest.raises(CommandFailure, match="AWS_CA_BUNDLE") as failure:
            fetch_bundle(REVISION, sources(server.url), deployment.bundle)

    assert "bundle-certificate-untrusted" == failure.value.error_id
    for wanted in (f"127.0.0.1:{server.port}", "Trusted are the CAs", "update-ca-certificates"):
        assert wanted in failure.value.message
    assert [] == deployment.left()


@pytest.mark.server
def test_a_page_in_the_place_of_a_bundle_names_the_proxy_that_it_came_through(
    deployment: Deployment, tmp_path: Path
) -> None:
    """It may be the proxy's own, with a status that says that all is well; then no upload was wrong."""
    with Server(lambda _: Answer(200, b"<html>Sign in</html>" * 99)).running() as proxy:
        with pytest.raises(CommandFailure) as failure:
            make_deployment_archive(
                REVISION,
                bundle=deployment.bundle,
                archive=tmp_path / "archive",
                sources=sources("http://s3.example", proxy_uri=proxy.url.replace("//", "//me:hidden@")),
                limits=ArchiveLimits(),
                appspec_names=("appspec.yml",),
            )
        way = f"through the proxy http://***@127.0.0.1:{proxy.port}"

    assert "bundle-type-wrong" == failure.value.error_id
    assert f"{way} (proxy_uri in the agent's settings): if what lies there is right" in failure.value.message
    assert "hidden" not in failure.value.message


@pytest.mark.server
def test_a_netrc_file_does_not_replace_the_signature(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requests library reads root's .netrc by itself, and would send a password in place of our signature."""
    netrc = tmp_path / "test-netrc"
    netrc.write_text("machine 127.0.0.1 login user password word\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))

    _, requests = fetch(deployment, whole)

    assert requests[0].headers["authorization"].startswith("AWS4-HMAC-SHA256 ")
