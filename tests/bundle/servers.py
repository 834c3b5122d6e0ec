"""HTTP and HTTPS servers on loopback that answer as a test says, and remember what they were asked."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass(frozen=True)
class Request:
    """One request as it came; `number` counts from 1."""

    number: int
    path: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Answer:
    """What to send: the body ends early after `cut_at` bytes, and the connection with it.

    A header that is None is left out, also one that would be there by itself.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str | None] = field(default_factory=dict)
    cut_at: int | None = None


def chunked(body: bytes, *, last: bytes = b"0\r\n\r\n") -> bytes:
    """The body as `Transfer-Encoding: chunked` has it, in chunks of 64 KiB."""
    pieces = (body[at : at + 65536] for at in range(0, len(body), 65536))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + last


def s3_error(status: int, code: str, message: str = "", more: str = "", **headers: str) -> Answer:
    """An error as S3 writes it; underscores in header names stand for hyphens, `more` is further XML."""
    body = (
        f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message>'
        f"<RequestId>REQ1</RequestId>{more}</Error>"
    )
    return Answer(status, body.encode(), {name.replace("_", "-"): value for name, value in headers.items()})


class Server:
    """`answer` decides about each request; `requests` are those that came."""

    def __init__(self, answer: Callable[[Request], Answer], tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        if tls is not None:
            self._http.socket = tls.wrap_socket(
                self._http.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self._http.server_address[1]
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}"

    def _handler(server) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler's
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def do_CONNECT(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                with server._lock:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    request = Request(len(server.requests) + 1, self.path, headers)
                    server.requests.append(request)
                    answer = server.answer(request)
                self.send_response_only(answer.status)
                for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                    if value is not None:
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body[: answer.cut_at])
                if answer.cut_at is not None:
                    self.close_connection = True

        return Handler

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            thread.join()
            self._http.server_close()


@dataclass(frozen=True)
class Authority:
    """A throw-away CA: its certificate's file, and a server context for 127.0.0.1."""

    ca_file: Path
    context: ssl.SSLContext


def make_authority(directory: Path) -> Authority:
    """A CA and a server certificate signed by it."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("Test CA", ca_key, "Test CA", ca_key, is_ca=True)
    leaf = _certificate("127.0.0.1", key, "Test CA", ca_key, is_ca=False)
    ca_file, server_file = directory / "test-ca.pem", directory / "test-server.pem"
    ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    server_file.write_bytes(
        leaf.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server_file)
    return Authority(ca_file, context)


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    is_ca: bool,
) -> x509.Certificate:
    now = dt.datetime.now(dt.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    if not is_ca:
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
