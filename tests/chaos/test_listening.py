"""Handshakes with the proxies go wrong as they are meant to."""

from __future__ import annotations

import http.client
import ssl
from typing import TYPE_CHECKING

import pytest

from chaos.certificates import Certificates, make_certificates
from chaos.listening import CUT, EXPIRED, GOOD, OTHER, Gate, Handler, Listener

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.server


class _Greeting(Handler):
    def do_GET(self) -> None:  # noqa: N802 - the base class names it
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")


@pytest.fixture(name="certificates", scope="module")
def _certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(name="gate")
def _gate(certificates: Certificates) -> Gate:
    return Gate(certificates, seed=5)


@pytest.fixture(name="listener")
def _listener(gate: Gate) -> Iterator[Listener]:
    listener = Listener(_Greeting, gate)
    yield listener
    listener.close()


def connect(listener: Listener, ca_file: Path) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=ca_file)
    return http.client.HTTPSConnection("127.0.0.1", listener.server_address[1], timeout=10, context=context)


def get(connection: http.client.HTTPSConnection) -> bytes:
    connection.request("GET", "/")
    return connection.getresponse().read()


def test_the_good_certificate_is_trusted(listener: Listener, certificates: Certificates) -> None:
    """Else no fault could be told from the ordinary."""
    assert listener.url.startswith("https://")
    connection = connect(listener, certificates.ca_file)
    assert b"hello" == get(connection) == get(connection)
    connection.close()


@pytest.mark.parametrize(("which", "reason"), [(EXPIRED, "expired"), (OTHER, "unable to get|self-signed")])
def test_a_wrong_certificate_is_shown_for_a_while(
    listener: Listener, certificates: Certificates, gate: Gate, which: str, reason: str
) -> None:
    """Afterwards everything is as before."""
    gate.show(which)
    with pytest.raises(ssl.SSLCertVerificationError, match=reason):
        get(connect(listener, certificates.ca_file))
    gate.show(GOOD)
    connection = connect(listener, certificates.ca_file)
    assert b"hello" == get(connection)
    connection.close()
    assert {which: 1, GOOD: 1} == dict(gate.seen)


def test_a_handshake_is_cut(listener: Listener, certificates: Certificates, gate: Gate) -> None:
    """At any place of what the server has to say; never does an answer come."""
    gate.share = 1.0
    for _ in range(8):
        connection = connect(listener, certificates.ca_file)
        with pytest.raises((OSError, http.client.HTTPException)):
            get(connection)
        connection.close()
    assert {CUT: 8} == dict(gate.seen)


def test_a_kept_connection_meets_a_new_certificate_when_it_is_broken(
    listener: Listener, certificates: Certificates, gate: Gate
) -> None:
    """Agents keep theirs for hours, and would never see it."""
    connection = connect(listener, certificates.ca_file)
    assert b"hello" == get(connection)
    gate.show(OTHER)
    assert b"hello" == get(connection)
    listener.break_connections()
    with pytest.raises((OSError, http.client.HTTPException)):
        get(connection)
    connection.close()
    with pytest.raises(ssl.SSLCertVerificationError):
        get(connect(listener, certificates.ca_file))
