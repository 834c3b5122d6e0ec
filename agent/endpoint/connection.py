"""One kept-alive HTTP connection to the control endpoint.

On the standard library's http.client: the daemon holds this for life, and urllib3 or requests would
add a third to its memory at rest. Responses are awaited through a function that the caller passes,
so that a long poll does not keep the daemon from anything else.
"""

from __future__ import annotations

import http.client
import io
import select
import socket
import ssl
import time
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from agent.certificates import trusted_cas
from agent.errors import ConfigurationError, EndpointUnavailable, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    # Returns when the socket can be read, or raises TimeoutError after that many seconds.
    Wait = Callable[[socket.socket, float], None]

_CONNECT_TIMEOUT_S = 10.0
_MAX_ANSWER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A whole answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


def wait_readable(sock: socket.socket, timeout_s: float) -> None:
    """Wait for this socket and nothing else."""
    if not select.select([sock], [], [], timeout_s)[0]:
        raise TimeoutError("timed out")


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
        tls: ssl.SSLContext | None = None,
        wait: Wait = wait_readable,
    ) -> None:
        self.url = url
        self._address = urlsplit(url)
        self._proxy = urlsplit(proxy) if proxy else None
        self._read_timeout_s = read_timeout_s
        self._tls = tls
        self._wait = wait
        self._http: http.client.HTTPConnection | None = None

    def post(self, headers: Mapping[str, str], body: bytes) -> Response:
        """Send one request to `/` and return the whole answer, whatever its status.

        Raises:
            EndpointUnavailable: no answer could be had.
        """
        reused = self._http is not None
        try:
            return self._exchange(headers, body)
        except (ConnectionError, http.client.RemoteDisconnected, ssl.SSLEOFError) as error:
            self.close()
            if not reused:
                raise _unavailable(self.url, error) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise _unavailable(self.url, error) from error
        except BaseException:
            # The answer to an abandoned request must not be taken for that to the next one.
            self.close()
            raise
        # The server had closed the kept connection; that says nothing about a new one.
        try:
            return self._exchange(headers, body)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise _unavailable(self.url, error) from error

    def close(self) -> None:
        """Afterwards no connection is open; the next request opens one."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def _exchange(self, headers: Mapping[str, str], body: bytes) -> Response:
        if self._http is None:
            self._http = self._connect()
        connection = self._http
        sock = connection.sock
        sock.settimeout(_CONNECT_TIMEOUT_S)
        connection.request("POST", self._target, body=body, headers=self._with_proxy(headers))
        sock.setblocking(False)
        with connection.getresponse() as answer:
            content = answer.read(_MAX_ANSWER_BYTES + 1)
        if len(content) > _MAX_ANSWER_BYTES:
            raise http.client.HTTPException(f"the answer is longer than {_MAX_ANSWER_BYTES} bytes")
        if answer.will_close:
            self.close()
        return Response(status=answer.status, headers=answer.headers, body=content)

    @property
    def _is_plain_proxied(self) -> bool:
        return self._proxy is not None and self._address.scheme == "http"

    @property
    def _target(self) -> str:
        # A proxy for plain http is asked for the whole address.
        return f"{self.url}/" if self._is_plain_proxied else "/"

    def _with_proxy(self, headers: Mapping[str, str]) -> dict[str, str]:
        if self._proxy is None or not self._is_plain_proxied:
            return dict(headers)
        return {**headers, **_proxy_authorization(self._proxy.username, self._proxy.password)}

    def _connect(self) -> http.client.HTTPConnection:
        """Open a connection, through the proxy if there is one."""
        first_hop = self._proxy or self._address
        host, port = first_hop.hostname or "", first_hop.port
        timeout = _CONNECT_TIMEOUT_S
        connection: http.client.HTTPConnection
        if self._address.scheme == "https":
            connection = http.client.HTTPSConnection(host, port or 443, timeout=timeout, context=self._tls)
            if self._proxy:
                connection = http.client.HTTPSConnection(
                    host, port or 3128, timeout=timeout, context=self._tls
                )
                authorization = _proxy_authorization(self._proxy.username, self._proxy.password)
                connection.set_tunnel(self._address.hostname or "", self._address.port or 443, authorization)
        else:
            connection = http.client.HTTPConnection(host, port or 80, timeout=timeout)
        connection.response_class = self._response  # type: ignore[assignment]
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection

    def _response(self, sock: socket.socket, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:
        if sock.gettimeout() != 0:
            # The proxy's answer to CONNECT, while the connection is being made.
            return http.client.HTTPResponse(sock, *args, **kwargs)
        waiting = _WaitingSocket(sock, self._wait, time.monotonic() + self._read_timeout_s)
        return http.client.HTTPResponse(waiting, *args, **kwargs)  # type: ignore[arg-type]


def _proxy_authorization(user: str | None, password: str | None) -> dict[str, str]:
    if not user:
        return {}
    token = b64encode(f"{unquote(user)}:{unquote(password or '')}".encode()).decode()
    return {"Proxy-Authorization": f"Basic {token}"}


class _WaitingSocket(io.RawIOBase):
    """Reads a non-blocking socket through the caller's wait."""

    def __init__(self, sock: socket.socket, wait: Wait, deadline: float) -> None:
        self._socket = sock
        # Holding the socket's own file keeps it open for as long as the response is read.
        self._file = sock.makefile("rb", buffering=0)
        self._wait = wait
        self._deadline = deadline

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What HTTPResponse asks of a socket."""
        return io.BufferedReader(self, 65536)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        while True:
            try:
                received = self._file.readinto(buffer)
            except ssl.SSLWantReadError:
                received = None
            if received is not None:
                return received
            self._wait(self._socket, max(0.0, self._deadline - time.monotonic()))

    def close(self) -> None:
        self._file.close()
        super().close()


# What the system or a library says of a failed exchange → why it failed, and what to do. First match.
_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (
        ssl.SSLCertVerificationError,
        "its certificate is not trusted ({0}); name the CA that issued it with AWS_CA_BUNDLE",
    ),
    (ssl.SSLError, "TLS failed ({0}); check that the address speaks TLS and that no proxy interferes"),
    (socket.gaierror, "its name can't be resolved ({0}); check DNS and the region"),
    (ConnectionRefusedError, "nothing listens there ({0}); check address, port and firewall"),
    (TimeoutError, "no answer came in time; check route, security groups, firewall and proxy"),
    (http.client.RemoteDisconnected, "it closed the connection without an answer"),
    (ConnectionError, "the connection broke ({0})"),
    (
        http.client.HTTPException,
        "the answer is not HTTP ({0}); check that no portal or proxy answers instead",
    ),
    (OSError, "{0}; check network and proxy"),
)


def _unavailable(url: str, error: BaseException) -> EndpointUnavailable:
    """The error that this exception stands for."""
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            text = getattr(error, "verify_message", None) or getattr(error, "strerror", None) or str(error)
            return EndpointUnavailable(f"The control endpoint {url} gave no answer: {reason.format(text)}.")
    raise AssertionError(f"{type(error).__name__} is in no row of the table") from error
