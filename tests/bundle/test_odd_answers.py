"""Servers that answer a range in every possible way: what is deployed is the object, or nothing."""

from __future__ import annotations

import base64
import hashlib
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from agent.bundle import FetchedBundle
from agent.bundle.fetch import fetch_bundle
from agent.errors import CommandFailure
from agent.protocol import BundleType
from agent.specification import S3Revision
from tests.bundle.packing import file, tar_bytes, tgz_bytes, zip_bytes
from tests.bundle.servers import Answer, Request, Server, chunked, s3_error
from tests.bundle.transfers import BODY, ETAG, REVISION, MovedClock, failed, fetch, sources, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bundle.conftest import Deployment

pytestmark = pytest.mark.server

SIZE = len(BODY)
CUT = 100_000
QUOTED = f'"{ETAG}"'
CHUNKED: dict[str, Any] = {"Transfer-Encoding": "chunked", "Content-Length": None}


def part(start: int, end: int, *, status: int = 206, total: object = SIZE, **headers: Any) -> Answer:
    """The bytes from start up to end, as a server sends them.

    Headers that are None are left out; underscores in their names stand for hyphens.
    """
    named: dict[str, str | None] = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(
        status,
        BODY[start:end],
        {"ETag": QUOTED, "Content-Range": f"bytes {start}-{end - 1}/{total}", **named},
    )


def answered_with(odd: Answer) -> Callable[[Request], Answer]:
    """A transfer that is cut off; the request for the rest gets this answer, and all others what is right."""

    def answer(request: Request) -> Answer:
        if request.number == 1:
            return replace(whole(request), cut_at=CUT)
        return odd if request.number == 2 else whole(request)

    return answer


@pytest.mark.parametrize(
    "odd",
    [
        part(CUT, SIZE),
        part(CUT, SIZE, status=200),
        part(CUT, SIZE, total="*"),
        part(CUT, CUT + 5000),
        part(CUT, CUT + 5000, status=200),
        part(CUT, CUT + 1),
        part(CUT, CUT + 5000, total="*"),
        part(0, SIZE),
        part(0, SIZE, status=200),
        part(0, CUT // 2),
        Answer(200, BODY, {"ETag": QUOTED}),
        Answer(200, BODY),
        Answer(200, chunked(BODY), {"ETag": QUOTED, **CHUNKED}),
        replace(part(CUT, SIZE, **CHUNKED), body=chunked(BODY[CUT:])),
    ],
    ids=[
        "206", "200 with the range", "unknown total", "less than asked for", "200 with less", "a single byte",
        "less, of an unknown total", "all of it as a range", "all of it as a range with 200", "the beginning",
        "all of it", "all of it without ETag", "all of it in chunks", "the range in chunks",
    ],
)  # fmt: skip
def test_an_honest_answer_to_a_range_completes_the_object(deployment: Deployment, odd: Answer) -> None:
    """Status, range and length differ from server to server; the bytes land where they belong."""
    outcome, requests = fetch(deployment, answered_with(odd))

    assert isinstance(outcome, FetchedBundle)
    assert BODY == deployment.bundle.read_bytes()
    assert f"bytes={CUT}-" == requests[1].headers["range"]


@pytest.mark.parametrize(
    "odd",
    [
        part(CUT // 2, SIZE),
        part(CUT + 1000, SIZE),
        part(CUT // 2, SIZE, status=200),
        part(CUT, SIZE, Content_Range=None),
        part(CUT, SIZE, Content_Range=None, Content_Type="multipart/byteranges; boundary=x"),
        part(CUT, SIZE, Content_Range="bytes */300000"),
        part(CUT, SIZE, Content_Range="bytes 5-1/300000"),
        part(CUT, SIZE, Content_Range=f"bytes {CUT}-{SIZE}/{SIZE}"),
        part(CUT, SIZE, total=SIZE + 5000),
        part(CUT, SIZE - 5000, total=SIZE - 5000),
        replace(part(CUT, SIZE, Content_Length=str(SIZE - CUT + 3)), body=BODY[CUT:] + b"xxx"),
        part(CUT, SIZE, Content_Length=str(SIZE - CUT - 3)),
        part(CUT, SIZE, ETag='"another"'),
        part(CUT, SIZE, ETag=None),
        part(CUT, SIZE, ETag=f"W/{QUOTED}"),
        replace(part(CUT, SIZE), cut_at=10),
        replace(part(CUT, SIZE), cut_at=0),
        replace(part(CUT, SIZE, **CHUNKED), body=chunked(BODY[CUT:], last=b""), cut_at=1 << 20),
        replace(part(CUT, SIZE, **CHUNKED), body=chunked(BODY[CUT:] + b"more")),
        replace(part(CUT, SIZE, **CHUNKED), body=chunked(BODY[CUT:-1])),
        Answer(204, b"", {"ETag": QUOTED, "Content-Length": None}),
        Answer(200, BODY[CUT:], {"ETag": QUOTED}),
        Answer(200, BODY + b"x", {"ETag": QUOTED}),
        s3_error(416, "InvalidRange"),
        s3_error(412, "PreconditionFailed"),
        s3_error(500, "InternalError"),
    ],
    ids=[
        "an earlier range", "a later range", "an earlier range with 200", "206 without Content-Range",
        "several ranges", "no range", "a range backwards", "a range that is too long", "a larger total",
        "a smaller total", "a longer body", "a shorter body", "another ETag", "no ETag", "a weak ETag",
        "cut again", "cut before the first byte", "chunks without an end", "more in chunks", "less in chunks",
        "no content", "the rest, called all", "one byte more, called all", "416", "412", "500",
    ],
)  # fmt: skip
def test_an_answer_that_does_not_fit_is_never_part_of_the_object(deployment: Deployment, odd: Answer) -> None:
    """Half a revision, or two halves of two, would be a deployment that succeeded without its files."""
    outcome, _ = fetch(deployment, answered_with(odd))

    assert isinstance(outcome, FetchedBundle)
    assert BODY == deployment.bundle.read_bytes()
    assert SIZE == outcome.size_bytes


@pytest.mark.parametrize(
    "lasting",
    [
        part(CUT // 2, SIZE),
        part(CUT, SIZE, Content_Range=None),
        Answer(204, b"", {"ETag": QUOTED}),
        part(CUT, SIZE, total=SIZE + 5000),
    ],
    ids=["another range", "no range", "no content", "another total"],
)
def test_a_server_that_contradicts_itself_for_good_is_named(deployment: Deployment, lasting: Answer) -> None:
    """Nobody can tell which of its answers is right; trying for minutes does not help."""
    clock = MovedClock()

    outcome, requests = fetch(
        deployment,
        lambda request: replace(whole(request), cut_at=CUT) if request.number == 1 else lasting,
        clock=clock,
    )

    failure = failed(outcome, deployment)
    assert "bundle-answers-inconsistent" == failure.error_id
    assert "contradicts itself" in failure.message
    assert len(requests) < 6


def test_one_object_never_has_two_sizes(deployment: Deployment) -> None:
    """The second answer is complete in itself, and still wrong: one of the two is not the object."""

    def answer(request: Request) -> Answer:
        if request.number == 1:
            return Answer(200, BODY, {"ETag": '"same"'}, cut_at=CUT)
        return Answer(200, BODY[: SIZE // 2], {"ETag": '"same"'})

    outcome, _ = fetch(deployment, answer)

    assert "bundle-answers-inconsistent" == failed(outcome, deployment).error_id


def test_an_object_that_changes_with_every_answer_comes_to_an_end(deployment: Deployment) -> None:
    """An upload that never ends must not hold the deployment group for ever."""
    clock = MovedClock()

    outcome, _ = fetch(
        deployment,
        lambda request: Answer(200, BODY, {"ETag": f'"{request.number}"'}, cut_at=CUT),
        clock=clock,
    )

    assert "bundle-" in failed(outcome, deployment).error_id
    assert clock.now < 400


def test_chunks_that_end_early_are_not_the_end(deployment: Deployment) -> None:
    """Without a length, only the last chunk says that all has come."""

    def answer(request: Request) -> Answer:
        if request.number == 1:
            return Answer(200, chunked(BODY[:CUT], last=b""), {"ETag": QUOTED, **CHUNKED}, cut_at=1 << 20)
        return Answer(200, chunked(BODY), {"ETag": QUOTED, **CHUNKED})

    outcome, _ = fetch(deployment, answer)

    assert isinstance(outcome, FetchedBundle)
    assert BODY == deployment.bundle.read_bytes()


def test_two_lengths_in_one_answer_are_none(deployment: Deployment) -> None:
    """The classic of request smuggling; a client that takes one of them takes a guess for a fact."""
    outcome, _ = fetch(
        deployment,
        lambda request: (
            Answer(200, BODY, {"ETag": QUOTED, "Content-Length": "100, 300000"}, cut_at=1 << 20)
            if request.number == 1
            else whole(request)
        ),
    )

    assert isinstance(outcome, FetchedBundle)
    assert BODY == deployment.bundle.read_bytes()


TAR = tar_bytes(file("appspec.yml", b"version: 0.0\n"), file("a", b"a" * 5000))
DAMAGED = TAR.replace(b"aaaa", b"abba")
MD5 = hashlib.md5(TAR, usedforsecurity=False).hexdigest()
PLAIN = S3Revision(bucket="b", key="app.tar", bundle_type=BundleType.TAR)


def test_the_md5_that_an_etag_is_must_be_that_of_the_content(deployment: Deployment) -> None:
    """A plain tar has no checksum of its own: a flipped bit would be deployed."""
    outcome, requests = fetch(deployment, lambda _: Answer(200, DAMAGED, {"ETag": f'"{MD5}"'}), PLAIN)

    failure = failed(outcome, deployment)
    assert "bundle-content-mismatch" == failure.error_id
    assert MD5 in failure.message
    assert 2 == len(requests)


def test_an_object_that_s3_encrypts_by_itself_is_verified_as_well(deployment: Deployment) -> None:
    """The usual encryption of every bucket; its ETags are MD5 sums all the same."""
    encrypted: dict[str, str | None] = {"ETag": f'"{MD5}"', "x-amz-server-side-encryption": "AES256"}

    outcome, _ = fetch(deployment, lambda _: Answer(200, DAMAGED, encrypted), PLAIN)

    assert "bundle-content-mismatch" == failed(outcome, deployment).error_id


def test_damage_on_the_way_is_mended_by_a_second_download(deployment: Deployment) -> None:
    """A proxy's bad memory must not fail a deployment if the next transfer is right."""
    outcome, _ = fetch(
        deployment,
        lambda request: Answer(200, DAMAGED if request.number == 1 else TAR, {"ETag": f'"{MD5}"'}),
        PLAIN,
    )

    assert isinstance(outcome, FetchedBundle)
    assert TAR == deployment.bundle.read_bytes()


@pytest.mark.parametrize(
    "headers",
    [
        {"ETag": f'"{MD5}"', "x-amz-server-side-encryption": "aws:kms"},
        {"ETag": f'"{MD5}"', "x-amz-server-side-encryption": "aws:kms:dsse"},
        {"ETag": f'"{MD5}"', "x-amz-server-side-encryption": "aws:fsx"},
        {"ETag": f'"{MD5}"', "x-amz-server-side-encryption-customer-algorithm": "AES256"},
        {"ETag": f'"{MD5}-2"'},
        {"ETag": f'W/"{MD5}"'},
        {"ETag": f'"{MD5}00"'},
        {"ETag": '"x"', "x-amz-checksum-sha256": "bm9uZQ==-2", "x-amz-checksum-type": "COMPOSITE"},
        {"ETag": '"x"', "x-amz-checksum-crc64nvme": "AAAAAAAAAAA="},
    ],
    ids=["KMS", "KMS twice", "FSx", "customer's key", "multipart", "weak", "longer", "composite", "unknown"],
)
def test_what_is_no_digest_of_the_content_is_not_held_against_it(
    deployment: Deployment, headers: dict[str, str | None]
) -> None:
    """Encrypted objects and those of multipart uploads have ETags that only look like one."""
    outcome, requests = fetch(deployment, lambda _: Answer(200, DAMAGED, headers), PLAIN)

    assert isinstance(outcome, FetchedBundle)
    assert outcome.doubt is None
    assert 1 == len(requests)


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        ("sha256", hashlib.sha256(TAR).digest()),
        ("sha1", hashlib.sha1(TAR, usedforsecurity=False).digest()),
        ("crc32", zlib.crc32(TAR).to_bytes(4, "big")),
    ],
)
def test_a_checksum_that_s3_keeps_with_the_object_is_verified(
    deployment: Deployment, algorithm: str, digest: bytes
) -> None:
    """It is asked for, since S3 keeps it to itself otherwise, and it counts for multipart uploads as well."""

    def answer(request: Request) -> Answer:
        assert "ENABLED" == request.headers["x-amz-checksum-mode"]
        content = TAR if request.number == 1 else DAMAGED
        named = {f"x-amz-checksum-{algorithm}": base64.b64encode(digest).decode()}
        return Answer(200, content, {"ETag": '"x-3"', "x-amz-checksum-type": "FULL_OBJECT", **named})

    outcome, _ = fetch(deployment, answer, PLAIN)
    assert isinstance(outcome, FetchedBundle)
    deployment.bundle.unlink()

    outcome, _ = fetch(deployment, lambda request: answer(replace(request, number=2)), PLAIN)
    assert "bundle-content-mismatch" == failed(outcome, deployment).error_id


def test_a_foreign_etag_of_the_same_form_fails_no_archive_that_verifies_itself(
    deployment: Deployment,
) -> None:
    """Stores behind s3_endpoint_override make ETags as they like; a gzip's own checksum decides."""
    content = tgz_bytes(file("appspec.yml"))

    outcome, requests = fetch(deployment, lambda _: Answer(200, content, {"ETag": f'"{MD5}"'}))

    assert isinstance(outcome, FetchedBundle)
    assert MD5 in (outcome.doubt or "")
    assert 1 == len(requests)


ZIP = zip_bytes(file("appspec.yml"), file("d2/f97"))
ZIP_MD5 = hashlib.md5(ZIP, usedforsecurity=False).hexdigest()


def zip_with_name(name: bytes) -> bytes:
    """The zip after a byte of a name has changed on the way; nothing in it tells."""
    return ZIP.replace(b"d2/f97", name)


def test_a_zip_with_a_damaged_name_is_fetched_again(deployment: Deployment) -> None:
    """Checksums in a zip are of contents alone; a file under another name is half a revision, reported as whole."""

    def answer(request: Request) -> Answer:
        return Answer(200, zip_with_name(b"d2/fc7") if request.number == 1 else ZIP, {"ETag": f'"{ZIP_MD5}"'})

    outcome, requests = fetch(deployment, answer)

    assert isinstance(outcome, FetchedBundle)
    assert outcome.doubt is None
    assert ZIP == deployment.bundle.read_bytes()
    assert 2 == len(requests)


def test_a_zip_that_is_damaged_in_another_way_each_time_is_refused(deployment: Deployment) -> None:
    """The network changes what it carries; nobody knows what else it has changed."""
    names = {1: b"d2/fc7", 2: b"dx/f97"}

    outcome, _ = fetch(
        deployment,
        lambda request: Answer(200, zip_with_name(names[request.number]), {"ETag": f'"{ZIP_MD5}"'}),
    )

    assert "bundle-content-mismatch" == failed(outcome, deployment).error_id


def test_a_zip_of_a_store_with_foreign_etags_is_taken_when_it_comes_twice_alike(
    deployment: Deployment,
) -> None:
    """What such a store calls an ETag is no digest; the network would not damage it twice in the same way."""
    outcome, requests = fetch(deployment, lambda _: Answer(200, ZIP, {"ETag": f'"{MD5}"'}))

    assert isinstance(outcome, FetchedBundle)
    assert MD5 in (outcome.doubt or "")
    assert 2 == len(requests)


def test_a_version_that_was_not_asked_for_is_refused(deployment: Deployment) -> None:
    """A cache in front of the store that ignores the query hands out the newest one."""
    revision = replace(REVISION, version="seven")

    outcome, requests = fetch(
        deployment, lambda _: Answer(200, BODY, {"ETag": QUOTED, "x-amz-version-id": "eight"}), revision
    )

    failure = failed(outcome, deployment)
    assert "bundle-version-mismatch" == failure.error_id
    assert "seven" in failure.message
    assert "eight" in failure.message
    assert 1 == len(requests)


def test_another_version_between_two_attempts_is_another_object(deployment: Deployment) -> None:
    """The same bytes under another version may have other metadata; they are fetched anew."""

    def answer(request: Request) -> Answer:
        if request.number == 1:
            return Answer(200, BODY, {"ETag": QUOTED, "x-amz-version-id": "1"}, cut_at=CUT)
        found = whole(request)
        return replace(found, headers={**found.headers, "x-amz-version-id": "2"})

    outcome, requests = fetch(deployment, answer)

    assert isinstance(outcome, FetchedBundle)
    assert BODY == deployment.bundle.read_bytes()
    assert "range" not in requests[-1].headers


def test_an_empty_object_is_an_empty_bundle(deployment: Deployment) -> None:
    """What is wrong with it is said when it is unpacked."""
    outcome, _ = fetch(deployment, lambda _: Answer(200, b"", {"ETag": '"d41d8cd98f00b204e9800998ecf8427e"'}))

    assert isinstance(outcome, FetchedBundle)
    assert 0 == outcome.size_bytes


def test_an_answer_without_length_that_ends_at_once_is_not_an_empty_bundle(deployment: Deployment) -> None:
    """Absence of a body is what a broken connection looks like as well."""
    outcome, _ = fetch(
        deployment,
        lambda request: (
            Answer(200, b"", {"Content-Length": None}, cut_at=0) if request.number == 1 else whole(request)
        ),
    )

    assert isinstance(outcome, FetchedBundle)
    assert BODY == deployment.bundle.read_bytes()


def test_a_bundle_that_a_cache_has_changed_names_the_proxy_it_came_through(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is where to look first: S3 itself has the right object."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with Server(lambda _: Answer(200, DAMAGED, {"ETag": f'"{MD5}"'})).running() as proxy:
        asked = sources("http://s3.eu-west-1.amazonaws.com", proxy_uri=proxy.url)
        with pytest.raises(CommandFailure) as failure:
            fetch_bundle(PLAIN, asked, deployment.bundle)

    assert "bundle-content-mismatch" == failure.value.error_id
    assert f"was downloaded through the proxy {proxy.url}" in failure.value.message


def test_on_the_service_itself_an_etag_of_that_form_is_the_md5_of_a_tgz_as_well(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There it is known how ETags are made, so another archive that verifies itself is refused, too."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    content = tgz_bytes(file("appspec.yml", b"another one"))
    with Server(lambda _: Answer(200, content, {"ETag": f'"{MD5}"'})).running() as proxy:
        asked = sources("http://s3.eu-west-1.amazonaws.com", proxy_uri=proxy.url)
        with pytest.raises(CommandFailure) as failure:
            fetch_bundle(REVISION, asked, deployment.bundle)

    assert "bundle-content-mismatch" == failure.value.error_id
