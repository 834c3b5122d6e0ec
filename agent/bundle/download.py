"""A bundle over HTTP onto the disk: streamed, resumed where it broke off, tried again within bounds."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import ssl
import time
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import requests
import tenacity
import urllib3
from requests.utils import get_environ_proxies, should_bypass_proxies

from agent.bundle.failures import disk_full, not_written
from agent.errors import CommandFailure
from agent.files import write_all
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.bundle.sources import BundleSources

log = get_logger()

_PIECE_BYTES = 256 * 1024
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class TryAgain(Exception):
    """This attempt came to nothing, but another one may succeed; the message is a clause for people."""


class StartAnew(TryAgain):
    """The same, and what has arrived is of no use any more."""


class Remote(Protocol):
    """A bundle that can be asked for over HTTP."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    def open(self, session: Session, *, start: int, etag: str | None) -> requests.Response:
        """An answer with the bundle: 206 = from byte `start` on, 200 = all of it; its body isn't read yet.

        Args:
            session: to ask with.
            start: how many bytes are there already.
            etag: the (quoted) ETag of those; None = start anew.

        Raises:
            TryAgain: nothing wrong with the request.
            StartAnew: the bundle is another one by now.
            CommandFailure: no use in trying again.
        """


class Session(requests.Session):
    """Uses no environment but the proxies', and no request is without timeouts.

    `.netrc` would replace our Authorization, and REQUESTS_CA_BUNDLE our CAs.
    """

    def __init__(self, sources: BundleSources) -> None:
        super().__init__()
        self.trust_env = False
        # An object with Content-Encoding must arrive as it is stored.
        self.headers.update({"Accept-Encoding": "identity", "User-Agent": "codedeploy-host-agent"})
        self._ca_path = (
            requests.utils.DEFAULT_CA_BUNDLE_PATH if sources.ca_path is None else str(sources.ca_path)
        )
        self._proxy_uri = sources.proxy_uri
        self._timeouts = (sources.patience.connect_timeout_s, sources.patience.stall_timeout_s)

    def get_streamed(self, url: str, headers: dict[str, str]) -> requests.Response:
        """The answer, with its body unread, and redirects left to the caller.

        Raises:
            TryAgain: there is none.
            CommandFailure: `bundle-certificate-untrusted`, `bundle-address-invalid`.
        """
        self._check_certificates(url)
        with translated_errors(urlsplit(url).netloc):
            request = self.prepare_request(requests.Request("GET", url, headers))
            request.url = url  # as it was signed: keys in S3 may hold `..` and `//`
            return self.send(
                request,
                stream=True,
                allow_redirects=False,
                verify=self._ca_path,
                proxies=self._proxies(url),
                timeout=self._timeouts,
            )

    def _check_certificates(self, url: str) -> None:
        if url.startswith("https:") and not os.path.exists(self._ca_path):
            raise CommandFailure(
                "bundle-certificate-untrusted",
                f"The server of {urlsplit(url).netloc} can't be trusted, because the CA certificates of this host are not"
                f" there: {self._ca_path}. Install the package ca-certificates, or name the CAs in AWS_CA_BUNDLE, and"
                " restart the agent.",
            )

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002 - the parent's
        """None, always: else requests reads the body of a redirect, and follows it with our headers."""
        return None

    def _proxies(self, url: str) -> dict[str, str]:
        if self._proxy_uri is None:
            return dict(get_environ_proxies(url))
        if should_bypass_proxies(url, no_proxy=None):
            return {}
        return {"http": self._proxy_uri, "https": self._proxy_uri}


class Download:
    """One bundle's way to the disk, over as many attempts as it takes.

    Attributes:
        size_bytes: received so far.
        etag: as the server sent it, quotes included.
    """

    def __init__(self, remote: Remote, sources: BundleSources, descriptor: int) -> None:
        self.size_bytes = 0
        self.etag: str | None = None
        self._remote = remote
        self._sources = sources
        self._descriptor = descriptor
        self._sha256 = hashlib.sha256()
        self._total: int | None = None
        self._most = 0  # bytes that any attempt got to
        self._fruitless = 0  # attempts in a row that did not get further

    @property
    def sha256(self) -> str:
        """Of what was received so far, in hexadecimal."""
        return self._sha256.hexdigest()

    def run(self) -> None:
        """Afterwards the bundle is in the file, whole.

        Raises:
            CommandFailure: `bundle-download-failed` when patience is at its end, or what the remote raises.
        """
        began = time.monotonic()
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TryAgain),
            stop=self._is_given_up,
            wait=self._wait_s,
            before_sleep=self._report_attempt,
            reraise=True,
        )
        try:
            with Session(self._sources) as session:
                attempts(self._attempt, session)
        except TryAgain as error:
            raise self._failure(error, attempts, time.monotonic() - began) from error

    def _attempt(self, session: Session) -> None:
        try:
            # Without an ETag nobody knows whether the rest belongs to the same bundle.
            if self.etag is None:
                self._start_anew()
            with self._remote.open(session, start=self.size_bytes, etag=self.etag) as response:
                self._accept(response)
                self._receive(response)
        except StartAnew:
            self.etag = None
            raise
        finally:
            self._fruitless = 0 if self.size_bytes > self._most else self._fruitless + 1
            self._most = max(self._most, self.size_bytes)

    def _accept(self, response: requests.Response) -> None:
        """Make this answer's body what comes next in the file."""
        found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if response.status_code == requests.codes.partial_content:
            if found is None or int(found[1]) != self.size_bytes:
                raise StartAnew("the server sent another range than it was asked for")
            return
        self._start_anew()
        self.etag = response.headers.get("ETag")
        length = response.headers.get("Content-Length", "")
        self._total = int(length) if length.isdigit() else None
        self._check_room()

    def _start_anew(self) -> None:
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._sha256 = hashlib.sha256()
        self.size_bytes = 0

    def _receive(self, response: requests.Response) -> None:
        while True:
            with translated_errors(self._remote.name):
                piece = response.raw.read(_PIECE_BYTES, decode_content=False)
            if not piece:
                break
            write_all(self._descriptor, piece)
            self._sha256.update(piece)
            self.size_bytes += len(piece)
        if self._total is not None and self.size_bytes != self._total:
            raise TryAgain(f"the transfer ended after {self.size_bytes} of {self._total} bytes")

    def _check_room(self) -> None:
        room = os.fstatvfs(self._descriptor)
        free = room.f_bavail * room.f_frsize
        if self._total is not None and self._total > free:
            raise disk_full(
                f"the bundle {self._remote.name}", f"{self._total} bytes are", f"{free} bytes are"
            )

    def _is_given_up(self, state: tenacity.RetryCallState) -> bool:
        patience = self._sources.patience
        return self._fruitless >= patience.attempts or state.attempt_number >= patience.all_attempts

    def _wait_s(self, state: tenacity.RetryCallState) -> float:
        """Any time up to a bound that doubles while nothing gets better, so that hosts don't come in step."""
        patience = self._sources.patience
        bound = patience.first_wait_s * 2 ** max(0, self._fruitless - 1)
        return tenacity.wait_random(0, min(bound, patience.longest_wait_s))(state)

    def _report_attempt(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning(
            "bundle_download_interrupted",
            source=self._remote.name,
            reason=str(error),
            attempt=state.attempt_number,
            received_bytes=self.size_bytes,
            total_bytes=self._total,
            retry_in_s=round(state.upcoming_sleep, 2),
        )

    def _failure(self, error: TryAgain, attempts: tenacity.Retrying, elapsed_s: float) -> CommandFailure:
        number = attempts.statistics.get("attempt_number", 1)
        total = "an unknown number of" if self._total is None else str(self._total)
        through = (
            f" through the proxy {_without_password(self._sources.proxy_uri)}"
            if self._sources.proxy_uri
            else ""
        )
        return CommandFailure(
            "bundle-download-failed",
            f"The bundle {self._remote.name} could not be downloaded{through}: {error}. {self.size_bytes} of {total}"
            f" bytes had arrived after {number} attempts in {elapsed_s:.0f} s."
            " Check route, proxy and DNS of this host, and deploy again.",
        )


def download(remote: Remote, destination: Path, sources: BundleSources) -> Download:
    """Afterwards `destination` is the bundle; until then it is what it was before.

    Raises:
        CommandFailure: the download failed, or the disk is full.
    """
    beside = destination.with_name(f".{destination.name}.part")
    try:
        descriptor = os.open(
            beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
        )
        try:
            result = Download(remote, sources, descriptor)
            result.run()
            os.rename(beside, destination)
        finally:
            os.close(descriptor)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)
    except OSError as error:
        raise not_written(destination, error) from error
    return result


@contextlib.contextmanager
def translated_errors(where: str) -> Iterator[None]:
    """What requests and urllib3 raise, as a decision: try again, or fail.

    Raises:
        TryAgain: it may go better the next time.
        CommandFailure: `bundle-certificate-untrusted`, `bundle-address-invalid`.
    """
    try:
        yield
    except (
        requests.exceptions.InvalidURL,
        requests.exceptions.MissingSchema,
        requests.exceptions.InvalidSchema,
    ) as error:
        raise CommandFailure(
            "bundle-address-invalid",
            f"{where} can't be asked for a bundle: {_shown(error)}. Check s3_endpoint_override, github_api_endpoint and"
            " proxy_uri in the agent's configuration.",
        ) from error
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        untrusted = _certificate_error(error)
        if untrusted is None:
            raise TryAgain(_reason(error)) from error
        raise CommandFailure(
            "bundle-certificate-untrusted",
            f"The server of {where} shows a certificate that this host doesn't trust:"
            f" {untrusted.verify_message}. If a proxy or a server of your own is in between, name its CA in"
            " AWS_CA_BUNDLE, and restart the agent.",
        ) from error


def _certificate_error(error: BaseException) -> ssl.SSLCertVerificationError | None:
    """The real reason, which requests and urllib3 wrap several times."""
    reasons: list[BaseException] = [error]
    while reasons:
        reason = reasons.pop()
        if isinstance(reason, ssl.SSLCertVerificationError):
            return reason
        inner = [*reason.args, getattr(reason, "reason", None)]
        reasons.extend(each for each in inner if isinstance(each, BaseException))
    return None


def _reason(error: Exception) -> str:
    match error:
        case requests.exceptions.ProxyError():
            return "the proxy can't be reached or refuses the connection"
        case requests.exceptions.ConnectTimeout():
            return "no connection within the time allowed"
        case requests.exceptions.ReadTimeout() | urllib3.exceptions.ReadTimeoutError():
            return "no data came for too long"
        case requests.exceptions.ConnectionError():
            return f"no connection ({_innermost(error)})"
        case _:
            return f"the transfer broke off ({_innermost(error)})"


def _innermost(error: BaseException) -> str:
    while error.__context__ is not None:
        error = error.__context__
    return _shown(error)


def _shown(error: BaseException) -> str:
    """Its text without the queries of addresses, in which GitHub puts tokens."""
    return re.sub(r"\?[^\s'\")]+", "?...", str(error)) or type(error).__name__


def _without_password(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", uri)
