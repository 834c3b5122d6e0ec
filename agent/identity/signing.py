"""AWS Signature Version 4 in request headers.

An implementation of our own, because the process at rest signs every poll, and the well-kept
libraries cost it 10 MB and more. The tests hold it against published vectors and against botocore.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from agent.identity.credentials import Credentials

ALGORITHM = "AWS4-HMAC-SHA256"
EMPTY_PAYLOAD_SHA256 = hashlib.sha256(b"").hexdigest()
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"

_DEFAULT_PORTS = {"http": 80, "https": 443}
# What proxies and clients add or change on the way must not be signed.
_NOT_SIGNED = frozenset(
    [
        "baggage",
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-amzn-trace-id",
    ]
)


def sign_headers(
    *,
    method: str,
    url: str,
    headers: Mapping[str, str],
    payload_sha256: str,
    credentials: Credentials,
    region: str,
    service: str,
    now: datetime,
) -> dict[str, str]:
    """All headers to send: the given ones, Host, the X-Amz ones of the signature, and Authorization.

    Args:
        method: in capitals.
        url: as it is sent: path and query percent-encoded already.
        headers: names in any case, each name once; signing headers among them are replaced.
        payload_sha256: of the body, in lower-case hexadecimal, or UNSIGNED_PAYLOAD (S3 only).
        credentials: with them.
        region: such as `eu-west-1`.
        service: the signing name; `s3` has rules of its own for paths and payloads.
        now: in UTC. The service refuses signatures more than five minutes off.
    """
    parts = urlsplit(url)
    timestamp = now.strftime("%Y%m%dT%H%M%SZ")
    own = {"X-Amz-Date": timestamp}
    if credentials.session_token is not None:
        own["X-Amz-Security-Token"] = credentials.session_token.reveal()
    if service == "s3":
        own["X-Amz-Content-SHA256"] = payload_sha256
    sent = _headers_to_send(headers, parts, own)
    canonical_headers, signed_names = _canonical_headers(sent.items())
    canonical_request = "\n".join(
        (
            method,
            _canonical_path(parts.path, service),
            _canonical_query(parts.query),
            canonical_headers,
            signed_names,
            payload_sha256,
        ),
    )
    day = timestamp[:8]
    scope = f"{day}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical_request.encode()).hexdigest()
    key = _signing_key(credentials.secret_access_key.reveal(), day, region, service)
    signature = hmac.digest(key, f"{ALGORITHM}\n{timestamp}\n{scope}\n{digest}".encode(), "sha256").hex()
    sent["Authorization"] = (
        f"{ALGORITHM} Credential={credentials.access_key_id}/{scope}, "
        f"SignedHeaders={signed_names}, Signature={signature}"
    )
    return sent


def _headers_to_send(
    headers: Mapping[str, str], parts: SplitResult, own: Mapping[str, str]
) -> dict[str, str]:
    replaced = {"authorization", "x-amz-security-token", *(name.lower() for name in own)}
    sent = {name: value for name, value in headers.items() if name.lower() not in replaced}
    if not any(name.lower() == "host" for name in sent):
        sent["Host"] = _host(parts)
    return {**sent, **own}


def _host(parts: SplitResult) -> str:
    """Host and port as clients send them: without user, and without the scheme's own port."""
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    if parts.port is None or parts.port == _DEFAULT_PORTS.get(parts.scheme):
        return host
    return f"{host}:{parts.port}"


def _canonical_headers(headers: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """The headers in canonical form, each line ended, and the list of their names."""
    signed = sorted(
        (lower, " ".join(value.split()))
        for lower, value in ((name.lower(), value) for name, value in headers)
        if lower not in _NOT_SIGNED
    )
    return "".join(f"{name}:{value}\n" for name, value in signed), ";".join(name for name, _ in signed)


def _canonical_path(path: str, service: str) -> str:
    if path in {"", "/"}:
        return "/"
    if service == "s3":
        return path  # a key may hold `//` and `..`, and is encoded only once
    return quote(_without_dot_segments(path), safe="/~")


def _without_dot_segments(path: str) -> str:
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in {"", "."}:
            kept.append(segment)
    ending = "/" if kept and path.endswith("/") else ""
    return "/" + "/".join(kept) + ending


def _canonical_query(query: str) -> str:
    if not query:
        return ""
    pairs = sorted((name, value) for name, _, value in (pair.partition("=") for pair in query.split("&")))
    return "&".join(f"{name}={value}" for name, value in pairs)


@lru_cache(maxsize=8)  # the two services of this agent, for a few rotations
def _signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    """Four derivations which change only with the day or the credentials."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
