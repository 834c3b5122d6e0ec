"""Signatures that the services accept, held against published vectors and botocore."""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import botocore.auth
import botocore.awsrequest
import botocore.compat
import botocore.credentials
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.identity.credentials import Credentials
from agent.identity.signing import EMPTY_PAYLOAD_SHA256, sign_headers
from agent.protocol import Secret

VECTORS = sorted(Path(__file__).parent.joinpath("sigv4").glob("*.txt"))
VECTOR_TIME = datetime(2015, 8, 30, 12, 36, tzinfo=timezone.utc)
MADE_BY_SIGNING = {"authorization", "x-amz-date", "x-amz-security-token"}


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_a_signature_is_that_of_the_published_vector(path: Path) -> None:
    """A signature that is off by one byte is refused by every service, on every poll."""
    head, _, body = path.read_text(encoding="utf-8").partition("\n\n")
    request_line, *lines = head.split("\n")
    method, target = request_line.removesuffix(" HTTP/1.1").split(" ", 1)
    # The suite takes the path as it is on the wire, even where no client would send it so.
    target_path, question_mark, query = target.partition("?")
    given_headers = {name: value for name, _, value in (line.partition(":") for line in lines)}
    token = given_headers.get("X-Amz-Security-Token")

    sent = sign_headers(
        method=method,
        url=f"https://example.amazonaws.com{target_path}{question_mark}{quote(query, safe='&=%~')}",
        headers={name: value for name, value in given_headers.items() if name.lower() not in MADE_BY_SIGNING},
        payload_sha256=hashlib.sha256(body.encode()).hexdigest(),
        credentials=Credentials(
            access_key_id="AKIDEXAMPLE",
            secret_access_key=Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            session_token=Secret(token) if token else None,
        ),
        region="us-east-1",
        service="service",
        now=VECTOR_TIME,
    )

    assert given_headers["Authorization"] == sent["Authorization"]


PLAIN = st.text("abcXYZ019-._~", min_size=1, max_size=8)
ENCODED = st.text("aZ0 /+=&%é~!'()*:@", max_size=8).map(lambda text: quote(text, safe="~"))
SEGMENTS = st.lists(st.one_of(ENCODED, st.sampled_from(["", ".", ".."])), max_size=5)
QUERIES = st.lists(st.one_of(ENCODED, st.tuples(ENCODED, ENCODED).map("=".join)), max_size=4).map("&".join)
NAMES = st.sampled_from(
    ["Content-Type", "X-Amz-Target", "x-amz-meta-A", "Range", "User-Agent", "TE", "Accept"]
)
VALUES = st.text("ab  /;=-\t0", max_size=12)
HOSTS = st.sampled_from(["a.example", "a.example:443", "A.example:8443", "127.0.0.1:80", "[fd00::1]:9000"])


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    scheme = draw(st.sampled_from(["http", "https"]))
    query = draw(QUERIES)
    path = "/" + "/".join(draw(SEGMENTS))
    token = draw(st.none() | PLAIN)
    return {
        "method": draw(st.sampled_from(["GET", "POST", "HEAD"])),
        "url": f"{scheme}://{draw(HOSTS)}{path}{'?' if query else ''}{query}",
        "headers": draw(st.dictionaries(NAMES, VALUES, max_size=5)),
        "payload_sha256": hashlib.sha256(draw(st.binary(max_size=20))).hexdigest(),
        "credentials": Credentials(
            access_key_id=draw(PLAIN),
            secret_access_key=Secret(draw(PLAIN)),
            session_token=None if token is None else Secret(token),
        ),
        "region": draw(st.sampled_from(["eu-west-1", "cn-north-1"])),
        "now": draw(st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1))),  # noqa: DTZ001 - UTC is added below
    }


@pytest.mark.parametrize("service", ["codedeploy-commands", "s3"])
@given(request=requests())
def test_every_request_is_signed_as_botocore_signs_it(service: str, request: dict[str, Any]) -> None:
    """Keys of bundles hold any character; each must reach S3 with a signature that fits."""
    now = request.pop("now").replace(tzinfo=timezone.utc)
    expected = _signed_by_botocore(service=service, now=now, **request)

    actual = sign_headers(service=service, now=now, **request)

    assert expected == actual["Authorization"]


def _signed_by_botocore(
    *,
    service: str,
    method: str,
    url: str,
    headers: dict[str, str],
    payload_sha256: str,
    credentials: Credentials,
    region: str,
    now: datetime,
) -> str:
    """The Authorization header that botocore's own steps give, at a time of our choice."""
    kind = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
    token = credentials.session_token.reveal() if credentials.session_token else None
    signer = kind(
        botocore.credentials.Credentials(
            credentials.access_key_id, credentials.secret_access_key.reveal(), token
        ),
        service,
        region,
    )
    signer.payload = lambda request: payload_sha256
    request = botocore.awsrequest.AWSRequest(method=method, url=url, headers=headers)
    request.context["timestamp"] = now.strftime("%Y%m%dT%H%M%SZ")
    request.headers["X-Amz-Date"] = request.context["timestamp"]
    if token:
        request.headers["X-Amz-Security-Token"] = token
    if service == "s3":
        request.headers["X-Amz-Content-SHA256"] = payload_sha256
    to_sign = signer.string_to_sign(request, signer.canonical_request(request))
    signer._inject_signature_to_request(request, signer.signature(to_sign, request))
    return str(request.headers["Authorization"])


def _sign(**changes: Any) -> dict[str, str]:
    request: dict[str, Any] = {
        "method": "POST",
        "url": "https://codedeploy-commands.eu-west-1.amazonaws.com/",
        "headers": {"Content-Type": "application/x-amz-json-1.1"},
        "payload_sha256": EMPTY_PAYLOAD_SHA256,
        "credentials": Credentials(access_key_id="AKID", secret_access_key=Secret("SECRET")),
        "region": "eu-west-1",
        "service": "codedeploy-commands",
        "now": VECTOR_TIME,
    }
    return sign_headers(**{**request, **changes})


def test_signing_again_replaces_the_headers_of_the_first_signature() -> None:
    """A request that is retried with rotated credentials must not carry the old token."""
    temporary = Credentials(
        access_key_id="ASIA", secret_access_key=Secret("S"), session_token=Secret("old-token")
    )
    first = _sign(service="s3", credentials=temporary, payload_sha256="0" * 64)

    second = _sign(service="s3", headers={name.lower(): value for name, value in first.items()})

    assert {name.lower(): value for name, value in _sign(service="s3").items()} == {
        name.lower(): value for name, value in second.items()
    }


def test_a_signed_request_shows_no_secret_key() -> None:
    """Headers are logged when wire logging is on; the secret key must not be among them."""
    assert "SECRET" not in repr(_sign())


def test_a_request_that_names_its_host_keeps_it() -> None:
    """Behind an endpoint override, the Host header that is sent is the one that is signed."""
    assert {"host": "other.example"} == {
        name: value
        for name, value in _sign(headers={"host": "other.example"}).items()
        if name.lower() == "host"
    }
