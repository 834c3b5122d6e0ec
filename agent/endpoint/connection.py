"""One kept-alive HTTP connection to the control endpoint.

On the standard library's http.client: the daemon holds this for life, and urllib3 or requests would
add a third to its memory at rest.
"""

from __future__ import annotations

import http.client
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent.certificates import trusted_cas
from agent.endpoint.opening import STEP_TIMEOUT_S, open_socket
from agent.endpoint.proxy import parse_proxy
from agent.endpoint.reasons import proxy_refusal, unavailable, went_through
from agent.endpoint.waiting import WaitingSocket, wait_readable
from agent.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from agent.certificates import TrustedCAs
    from agent.endpoint.waiting import Wait
    from agent.errors import EndpointUnavailable

_MAX_ANSWER_BYTES = 1 << 20
# Less than what firewalls and address translators forget silently, after which no answer would come.
_MAX_IDLE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A whole answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


def tls_context(environment: Mapping[str, str]) -> ssl.SSLContext:
    """What servers are trusted: see `trusted_cas`.

    Raises:
        ConfigurationError: what the environment names can't be used.
    """
    trusted = trusted_cas(environment)
    if trusted is None:
        return ssl.create_default_context()
    path, variable = trusted
    if variable in {"AWS_SSL_CA_DIRECTORY", "SSL_CERT_DIR"} and not path.is_dir():
        raise _unusable_ca(f"{variable} {path} is not a directory")
    if path.is_dir():
        return ssl.create_default_context(capath=path)
    try:
        return ssl.create_default_context(cafile=path)
    except ssl.SSLError as error:
        raise _unusable_ca(f"{variable} {path} holds no certificates in PEM form ({error.reason})") from error
    except OSError as error:
        raise _unusable_ca(f"{variable} {path} can't be read: {error.strerror or error}") from error


def _unusable_ca(why: str) -> ConfigurationError:
    return ConfigurationError("The environment of the agent", [Problem(message=f"{why.lstrip()}.")])


class Connection:
    """Posts to one address, over one connection that is opened when it is needed."""

    def __init__(
        self,
        url: str,
        *,
        read_timeout_s: float,
        proxy: str | None = None,
        proxy_set_by: str = "the agent's configuration",
        tls: ssl.SSLContext | None = None,
        cas: TrustedCAs | None = None,
        wait: Wait = wait_readable,
        max_idle_s: float = _MAX_IDLE_S,
    ) -> None:
        """Make a connection, which is not open yet.

        Args:
            url: where to post to.
            read_timeout_s: for how long an answer is awaited.
            proxy: address of the proxy on the way; None = there is none.
            proxy_set_by: where that was found, in words.
            tls: for https.
            cas: what `tls` was made from, for messages.
            wait: all waiting is done by it.
            max_idle_s: a connection that nothing has come over for longer is not used again, as after a hook that
                took its time: it may have been forgotten on the way, where nobody says so.

        Raises:
            ConfigurationError: `proxy` is no address of a proxy.
        """
        self.url = url
        self._address = urlsplit(url)
        self._proxy = parse_proxy(proxy, proxy_set_by) if proxy else None
        self._read_timeout_s = read_timeout_s
        self._tls = tls
        self._cas = cas
        self._wait = wait
        self._max_idle_s = max_idle_s
        self._used_at = 0.0
        self._http: http.client.HTTPConnection | None = None

    @property
    def went_through(self) -> str:
        """The sentence that names the proxy, to be put behind another one; empty without a proxy."""
        return went_through(self._proxy)

    def post(self, headers: Mapping[str, str], body: bytes) -> Response:
        """Send one request and return the whole answer, whatever its status.

        Raises:
            EndpointUnavailable: no answer could be had.
        """
        if time.monotonic() > self._used_at + self._max_idle_s:
            self.close()
        reused = self._http is not None
        try:
            return self._exchange(headers, body)
        except (ConnectionError, http.client.RemoteDisconnected, ssl.SSLEOFError) as error:
            self.close()
            if not reused:
                raise self._unavailable(error) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unavailable(error) from error
        except BaseException:
            # The answer to an abandoned request must not be taken for that to the next one.
            self.close()
            raise
        # The server had closed the kept connection; that says nothing about a new one.
        try:
            return self._exchange(headers, body)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unavailable(error) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Afterwards no connection is open; the next request opens one."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def _unavailable(self, error: BaseException) -> EndpointUnavailable:
        return unavailable(self.url, error, proxy=self._proxy, cas=self._cas)

    def _exchange(self, headers: Mapping[str, str], body: bytes) -> Response:
        if self._http is None:
            self._http = self._connect()
        connection = self._http
        sock = connection.sock
        sock.settimeout(STEP_TIMEOUT_S)
        connection.request("POST", self._target, body=body, headers={**headers, **self._for_proxy})
        sock.setblocking(False)
        with connection.getresponse() as answer:
            try:
                content = answer.read(_MAX_ANSWER_BYTES + 1)
            except ValueError as error:
                # What http.client makes of a chunk whose length is negative.
                raise http.client.HTTPException(str(error)) from error
        if len(content) > _MAX_ANSWER_BYTES:
            raise http.client.HTTPException(f"the answer is longer than {_MAX_ANSWER_BYTES} bytes")
        if answer.length:
            # http.client says nothing when an answer that is read in pieces ends before its announced length.
            raise http.client.IncompleteRead(content, answer.length)
        self._used_at = time.monotonic()
        if answer.will_close:
            self.close()
        if self._proxy and answer.status == http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            # Only a proxy answers with that, whoever it says that it is.
            raise proxy_refusal(self._proxy, self.url, answer.status, answer.reason)
        return Response(status=answer.status, headers=answer.headers, body=content)

    @property
    def _is_plain_proxied(self) -> bool:
        return self._proxy is not None and self._address.scheme == "http"

    @property
    def _target(self) -> str:
        # A proxy for plain http is asked for the whole address.
        return f"{self.url}/" if self._is_plain_proxied else f"{self._address.path.rstrip('/')}/"

    @property
    def _for_proxy(self) -> Mapping[str, str]:
        # Through a tunnel, the server would get them.
        return self._proxy.authorization if self._proxy and self._is_plain_proxied else {}

    def _connect(self) -> http.client.HTTPConnection:
        """Open a connection, through the proxy if there is one."""
        host = self._address.hostname or ""
        is_encrypted = self._address.scheme == "https"
        port = self._address.port or (443 if is_encrypted else 80)
        tls = (self._tls or ssl.create_default_context()) if is_encrypted else None
        connection = http.client.HTTPConnection(host, port)
        connection.sock = open_socket(host, port, tls=tls, proxy=self._proxy, wait=self._wait)
        connection.response_class = self._response  # type: ignore[assignment]
        return connection

    def _response(self, sock: socket.socket, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:
        waiting = WaitingSocket(sock, self._wait, time.monotonic() + self._read_timeout_s)
        return http.client.HTTPResponse(waiting, *args, **kwargs)  # type: ignore[arg-type]
