"""Who signed a request, checked: AWS Signature Version 4."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, HTTPHeaders
from botocore.credentials import Credentials

from controlplane.errors import ServiceError
from controlplane.settings import MAX_CLOCK_SKEW_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from controlplane.secret import Secret

_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256\s+"
    r"Credential=(?P<key>[A-Za-z0-9]{1,128})/(?P<day>\d{8})/(?P<region>[a-z0-9-]{1,64})/(?P<service>[a-z0-9-]{1,64})"
    r"/aws4_request,\s*SignedHeaders=(?P<headers>[a-z0-9;_-]{1,2048}),\s*Signature=(?P<signature>[0-9a-f]{64})"
)
_DATE: Final = re.compile(r"\d{8}T\d{6}Z")
_MUST_BE_SIGNED: Final = ("host", "x-amz-target", "smithy-protocol", "x-amz-security-token")
"""Headers that decide what a request means; whichever of them is present must be covered by the signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """A request as it arrived; header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureClaim:
    """What a request says about who signed it and how; nothing of it is checked yet but the form."""

    access_key_id: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str


def parse_claim(request: HttpRequest) -> SignatureClaim:
    """The claim in the Authorization and X-Amz-Date headers; raises ServiceError when there is none."""
    authorization = request.headers.get("authorization")
    if not authorization:
        raise ServiceError(
            "MissingAuthenticationTokenException",
            "The request has no Authorization header; sign it with an access key of this endpoint.",
        )
    match = _AUTHORIZATION.fullmatch(authorization.strip())
    date = request.headers.get("x-amz-date", "")
    if match is None or _DATE.fullmatch(date) is None or match["day"] != date[:8]:
        raise ServiceError(
            "IncompleteSignatureException",
            "The Authorization and X-Amz-Date headers do not form an AWS Signature Version 4.",
        )
    claim = SignatureClaim(
        access_key_id=match["key"],
        date=date,
        region=match["region"],
        service=match["service"],
        signed_headers=tuple(match["headers"].split(";")),
        signature=match["signature"],
    )
    _check_coverage(request, claim)
    return claim


def verify_signature(request: HttpRequest, claim: SignatureClaim, secret: Secret, *, now: float) -> None:
    """The request was signed with this secret, is unchanged and recent; otherwise raises ServiceError."""
    expected = _expected_signature(request, claim, secret)
    if not hmac.compare_digest(expected, claim.signature):
        raise ServiceError(
            "InvalidSignatureException",
            "The signature does not fit the request: the secret access key is another one, or something "
            "between client and endpoint changes method, path, signed headers or body.",
        )
    # After the signature, so that a stranger learns nothing about the clock.
    skew_s = _parse_date(claim.date) - now
    if abs(skew_s) > MAX_CLOCK_SKEW_S:
        raise ServiceError(
            "InvalidSignatureException",
            f"The request was signed at {claim.date}, {abs(skew_s):.0f} s {'after' if skew_s > 0 else 'before'} "
            f"the time at this endpoint; at most {MAX_CLOCK_SKEW_S:.0f} s are allowed. Set the clock of the caller.",
        )


def _check_coverage(request: HttpRequest, claim: SignatureClaim) -> None:
    uncovered = [
        name for name in _MUST_BE_SIGNED if name in request.headers and name not in claim.signed_headers
    ]
    absent = [name for name in claim.signed_headers if name not in request.headers]
    if uncovered or absent or "host" not in claim.signed_headers:
        raise ServiceError(
            "InvalidSignatureException",
            f"SignedHeaders must name host and all of {', '.join(_MUST_BE_SIGNED[1:])} that are sent, "
            "and nothing that is not sent.",
        )


def _expected_signature(request: HttpRequest, claim: SignatureClaim, secret: Secret) -> str:
    credentials = Credentials(claim.access_key_id, secret.reveal())
    signer = _ClaimedHeadersAuth(credentials, claim.service, claim.region)
    headers = {name: request.headers[name] for name in claim.signed_headers}
    # A scheme of http makes the signer hash the body whatever the transport was.
    replica = AWSRequest(
        method=request.method, url=f"http://endpoint{request.path}", headers=headers, data=request.body
    )
    replica.context["timestamp"] = claim.date
    return str(signer.signature(signer.string_to_sign(replica, signer.canonical_request(replica)), replica))


class _ClaimedHeadersAuth(SigV4Auth):  # type: ignore[misc]  # botocore has no types
    """Signs exactly the headers the caller signed, and always the body that arrived."""

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        signed = HTTPHeaders()
        for name, value in request.headers.items():
            signed[name] = value
        return signed

    def payload(self, request: AWSRequest) -> str:
        return hashlib.sha256(request.body or b"").hexdigest()

    def canonical_request(self, request: AWSRequest) -> str:
        lines = str(super().canonical_request(request)).split("\n")
        # The parent believes an X-Amz-Content-SHA256 header; the hash of what arrived is what counts.
        lines[-1] = self.payload(request)
        return "\n".join(lines)


def _parse_date(date: str) -> float:
    try:
        moment = dt.datetime.strptime(date + "+0000", "%Y%m%dT%H%M%SZ%z")
    except ValueError as error:
        raise ServiceError("IncompleteSignatureException", f"X-Amz-Date {date} is no date.") from error
    return moment.timestamp()
