"""A bundle in S3: its address, the signed request, and what S3's refusals mean."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from agent.bundle.digests import Announced, s3_digests
from agent.bundle.s3_refusals import Refusal, read_refusal
from agent.bundle.session import proxy_for
from agent.bundle.trouble import StartAnew, Trouble, TryAgain
from agent.errors import CommandFailure, IdentityError
from agent.identity.service_clock import ServiceClock
from agent.identity.signing import EMPTY_PAYLOAD_SHA256, sign_headers
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    import requests

    from agent.bundle.session import Session
    from agent.bundle.sources import BundleSources
    from agent.identity.credentials import Credentials
    from agent.specification import S3Revision

log = get_logger()

_PRECONDITION_FAILED, _RANGE_NOT_SATISFIABLE = 412, 416
_REFUSED = range(300, 600)
_EXPIRED_CODES = frozenset(["ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"])
_ARCHIVED_CODES = frozenset(["InvalidObjectState"])
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
}
# The endpoints of the service itself, which know buckets by host name.
_REGIONAL = re.compile(
    r"s3(-fips)?(\.dualstack)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.(com|com\.cn|eu)", re.ASCII
)
_BUCKET_IN_HOST = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", re.ASCII)


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


class S3Object:
    """The object of a revision, to be downloaded; see `download.Remote`."""

    def __init__(self, revision: S3Revision, sources: BundleSources) -> None:
        self._revision = revision
        self._sources = sources
        self._endpoint = sources.s3_endpoint
        self._region = sources.region
        self._credentials: Credentials | None = None
        self._was_renewed = False
        self._has_moved = False
        self._clock = ServiceClock(self._log_clock_wrong)
        self._clock_corrections = 0

    @property
    def name(self) -> str:
        """As the tools of S3 write it."""
        version = "" if self._revision.version is None else f" (version {self._revision.version})"
        return f"s3://{self._revision.bucket}/{self._revision.key}{version}"

    @property
    def address(self) -> str:
        """See `download.Remote`."""
        return object_url(self._endpoint, self._revision.bucket, self._revision.key, self._revision.version)

    @property
    def _server(self) -> str:
        """Who answers, for messages."""
        return f"S3 at {self._endpoint}"

    @property
    def _server_and_way(self) -> str:
        proxy = proxy_for(self.address, self._sources.proxy_uri)
        return self._server if proxy is None else f"{self._server}, through {proxy},"

    def digests(self, headers: Mapping[str, str]) -> tuple[Announced, ...]:
        """See `download.Remote`."""
        is_service = _REGIONAL.fullmatch(urlsplit(self._endpoint).hostname or "") is not None
        return s3_digests(headers, is_etag_certain=is_service)

    def open(self, session: Session, *, start: int, etag: str | None) -> requests.Response:
        """See `download.Remote`."""
        response = self._get(session, start, etag)
        if response.status_code in _REFUSED:
            with response:
                refusal = read_refusal(response)
            if (
                self._moves_to_region_of(refusal)
                or self._was_clock_wrong(refusal, response)
                or self._renews_credentials(refusal)
            ):
                return self.open(session, start=start, etag=etag)
            raise self._failure(refusal, start)
        self._was_renewed = False
        try:
            self._check_object(response)
        except CommandFailure:
            response.close()
            raise
        return response

    def _get(self, session: Session, start: int, etag: str | None) -> requests.Response:
        url = self.address
        # Without it, S3 keeps the checksums of the object to itself.
        headers = {"x-amz-checksum-mode": "ENABLED"}
        if start and etag is not None:
            headers |= {"Range": f"bytes={start}-", "If-Match": etag}
        credentials = self._credentials = self._current_credentials()
        signed = sign_headers(
            method="GET",
            url=url,
            headers=headers,
            payload_sha256=EMPTY_PAYLOAD_SHA256,
            credentials=credentials,
            region=self._region,
            service="s3",
            now=self._clock.now(),
        )
        return session.get_streamed(url, signed)

    def _current_credentials(self) -> Credentials:
        try:
            return self._sources.credentials()
        except IdentityError as error:
            raise CommandFailure(
                "bundle-credentials-missing",
                f"The bundle {self.name} can't be downloaded: this host has no credentials now."
                f" {error.message} See `agentctl whoami`.",
            ) from error

    def _check_object(self, response: requests.Response) -> None:
        """Whether this is the object that the revision names."""
        etag, version = bare_etag(self._revision.etag or ""), self._revision.version
        found = bare_etag(response.headers.get("ETag", ""))
        if etag and etag != found:
            raise CommandFailure(
                "bundle-etag-mismatch",
                f"The bundle {self.name} is not the one of this revision: the revision's ETag is {etag}, and"
                f" {self._server_and_way} has {found or 'none'}. The object was overwritten after the revision was registered; register"
                " it again.",
            )
        found_version = response.headers.get("x-amz-version-id")
        if version and found_version and version != found_version:
            raise CommandFailure(
                "bundle-version-mismatch",
                f"The bundle {self.name} is not the one of this revision: {self._server_and_way} was asked for the version"
                f" {version}, and sends {found_version}. Check that server, and caches and proxies in front of it.",
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

    def _renews_credentials(self, refusal: Refusal) -> bool:
        """Whether S3 takes these credentials no more, and others were not tried yet."""
        if refusal.code not in _EXPIRED_CODES or self._was_renewed:
            return False
        self._was_renewed = True
        self._sources.renew_credentials()
        log.info("bundle_credentials_renewed", reason=refusal.code, source=self._sources.credentials_source)
        return True

    def _log_clock_wrong(self, ahead: timedelta) -> None:
        behind_s = round(ahead.total_seconds())
        log.warning("clock_of_host_wrong", behind_s=behind_s, according_to=self._endpoint)

    def _failure(self, refusal: Refusal, start: int) -> Exception:
        """What this refusal means for the command."""
        if refusal.status in {_PRECONDITION_FAILED, _RANGE_NOT_SATISFIABLE} and start:
            return StartAnew(
                f"the object was replaced in the middle of the transfer ({self._server} answers {refusal})",
                Trouble.REPLACED,
            )
        if refusal.is_throttling:
            return TryAgain(
                f"{self._server} asks for fewer requests: {refusal}",
                Trouble.THROTTLED,
                wait_s=refusal.retry_after_s,
            )
        if refusal.is_passing:
            return TryAgain(
                f"{self._server} answers {refusal}", Trouble.SERVER_ERROR, wait_s=refusal.retry_after_s
            )
        return self._final_failure(refusal)

    def _final_failure(self, refusal: Refusal) -> CommandFailure:
        """A refusal that stays one however often it is asked for."""
        if refusal.code in _EXPIRED_CODES:
            return self._credentials_expired(refusal)
        if refusal.code in _ARCHIVED_CODES:
            return self._archived(refusal)
        if refusal.code in _REGION_CODES:
            return CommandFailure(
                "bundle-wrong-region",
                f"The bundle {self.name} could not be downloaded: {self._server_and_way} answers {refusal}."
                f" The bucket is in {refusal.region or 'another region'}, and requests are signed for {self._region}."
                " Check s3_endpoint_override, or copy the bundle to a bucket of this region.",
            )
        if refusal.status == 404 or refusal.code in _MISSING_CODES:
            return CommandFailure(
                "bundle-not-found",
                f"There is no bundle {self.name}: {self._server_and_way} answers {refusal}."
                " Check bucket, key and version of the revision, and whether a lifecycle rule removed it.",
            )
        if refusal.status in {401, 403}:
            return self._access_denied(refusal)
        return CommandFailure(
            "bundle-s3-refused",
            f"The bundle {self.name} could not be downloaded: {self._server_and_way} answers {refusal}.",
        )

    def _access_denied(self, refusal: Refusal) -> CommandFailure:
        permission = "s3:GetObject" if self._revision.version is None else "s3:GetObjectVersion"
        arn = f"arn:{_partition(self._region)}:s3:::{self._revision.bucket}/{self._revision.key}"
        advice = _ADVICE.get(
            refusal.code,
            f"It needs {permission} on {arn}, and kms:Decrypt if the object is encrypted with a KMS key."
            " Without s3:ListBucket, a missing object looks like this, too.",
        )
        if not refusal.is_of_s3:
            advice = f"It does not answer as S3 does: a proxy or firewall on the way may have refused it. If not: {advice}"
        return CommandFailure(
            "bundle-access-denied",
            f"The bundle {self.name} could not be downloaded: {self._server_and_way} answers {refusal}"
            f" to {self._key}. {advice}",
        )

    @property
    def _key(self) -> str:
        return f"the access key {self._credentials.access_key_id if self._credentials else 'of this host'}"

    def _credentials_expired(self, refusal: Refusal) -> CommandFailure:
        return CommandFailure(
            "bundle-credentials-expired",
            f"The bundle {self.name} could not be downloaded: {self._server_and_way} answers {refusal} to {self._key}, which"
            f" is from {self._sources.credentials_source}. The credentials were asked for anew once, and what came was"
            " refused as well. Whatever renews them does not do so any more: for a credentials file, that is the"
            " process which writes it; for a role, the metadata service. Check it, and the clock (`date -u`), renew"
            " the credentials, and deploy again.",
        )

    def _archived(self, refusal: Refusal) -> CommandFailure:
        bucket, key = shlex.quote(self._revision.bucket), shlex.quote(self._revision.key)
        where = f" (storage class {refusal.storage_class})" if refusal.storage_class else ""
        version = f" --version-id {shlex.quote(self._revision.version)}" if self._revision.version else ""
        return CommandFailure(
            "bundle-archived",
            f"The bundle {self.name} is archived{where} and can't be read as it is: {self._server_and_way} answers {refusal}."
            f" Restore it first (`aws s3api restore-object --bucket {bucket} --key {key}{version} --restore-request"
            " Days=1`), wait until it can be read, and deploy again.",
        )


def _partition(region: str) -> str:
    prefixes = {"cn-": "aws-cn", "us-gov-": "aws-us-gov", "eusc-": "aws-eusc"}
    return next((name for prefix, name in prefixes.items() if region.startswith(prefix)), "aws")
