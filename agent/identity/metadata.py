"""The instance metadata service of EC2: version 2 first, never through a proxy."""

from __future__ import annotations

import http.client
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent.errors import ConfigurationError, IdentityError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_ON_PREMISES_FILE = Path("/etc/codedeploy-agent/conf/codedeploy.onpremises.yml")
IPV4_ENDPOINT = "http://169.254.169.254"
IPV6_ENDPOINT = "http://[fd00:ec2::254]"

_TOKEN_LIFETIME_S = 21_600
_LONGEST_ANSWER = 65_536
# The service is on this host's own link: what takes longer than this is not there.
_TIMEOUT_S = 1.0
_PAUSES_S = (0.2, 0.8)
# Where version 2 does not answer, each attempt takes its time: not before every request of version 1.
_WITHOUT_TOKEN_S = 300.0
_TOKEN = re.compile(r"[!-~]+")


class MetadataAbsent(IdentityError):
    """The service is there, but has nothing under this path."""

    error_id = "metadata-absent"


def metadata_endpoint(environ: Mapping[str, str]) -> str:
    """URL of the service: the well-known address, unless the environment names another.

    Raises:
        ConfigurationError: what it names is no URL of a metadata service.
    """
    url = environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "")
    mode = environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "") or "IPv4"
    problems = []
    if mode.lower() not in {"ipv4", "ipv6"}:
        problems.append(
            Problem(message=f'AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE is "{mode}", but must be IPv4 or IPv6.')
        )
    if url and not _is_usable(url):
        problems.append(
            Problem(
                message=f'AWS_EC2_METADATA_SERVICE_ENDPOINT is "{url}", but must be a URL such as {IPV4_ENDPOINT}.'
            )
        )
    if problems:
        raise ConfigurationError("The environment of the agent", problems)
    return url.rstrip("/") or (IPV6_ENDPOINT if mode.lower() == "ipv6" else IPV4_ENDPOINT)


def _is_usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


class InstanceMetadata:
    """A client that keeps its token, and asks for a new one when the service wants that.

    `version` is 1 or 2 once there was an answer, and 0 before.
    """

    def __init__(
        self,
        *,
        endpoint: str = IPV4_ENDPOINT,
        disable_v1: bool = False,
        on_premises_file: Path = DEFAULT_ON_PREMISES_FILE,
        timeout_s: float = _TIMEOUT_S,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Make a client.

        Args:
            endpoint: URL of the service.
            disable_v1: never ask without a token.
            on_premises_file: what a host that is not on EC2 has instead of the service; for messages.
            timeout_s: of one attempt.
            monotonic: a clock.
            sleep: waits before another attempt.
        """
        parts = urlsplit(endpoint)
        self.advice_elsewhere = f"If this host is not on EC2, write the on-premises file {on_premises_file}."
        self.endpoint = endpoint
        self.version = 0
        self._host = parts.hostname or ""
        self._port = parts.port or 80
        self._prefix = parts.path.rstrip("/")
        self._disable_v1 = disable_v1
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._sleep = sleep
        self._token = ""
        self._ask_for_token_at = 0.0

    def text(self, path: str) -> str:
        """What stands under this path, without white space around it.

        Raises:
            MetadataAbsent: nothing stands there.
            IdentityError: no answer, or one that makes no sense.
        """
        status, body = self._get(path)
        if status == http.HTTPStatus.UNAUTHORIZED:  # the token has been thrown away on the other side
            self._ask_for_token_at = 0.0
            status, body = self._get(path)
        if status == http.HTTPStatus.NOT_FOUND:
            raise MetadataAbsent(f"The metadata service at {self.endpoint} has nothing under {path}.")
        if status != http.HTTPStatus.OK:
            raise IdentityError(
                f"The metadata service at {self.endpoint} answers {path} with HTTP {status}. {self._hint(status)}"
            )
        return body.decode("utf-8", "replace").strip()

    def members(self, path: str) -> dict[str, Any]:
        """The JSON object that stands under this path.

        Raises:
            MetadataAbsent: nothing stands there.
            IdentityError: no answer, or one that makes no sense.
        """
        text = self.text(path)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            return value
        raise IdentityError(
            f"The metadata service at {self.endpoint} answers {path} with something else than a JSON object, "
            f"which starts with {text[:40]!r}. This is not the metadata service of EC2. {self.advice_elsewhere}"
        )

    def _get(self, path: str) -> tuple[int, bytes]:
        headers = self._token_headers()
        status, body = self._request("GET", path, headers)
        if status == http.HTTPStatus.OK:
            self.version = 2 if headers else 1
        return status, body

    def _token_headers(self) -> dict[str, str]:
        """Empty when the service knows version 1 only, and we may use that."""
        if self._monotonic() >= self._ask_for_token_at:
            self._token = ""
            self._token = self._fetch_token()
            lifetime_s = _TOKEN_LIFETIME_S * 0.9 if self._token else _WITHOUT_TOKEN_S
            self._ask_for_token_at = self._monotonic() + lifetime_s
        return {"X-aws-ec2-metadata-token": self._token} if self._token else {}

    def _fetch_token(self) -> str:
        """Empty when there is none, and we may go on without."""
        try:
            status, body = self._request(
                "PUT",
                "/latest/api/token",
                {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_LIFETIME_S), "Content-Length": "0"},
            )
        except IdentityError:
            # In a container, the answer to PUT may not come through (hop limit), while GET works.
            if self._disable_v1:
                raise
            return ""
        token = body.decode("latin-1").strip()
        if status == http.HTTPStatus.OK and _TOKEN.fullmatch(token):
            return token
        if self._disable_v1:
            raise IdentityError(
                f"The metadata service at {self.endpoint} gives no token (HTTP {status}), and version 1 of it "
                f"is switched off by disable_imds_v1. {self._hint(status)}"
            )
        return ""

    def _request(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        """Status and body; a lost connection and a fault of the server are tried again."""
        for pause_s in _PAUSES_S:
            try:
                status, body = self._request_once(method, path, headers)
            except (OSError, http.client.HTTPException):
                pass
            else:
                if status < http.HTTPStatus.INTERNAL_SERVER_ERROR:
                    return status, body
            self._sleep(pause_s)
        try:
            return self._request_once(method, path, headers)
        except (OSError, http.client.HTTPException) as error:
            raise IdentityError(
                f"The metadata service at {self.endpoint} can't be reached ({_reason(error)}). "
                "If this host is on EC2, check that its metadata service is switched on and not blocked. "
                f"{self.advice_elsewhere}"
            ) from error

    def _request_once(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        try:
            connection.request(method, self._prefix + path, headers=headers)
            response = connection.getresponse()
            body = response.read(_LONGEST_ANSWER)
        except ValueError as error:
            # What the library makes of names such as `a..b`, and of a chunk whose length is negative.
            raise http.client.HTTPException(str(error)) from error
        finally:
            connection.close()
        if response.length and len(body) < _LONGEST_ANSWER:
            # Half of a name would be taken for the whole one.
            raise http.client.IncompleteRead(body, response.length)
        return response.status, body

    def _hint(self, status: int) -> str:
        if status == http.HTTPStatus.FORBIDDEN:
            on_ec2 = "If this host is on EC2, switch the service on in the metadata options of the instance."
            return f"{on_ec2} {self.advice_elsewhere}"
        if status == http.HTTPStatus.UNAUTHORIZED and not self._token:
            return (
                "It wants a token but gave none: in a container, raise the hop limit in the metadata options "
                f"of the instance. {self.advice_elsewhere}"
            )
        return self.advice_elsewhere


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return "its answer broke off"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
