"""A bundle in S3: its address, the signed request, and what S3's refusals mean."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from agent.bundle.digests import Announced, s3_digests
from agent.bundle.s3_failures import EXPIRED_CODES, REGION_CODES, Asked, final_failure
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
_CLOCK_CODES = frozenset(["RequestTimeTooSkewed", "RequestExpired", "SignatureDoesNotMatch"])
_MAX_CLOCK_CORRECTIONS = 3  # a clock that is set right meanwhile needs a second one
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
            if self._credentials is not None:
                # They have expired in the middle of the transfer, while the metadata service, say, does not answer.
                why = f"this host has no credentials any more: {error.message.rstrip('.')}"
                raise TryAgain(why, Trouble.NO_CREDENTIALS) from error
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
        if refusal.code not in REGION_CODES or self._has_moved or endpoint is None or not is_region:
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
        if refusal.code not in EXPIRED_CODES or self._was_renewed:
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
            # Without S3's words it may be the answer of whatever stands in between.
            doubt = "" if refusal.is_of_s3 else ", and not in the words of S3"
            return TryAgain(
                f"{self._server} answers {refusal}{doubt}", Trouble.SERVER_ERROR, wait_s=refusal.retry_after_s
            )
        return final_failure(
            refusal,
            Asked(
                name=self.name,
                revision=self._revision,
                server=self._server_and_way,
                region=self._region,
                access_key_id=self._credentials.access_key_id if self._credentials else "",
                credentials_source=self._sources.credentials_source,
            ),
        )
