"""One connection to the endpoint: kept, replaced when it breaks, awaited without blocking."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import threading
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from scripted_server import Answer, ScriptedServer

from agent.endpoint import Connection, tls_context
from agent.endpoint.connection import _REASONS, _unavailable
from agent.errors import EndpointUnavailable

if TYPE_CHECKING:
    import socket
    from pathlib import Path

pytestmark = pytest.mark.server


def certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.timezone.utc)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = directory / "cert.pem", directory / "key.pem"
    certificate_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate_file, key_file


def connection(url: str, **options: object) -> Connection:
    return Connection(url, **{"read_timeout_s": 10.0, **options})  # type: ignore[arg-type]


def test_requests_share_one_connection(server: ScriptedServer) -> None:
    """A poll a second must not cost a handshake a second."""
    client = connection(server.url)
    bodies = [client.post({"X": "y"}, b"{}").body for _ in range(3)]
    client.close()
    assert ([b"{}"] * 3, 1) == (bodies, server.connections)


def test_a_kept_connection_that_the_server_closed_is_replaced(server: ScriptedServer) -> None:
    """Load balancers close idle connections; that is no failure."""
    server.script.put(Answer(body=b"1", then_close=True))
    server.script.put(Answer(body=b"2"))
    client = connection(server.url)
    bodies = [client.post({}, b"").body for _ in range(2)]
    client.close()
    assert ([b"1", b"2"], 2) == (bodies, server.connections)


def test_a_first_connection_that_breaks_is_reported_and_not_hidden_by_a_second_try(
    server: ScriptedServer,
) -> None:
    """Otherwise a server that resets every request would get twice as many."""
    server.script.put(Answer(raw=b"", then_close=True))
    with pytest.raises(EndpointUnavailable, match="closed the connection without an answer"):
        connection(server.url).post({}, b"")
    assert 1 == len(server.requests)


def test_after_a_failure_the_next_request_works(server: ScriptedServer) -> None:
    """The half-read answer of one request must not be taken for that to the next."""
    server.script.put(Answer(raw=b"nonsense\r\n\r\n"))
    client = connection(server.url)
    with pytest.raises(EndpointUnavailable, match="not HTTP"):
        client.post({}, b"")
    assert b"{}" == client.post({}, b"").body
    client.close()


def test_an_answer_that_does_not_come_is_given_up(server: ScriptedServer) -> None:
    """The read timeout of the settings."""
    hold = threading.Event()
    server.script.put(Answer(hold=hold))
    with pytest.raises(EndpointUnavailable, match="no answer came in time"):
        connection(server.url, read_timeout_s=0.05).post({}, b"")
    hold.set()


def test_an_answer_without_end_is_given_up(server: ScriptedServer) -> None:
    """Nothing that the endpoint says is that long; something else answers."""
    server.script.put(Answer(body=b"x" * (1 << 20) + b"y"))
    with pytest.raises(EndpointUnavailable, match="longer than"):
        connection(server.url).post({}, b"")


class Abandoned(Exception):
    """What the waiting function raises in these tests."""


@pytest.mark.parametrize("encrypted", [False, True], ids=["http", "https"])
def test_a_held_answer_leaves_the_waiting_to_the_caller(tmp_path: Path, *, encrypted: bool) -> None:
    """The daemon must reap workers, feed the watchdog and stop in the middle of a long poll."""
    certificate_file, key_file = certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate_file, key_file)
    calls = []

    def wait(sock: socket.socket, timeout_s: float) -> None:
        calls.append(timeout_s)
        if server.arrived.qsize():
            raise Abandoned

    hold = threading.Event()
    with ScriptedServer(tls if encrypted else None) as server:
        server.script.put(Answer(hold=hold))
        trusted = tls_context({"AWS_CA_BUNDLE": str(certificate_file)})
        client = connection(server.url, wait=wait, tls=trusted)
        with pytest.raises(Abandoned):
            client.post({}, b"")
        hold.set()
        again = connection(server.url, tls=trusted)
        assert b"{}" == again.post({}, b"").body
        again.close()
    assert calls


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_private_cas_are_named_by_the_environment(tmp_path: Path, variable: str) -> None:
    """As with every tool of this field."""
    certificate_file, key_file = certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate_file, key_file)
    with ScriptedServer(tls) as server:
        trusting = connection(server.url, tls=tls_context({variable: str(certificate_file)}))
        assert b"{}" == trusting.post({}, b"").body
        trusting.close()
        with pytest.raises(EndpointUnavailable, match="not trusted .*AWS_CA_BUNDLE"):
            connection(server.url, tls=tls_context({})).post({}, b"")


def test_plain_http_goes_through_a_proxy_that_is_asked_for_the_whole_address(server: ScriptedServer) -> None:
    """With the user and password of the proxy's address."""
    client = connection("http://endpoint.example:8080", proxy=f"http://u:p%40@localhost:{server.port}")
    client.post({}, b"")
    client.close()
    request = server.requests[0]
    assert ("POST http://endpoint.example:8080/ HTTP/1.1", "Basic dTpwQA==") == (
        request.line,
        request.headers["proxy-authorization"],
    )


def test_https_goes_through_a_tunnel(server: ScriptedServer) -> None:
    """The proxy learns the name of the endpoint and nothing else."""
    server.script.put(Answer(status=403))
    client = connection(
        "https://endpoint.example", proxy=f"http://localhost:{server.port}", tls=tls_context({})
    )
    with pytest.raises(EndpointUnavailable, match="403"):
        client.post({"Authorization": "secret"}, b"")
    request = server.requests[0]
    assert request.line.startswith("CONNECT endpoint.example:443 ")
    assert "authorization" not in request.headers


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1", "nothing listens there"),
        ("http://no-such-host.invalid", "its name can't be resolved"),
    ],
)
def test_why_there_is_no_connection_is_said(url: str, said: str) -> None:
    """And what to check."""
    with pytest.raises(EndpointUnavailable, match=said):
        connection(url).post({}, b"")


@pytest.mark.parametrize("kind", [row[0] for row in _REASONS])
def test_every_foreign_error_has_a_sentence(kind: type[BaseException]) -> None:
    """One table, and no row of it is hidden by an earlier one."""
    error = kind("text") if kind is not ssl.SSLCertVerificationError else kind(1, "text")
    matching = next(row for row in _REASONS if isinstance(error, row[0]))
    assert kind is matching[0]
    assert _unavailable("https://e", error).message.startswith(
        "The control endpoint https://e gave no answer"
    )
