"""A bundle in S3: its address, the signed request, and what S3's refusals mean."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from agent.bundle.download import StartAnew, TryAgain, translated_errors
from agent.errors import CommandFailure, IdentityError
from agent.identity.service_clock import ServiceClock
from agent.identity.signing import EMPTY_PAYLOAD_SHA256, sign_headers
from agent.logs import get_logger

if TYPE_CHECKING:
    from datetime import timedelta

    import requests

    from agent.bundle.download import Session
    from agent.bundle.sources import BundleSources
    from agent.identity.credentials import Credentials
    from agent.specification import S3Revision

log = get_logger()

_PRECONDITION_FAILED, _RANGE_NOT_SATISFIABLE = 412, 416
_REFUSED = range(300, 600)
_MAX_ERROR_BYTES = 64 * 1024
# Ours to try again: the server's fault, too many requests, or credentials that are new by then.
_PASSING_CODES = frozenset(
    [
        "ExpiredToken",
        "InternalError",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "TooManyRequests",
    ]
)
_MISSING_CODES = frozenset(["NoSuchBucket", "NoSuchKey", "NoSuchVersion"])
_REGION_CODES = frozenset(
    [
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "PermanentRedirect",
        "TemporaryRedirect",
    ]
)
_CLOCK_CODES = frozenset(["RequestTimeTooSkewed", "RequestExpired", "SignatureDoesNotMatch"])
_MAX_CLOCK_CORRECTIONS = 3  # a clock that is set right meanwhile needs a second one
_ADVICE = {
    "InvalidAccessKeyId": "This key is not known there: it was deleted, or belongs to another partition.",
    "SignatureDoesNotMatch": "The secret of this key is wrong, or a proxy changes requests on their way.",
    "RequestTimeTooSkewed": "The clock of this host is wrong by more than 15 minutes: set it.",
    "InvalidToken": "The session token of these credentials is not valid: have them renewed.",
}
# The endpoints of the service itself, which know buckets by host name.
_REGIONAL = re.compile(
    r"s3(-fips)?(\.dualstack)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.(com|com\.cn|eu)", re.ASCII
)
_BUCKET_IN_HOST = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", re.ASCII)
_ELEMENT = re.compile(r"<(Code|Message|RequestId|Region)>([^<]{0,1000})</\1>")


def object_url(endpoint: str, bucket: str, key: str, version: str | None) -> str:
    """Where an object is.

    The service's own endpoints get the bucket in the host name; path style is being phased out there.
    An endpoint that an administrator gave may have no such names, nor a bucket with dots a certificate.
    """
    parts = urlsplit(endpoint.rstrip("/"))
    path = quote(key, safe="/-_.~")
    if _REGIONAL.fullmatch(parts.hostname or "") and _BUCKET_IN_HOST.fullmatch(bucket):
        address = f"{parts.scheme}://{bucket}.{parts.netloc}{parts.path}/{path}"
    else:
        address = f"{parts.scheme}://{parts.netloc}{parts.path}/{quote(bucket, safe='')}/{path}"
    return address if version is None else f"{address}?versionId={quote(version, safe='')}"


def bare_etag(etag: str) -> str:
    """Without the quotes that HTTP wants around it."""
    return etag.strip().strip('"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What S3 answers instead of the object; texts are empty where it says nothing."""

    status: int
    code: str
    message: str
    request_id: str
    region: str

    def __str__(self) -> str:
        code = f" {self.code}" if self.code else ""
        message = f" ({self.message.rstrip('.')})" if self.message not in {"", self.code} else ""
        request = f" [request id {self.request_id}]" if self.request_id else ""
        return f"{self.status}{code}{message}{request}"


class S3Object:
    """The object of a revision, to be downloaded; see `download.Remote`."""

    def __init__(self, revision: S3Revision, sources: BundleSources) -> None:
        self._revision = revision
        self._sources = sources
        self._endpoint = sources.s3_endpoint
        self._region = sources.region
        self._access_key_id = ""
        self._has_moved = False
        self._clock = ServiceClock(self._log_clock_wrong)
        self._clock_corrections = 0

    @property
    def name(self) -> str:
        """As the tools of S3 write it."""
        version = "" if self._revision.version is None else f" (version {self._revision.version})"
        return f"s3://{self._revision.bucket}/{self._revision.key}{version}"

    def open(self, session: Session, *, start: int, etag: str | None) -> requests.Response:
        """See `download.Remote`."""
        response = self._get(session, start, etag)
        if response.status_code in _REFUSED:
            with response:
                refusal = _read_refusal(response)
            if self._moves_to_region_of(refusal) or self._was_clock_wrong(refusal, response):
                return self.open(session, start=start, etag=etag)
            raise self._failure(refusal, start)
        self._check_etag(response)
        return response

    def _get(self, session: Session, start: int, etag: str | None) -> requests.Response:
        url = object_url(self._endpoint, self._revision.bucket, self._revision.key, self._revision.version)
        resumed = {"Range": f"bytes={start}-", "If-Match": etag} if start and etag is not None else {}
        credentials = self._credentials()
        self._access_key_id = credentials.access_key_id
        signed = sign_headers(
            method="GET",
            url=url,
            headers=resumed,
            payload_sha256=EMPTY_PAYLOAD_SHA256,
            credentials=credentials,
            region=self._region,
            service="s3",
            now=self._clock.now(),
        )
        return session.get_streamed(url, signed)

    def _credentials(self) -> Credentials:
        try:
            return self._sources.credentials()
        except IdentityError as error:
            raise CommandFailure(
                "bundle-credentials-missing",
                f"The bundle {self.name} can't be downloaded: this host has no credentials now."
                f" {error.message} See `agentctl whoami`.",
            ) from error

    def _check_etag(self, response: requests.Response) -> None:
        if not self._revision.etag:
            return
        expected, found = bare_etag(self._revision.etag), bare_etag(response.headers.get("ETag", ""))
        if expected != found:
            response.close()
            raise CommandFailure(
                "bundle-etag-mismatch",
                f"The bundle {self.name} is not the one of this revision: the revision's ETag is {expected}, and"
                f" S3 has {found or 'none'}. The object was overwritten after the revision was registered; register"
                " it again.",
            )

    def _moves_to_region_of(self, refusal: Refusal) -> bool:
        """Whether the bucket lives in another region, which is asked from now on."""
        endpoint = _REGIONAL.fullmatch(urlsplit(self._endpoint).hostname or "")
        is_region = re.fullmatch("[a-z0-9-]+", refusal.region) is not None
        if refusal.code not in _REGION_CODES or self._has_moved or endpoint is None or not is_region:
            return False
        log.info("bundle_bucket_in_other_region", bucket=self._revision.bucket, region=refusal.region)
        self._endpoint = self._endpoint.replace(f".{endpoint['region']}.", f".{refusal.region}.", 1)
        self._region = refusal.region
        self._has_moved = True
        return True

    def _was_clock_wrong(self, refusal: Refusal, response: requests.Response) -> bool:
        """Whether the request was signed for another time than S3's; the next one is not."""
        if refusal.code not in _CLOCK_CODES or self._clock_corrections == _MAX_CLOCK_CORRECTIONS:
            return False
        self._clock_corrections += 1
        return self._clock.learn(response.headers.get("Date"))

    def _log_clock_wrong(self, ahead: timedelta) -> None:
        behind_s = round(ahead.total_seconds())
        log.warning("clock_of_host_wrong", behind_s=behind_s, according_to=self._endpoint)

    def _failure(self, refusal: Refusal, start: int) -> Exception:
        """What this refusal means for the command."""
        if refusal.status in {_PRECONDITION_FAILED, _RANGE_NOT_SATISFIABLE} and start:
            return StartAnew("the object was replaced in the middle of the transfer")
        if refusal.status >= 500 or refusal.status == 429 or refusal.code in _PASSING_CODES:
            return TryAgain(f"S3 answers {refusal}")
        if refusal.code in _REGION_CODES:
            return CommandFailure(
                "bundle-wrong-region",
                f"The bundle {self.name} could not be downloaded: S3 at {self._endpoint} answers {refusal}."
                f" The bucket is in {refusal.region or 'another region'}, and requests are signed for {self._region}."
                " Check s3_endpoint_override, or copy the bundle to a bucket of this region.",
            )
        if refusal.status == 404 or refusal.code in _MISSING_CODES:
            return CommandFailure(
                "bundle-not-found",
                f"There is no bundle {self.name}: S3 at {self._endpoint} answers {refusal}."
                " Check bucket, key and version of the revision, and whether a lifecycle rule removed it.",
            )
        if refusal.status in {401, 403}:
            return self._access_denied(refusal)
        return CommandFailure(
            "bundle-s3-refused",
            f"The bundle {self.name} could not be downloaded: S3 at {self._endpoint} answers {refusal}.",
        )

    def _access_denied(self, refusal: Refusal) -> CommandFailure:
        permission = "s3:GetObject" if self._revision.version is None else "s3:GetObjectVersion"
        arn = f"arn:{_partition(self._region)}:s3:::{self._revision.bucket}/{self._revision.key}"
        advice = _ADVICE.get(
            refusal.code,
            f"It needs {permission} on {arn}, and kms:Decrypt if the object is encrypted with a KMS key."
            " Without s3:ListBucket, a missing object looks like this, too.",
        )
        return CommandFailure(
            "bundle-access-denied",
            f"The bundle {self.name} could not be downloaded: S3 at {self._endpoint} answers {refusal}"
            f" to the access key {self._access_key_id}. {advice}",
        )


def _read_refusal(response: requests.Response) -> Refusal:
    """What S3 says in an error's body: a little XML, of which four elements count."""
    with translated_errors("S3"):
        body = response.raw.read(_MAX_ERROR_BYTES, decode_content=True)
    elements = dict(_ELEMENT.findall(body.decode("utf-8", "replace")))
    headers = response.headers
    return Refusal(
        status=response.status_code,
        code=elements.get("Code", ""),
        message=html.unescape(elements.get("Message", "")),
        request_id=elements.get("RequestId") or headers.get("x-amz-request-id", ""),
        region=elements.get("Region") or headers.get("x-amz-bucket-region", ""),
    )


def _partition(region: str) -> str:
    prefixes = {"cn-": "aws-cn", "us-gov-": "aws-us-gov", "eusc-": "aws-eusc"}
    return next((name for prefix, name in prefixes.items() if region.startswith(prefix)), "aws")
