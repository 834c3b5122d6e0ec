"""Opening a connection: name, TCP, the tunnel of a proxy, TLS. Nothing but looking up the name blocks."""

from __future__ import annotations

import errno
import http.client
import os
import socket
import ssl
import time
from typing import TYPE_CHECKING

from agent.endpoint.reasons import proxy_refusal, proxy_unusable
from agent.endpoint.waiting import WaitingSocket, wait_writable

if TYPE_CHECKING:
    from agent.endpoint.proxy import Proxy
    from agent.endpoint.waiting import Wait

STEP_TIMEOUT_S = 10.0


def open_socket(
    host: str, port: int, *, tls: ssl.SSLContext | None, proxy: Proxy | None, wait: Wait
) -> socket.socket:
    """A non-blocking socket that leads to this place.

    Args:
        host: name or address of the server.
        port: of the server.
        tls: how to speak to it; None = in the clear, and with a proxy to the proxy instead of the server.
        proxy: on the way to it.
        wait: for every step.

    Raises:
        EndpointUnavailable: the proxy is in the way.
        OSError: the server can't be reached.
    """
    sock = _connect_to_proxy(proxy, wait) if proxy else _connect(host, port, wait)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if tls is None:
            return sock
        if proxy:
            _tunnel(sock, proxy, host, port, wait)
        sock = tls.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        _shake_hands(sock, wait)
    except BaseException:
        sock.close()
        raise
    return sock


def _connect_to_proxy(proxy: Proxy, wait: Wait) -> socket.socket:
    try:
        return _connect(proxy.host, proxy.port, wait)
    except OSError as error:
        raise proxy_unusable(proxy, error) from error


def _connect(host: str, port: int, wait: Wait) -> socket.socket:
    """Connect to the first address that takes us."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        # What the machinery for international names says of `a..b` and of names that are too long.
        raise socket.gaierror(socket.EAI_NONAME, "this can't be the name of a host") from error
    failure = OSError(errno.EADDRNOTAVAIL, "it has no address")
    for family, kind, protocol, _, address in found:
        try:
            return _connect_at(socket.socket(family, kind, protocol), address, wait)
        except OSError as error:
            failure = error
    raise failure


def _connect_at(sock: socket.socket, address: object, wait: Wait) -> socket.socket:
    try:
        sock.setblocking(False)
        code = sock.connect_ex(address)  # type: ignore[arg-type]
        if code == errno.EINPROGRESS:
            wait_writable(sock, wait, STEP_TIMEOUT_S)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


def _tunnel(sock: socket.socket, proxy: Proxy, host: str, port: int, wait: Wait) -> None:
    """Have the proxy connect this socket to the server."""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    headers = {"Host": place, **proxy.authorization}
    lines = [f"CONNECT {place} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    try:
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        waiting = WaitingSocket(sock, wait, time.monotonic() + STEP_TIMEOUT_S)
        answer = http.client.HTTPResponse(waiting, method="CONNECT")  # type: ignore[arg-type]
        with answer:
            answer.begin()
    except (OSError, http.client.HTTPException) as error:
        raise proxy_unusable(proxy, error) from error
    if not 200 <= answer.status < 300:
        raise proxy_refusal(proxy, place, answer.status, answer.reason)


def _await_handshake(sock: ssl.SSLSocket, wait: Wait, timeout_s: float) -> None:
    try:
        wait(sock, timeout_s)
    except TimeoutError as error:
        raise ssl.SSLError("the other side does not answer the handshake") from error


def _shake_hands(sock: ssl.SSLSocket, wait: Wait) -> None:
    deadline = time.monotonic() + STEP_TIMEOUT_S
    while True:
        left_s = max(0.0, deadline - time.monotonic())
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            _await_handshake(sock, wait, left_s)
        except ssl.SSLWantWriteError:
            wait_writable(sock, wait, left_s)
        else:
            return
