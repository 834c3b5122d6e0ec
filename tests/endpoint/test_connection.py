"""One connection to the endpoint: kept, replaced when it breaks, awaited without blocking."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import select
import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typing_extensions import Self

from agent.certificates import TrustedCAs
from agent.endpoint import Connection, tls_context
from agent.endpoint.reasons import REASONS, unavailable
from agent.endpoint.waiting import wait_readable
from agent.errors import ConfigurationError, EndpointUnavailable
from tests.endpoint.scripted_server import Answer, ScriptedServer, fill_backlog

if TYPE_CHECKING:
    from pathlib import Path

    from agent.endpoint.waiting import Waitable

pytestmark = pytest.mark.server


def certificate(directory: Path, *, ends_in_days: int = 1) -> tuple[Path, Path]:
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
        .not_valid_before(now - dt.timedelta(days=9))
        .not_valid_after(now + dt.timedelta(days=ends_in_days))
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


class Relay:
    """A proxy that opens one tunnel after the other, all to the same port; `heads` are its requests."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.heads: list[str] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._to)) as server:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            self.heads.append(head.decode())
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            others = {client: server, server: client}
            with contextlib.suppress(OSError):
                while True:
                    for sock in select.select(list(others), [], [])[0]:
                        data = sock.recv(65536)
                        if not data:
                            return
                        others[sock].sendall(data)


def connection(url: str, **options: object) -> Connection:
    return Connection(url, **{"read_timeout_s": 10.0, **options})  # type: ignore[arg-type]


def test_an_address_with_a_path_is_asked_at_that_path(server: ScriptedServer) -> None:
    """A gateway serves several services below one name; the signature is for that path, too."""
    for path in ("", "/", "/deploy", "/deploy/"):
        client = connection(server.url + path)
        client.post({}, b"")
        client.close()
    lines = [request.line for request in server.requests]
    assert ["POST / HTTP/1.1"] * 2 + ["POST /deploy/ HTTP/1.1"] * 2 == lines


def test_requests_share_one_connection(server: ScriptedServer) -> None:
    """A poll a second must not cost a handshake a second."""
    client = connection(server.url)
    bodies = [client.post({"X": "y"}, b"{}").body for _ in range(3)]
    client.close()
    assert ([b"{}"] * 3, 1) == (bodies, server.connections)


def test_a_connection_that_was_idle_for_long_is_not_used_again(server: ScriptedServer) -> None:
    """Where a firewall has forgotten it, the report of a long hook would wait for its answer to time out."""
    client = connection(server.url, max_idle_s=0.0)
    bodies = [client.post({}, b"").body for _ in range(2)]
    client.close()
    assert ([b"{}"] * 2, 2) == (bodies, server.connections)


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

    def wait(awaited: Waitable, timeout_s: float) -> None:
        calls.append(timeout_s)
        if server.arrived.qsize():
            raise Abandoned
        with contextlib.suppress(TimeoutError):
            wait_readable(awaited, 0.01)

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
        trusted = TrustedCAs(tmp_path / "own.pem", "AWS_CA_BUNDLE")
        with pytest.raises(EndpointUnavailable) as caught:
            connection(server.url, tls=tls_context({}), cas=trusted).post({}, b"")
    said = caught.value.message
    assert f"Trusted are only the CAs in {trusted.path}, which AWS_CA_BUNDLE names." in said
    assert "update-ca-certificates (Debian, Ubuntu)" in said
    assert "endpoint-untrusted" == caught.value.error_id


def test_a_certificate_for_another_name_is_told_from_one_of_an_unknown_ca(tmp_path: Path) -> None:
    """Whoever adds a CA for it looks in the wrong place."""
    certificate_file, key_file = certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate_file, key_file)
    with ScriptedServer(tls) as server:
        trusting = tls_context({"AWS_CA_BUNDLE": str(certificate_file)})
        # Another spelling of the address that the certificate is for.
        client = connection(f"https://127.1:{server.port}", tls=trusting)
        with pytest.raises(EndpointUnavailable) as caught:
            client.post({}, b"")
    assert "its certificate is for another name" in caught.value.message
    assert "127.1" in caught.value.message
    assert "update-ca" not in caught.value.message


def test_a_certificate_that_has_expired_is_said_beside_the_clock_of_this_host(tmp_path: Path) -> None:
    """One of the two is wrong."""
    certificate_file, key_file = certificate(tmp_path, ends_in_days=-1)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate_file, key_file)
    with (
        ScriptedServer(tls) as server,
        pytest.raises(EndpointUnavailable, match="out of date .*clock says 2"),
    ):
        connection(server.url, tls=tls_context({"AWS_CA_BUNDLE": str(certificate_file)})).post({}, b"")


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
    assert ("CONNECT endpoint.example:443 HTTP/1.1", "endpoint.example:443") == (
        request.line,
        request.headers["host"],
    )
    assert "authorization" not in request.headers


def test_a_tunnel_leads_to_the_endpoint_and_its_user_and_password_stay_with_the_proxy(tmp_path: Path) -> None:
    """And messages about what comes through it name the proxy as well."""
    certificate_file, key_file = certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate_file, key_file)
    with ScriptedServer(tls) as endpoint, Relay(endpoint.port) as proxy:
        trusted = tls_context({"AWS_CA_BUNDLE": str(certificate_file)})
        options = {"proxy": f"http://u:secret@localhost:{proxy.port}", "proxy_set_by": "the test"}
        client = connection(endpoint.url, tls=trusted, **options)
        assert b"{}" == client.post({"X": "y"}, b"").body
        client.close()
        with pytest.raises(EndpointUnavailable, match="not trusted") as caught:
            connection(endpoint.url, tls=tls_context({}), **options).post({}, b"")
    assert "proxy-authorization" not in endpoint.requests[0].headers
    assert "Proxy-Authorization: Basic dTpzZWNyZXQ=" in proxy.heads[0]
    named = f"The request went through the proxy http://localhost:{proxy.port} (set by the test)."
    assert caught.value.message.endswith(named)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("status", "user", "said"),
    [
        (407, "", "wants a user and a password"),
        (407, "u:secret@", "does not accept the user and password"),
    ],
)
def test_a_proxy_that_wants_a_password_is_named_and_the_endpoint_is_not_blamed(
    server: ScriptedServer, scheme: str, status: int, user: str, said: str
) -> None:
    """Who looks at the endpoint's side finds nothing there."""
    server.script.put(Answer(status=status, body=b"<html>who are you"))
    check_proxy_failure(f"{scheme}://endpoint.example", f"http://{user}localhost:{server.port}", said)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(status=403, body=b"<html>"), "refuses to connect to endpoint.example:443"),
        (Answer(status=302, body=b""), "refuses to connect to endpoint.example:443"),
        (Answer(status=502, body=b""), "502 X: it can't reach endpoint.example:443"),
        (Answer(status=504, body=b""), "can't reach endpoint.example:443"),
        (Answer(raw=b"SSH-2.0-OpenSSH\r\n", then_close=True), "the answer is not HTTP"),
        (Answer(raw=b"", then_close=True), "closed the connection without an answer"),
    ],
)
def test_a_proxy_that_opens_no_tunnel_is_named(server: ScriptedServer, answer: Answer, said: str) -> None:
    """With what it answered."""
    server.script.put(answer)
    check_proxy_failure("https://endpoint.example", f"http://localhost:{server.port}", said)


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("http://u:secret@127.0.0.1:1", "nothing listens there"),
        ("http://u:secret@no-such-proxy.invalid:3128", "its name can't be resolved"),
        ("http://u:secret@a..b:3128", "this can't be the name of a host"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there_is_named(scheme: str, proxy: str, said: str) -> None:
    """Nobody has tried to reach the endpoint yet."""
    check_proxy_failure(f"{scheme}://endpoint.example", proxy, said)


def check_proxy_failure(url: str, proxy: str, said: str) -> None:
    client = connection(url, proxy=proxy, proxy_set_by="https_proxy in the test", tls=tls_context({}))
    with pytest.raises(EndpointUnavailable) as caught:
        client.post({}, b"")
    message = caught.value.message
    assert said in message
    assert (
        f"the proxy http://{proxy.rpartition('//')[2].rpartition('@')[2]} (set by https_proxy in the test)"
        in message
    )
    assert "secret" not in message
    assert "proxy-failed" == caught.value.error_id


@pytest.mark.parametrize(
    "address", ["socks5://p:1080", "http://u:secret@p:port", "http://", "http://u:secret@"]
)
def test_what_can_not_be_the_address_of_a_proxy_is_refused_without_showing_it(address: str) -> None:
    """It holds a password as often as not."""
    with pytest.raises(ConfigurationError, match="https_proxy in the test must be of the form") as caught:
        connection("https://e", proxy=address, proxy_set_by="https_proxy in the test")
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("encrypted", [False, True], ids=["connecting", "shaking hands"])
def test_an_endpoint_that_does_not_answer_leaves_the_waiting_to_the_caller(*, encrypted: bool) -> None:
    """A firewall that swallows everything must not keep the daemon from its workers, nor from an end."""

    def wait(awaited: Waitable, timeout_s: float) -> None:
        if encrypted and isinstance(awaited, select.epoll):
            wait_readable(awaited, timeout_s)
        else:
            raise Abandoned

    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as waiting:
        port = listener.getsockname()[1]
        if not encrypted:
            fill_backlog(port, waiting)
        url = f"{'https' if encrypted else 'http'}://127.0.0.1:{port}"
        with pytest.raises(Abandoned):
            connection(url, wait=wait, tls=tls_context({})).post({}, b"")


def test_a_handshake_that_is_not_answered_is_told_from_an_address_that_is_not() -> None:
    """Somebody wrote https where another protocol is spoken, whose server waits for more."""

    def wait(awaited: Waitable, timeout_s: float) -> None:
        if isinstance(awaited, ssl.SSLSocket):
            raise TimeoutError
        wait_readable(awaited, timeout_s)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        client = connection(url, wait=wait, tls=tls_context({}))
        with pytest.raises(
            EndpointUnavailable, match="does not answer the handshake.*that the address speaks TLS"
        ):
            client.post({}, b"")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1", "nothing listens there"),
        ("http://no-such-host.invalid", "its name can't be resolved"),
        ("http://a..b", "its name can't be resolved .this can't be the name of a host"),
        (f"http://{'a' * 70}.example", "its name can't be resolved .this can't be the name of a host"),
    ],
)
def test_why_there_is_no_connection_is_said(url: str, said: str) -> None:
    """And what to check."""
    with pytest.raises(EndpointUnavailable, match=said):
        connection(url).post({}, b"")


@pytest.mark.parametrize("kind", [row[0] for row in REASONS])
def test_every_foreign_error_has_a_sentence(kind: type[BaseException]) -> None:
    """One table, and no row of it is hidden by an earlier one."""
    error = kind("text")
    matching = next(row for row in REASONS if isinstance(error, row[0]))
    assert kind is matching[0]
    assert unavailable("https://e", error).message.startswith("The control endpoint https://e gave no answer")
