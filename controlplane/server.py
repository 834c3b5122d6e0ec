"""The running endpoint: opens the data directory, listens, and ends in good order."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import ssl
import time
from typing import TYPE_CHECKING

import click
import structlog
import uvicorn

from controlplane.api.application import Endpoint
from controlplane.api.host_commands import HostCommandService
from controlplane.dispatch.overdue import flush_sightings, watch_commands
from controlplane.dispatch.sightings import Sightings
from controlplane.dispatch.transactions import Transactions
from controlplane.dispatch.wakeups import Wakeups
from controlplane.errors import OperatorError
from controlplane.signing.authority import Authority
from controlplane.signing.specifications import SpecificationSigner
from controlplane.store.database import open_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path
    from types import FrameType

    from starlette.applications import Starlette

    from controlplane.settings import Settings

log = structlog.get_logger()

SHUTDOWN_GRACE_S = 1
"""Polls are answered at once when the end begins; this is for requests that are in hand."""
BACKLOG = 2048
LOCK_NAME = ".serve.lock"
KEEP_ALIVE_S = 75
"""Longer than agents wait between two polls, so that each host keeps one connection."""
_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def serve(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT. Raises OperatorError when it can't start."""
    _check_certificate(settings)
    listener = _listen(settings)
    database = open_database(settings.data_directory, region=settings.region, account=settings.account)
    lock = _lock(settings.data_directory)
    wakeups = Wakeups()
    sightings = Sightings(time.time)
    transactions = Transactions(
        database, clock=time.time, timing=settings.timing, wakeups=wakeups, sightings=sightings
    )
    try:
        application = _assemble(settings, transactions, wakeups, sightings)
        _Server(_configure(settings, application), wakeups, settings).run(sockets=[listener])
    finally:
        transactions.close()
        os.close(lock)
        log.info("endpoint_stopped")


def _assemble(
    settings: Settings, transactions: Transactions, wakeups: Wakeups, sightings: Sightings
) -> Starlette:
    """The application, which looks for overdue commands as long as it runs."""
    signer = SpecificationSigner(Authority(settings.data_directory), time.time)
    signer.prepare()
    hosts = HostCommandService(
        transactions,
        wakeups=wakeups,
        sightings=sightings,
        signer=signer,
        poll_hold_s=settings.timing.poll_hold_s,
    )

    @contextlib.asynccontextmanager
    async def lifespan(_application: Starlette) -> AsyncIterator[None]:
        watch = asyncio.create_task(
            watch_commands(transactions, tick_s=settings.timing.tick_s, wakeups=wakeups, sightings=sightings)
        )
        yield
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
        await flush_sightings(transactions, sightings)

    return Endpoint(transactions, hosts, time.time).application(lifespan)


class _Server(uvicorn.Server):
    """Says where it listens, and answers open polls as soon as it is told to end."""

    def __init__(self, config: uvicorn.Config, wakeups: Wakeups, settings: Settings) -> None:
        super().__init__(config)
        self._wakeups = wakeups
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        for listener in sockets or []:
            url = _url(self._settings, listener)
            log.info("endpoint_listening", url=url, data=str(self._settings.data_directory))
            click.echo(f"listening on {url}")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Takes the signals without sending them to ourselves again afterwards, so that we end with code 0."""
        before = {number: signal.signal(number, self.handle_exit) for number in _ENDING_SIGNALS}
        try:
            yield
        finally:
            for number, action in before.items():
                signal.signal(number, action)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._wakeups.close)


def _configure(settings: Settings, application: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_GRACE_S,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )


def _lock(data_directory: Path) -> int:
    """A descriptor that keeps other servers off the data directory until it is closed, by us or by our end."""
    descriptor = os.open(data_directory / LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise OperatorError(
            f"Another endpoint serves the data directory {data_directory}. Two would not wake each other's hosts: "
            "stop the other one, or give this one a directory of its own with --data."
        ) from error
    return descriptor


def _check_certificate(settings: Settings) -> None:
    if settings.tls_certificate is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            settings.tls_certificate, settings.tls_key
        )
    except OSError as error:
        raise OperatorError(
            f"The certificate {settings.tls_certificate} with the key {settings.tls_key} can't be used: {error}. "
            "Both must be PEM, and belong together."
        ) from error


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With its protocol spelt out: otherwise asyncio leaves Nagle's algorithm on, and answers wait 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OperatorError(
            f"Can't listen on {settings.host}:{settings.port}: {error.strerror}. Choose another with --listen."
        ) from error
    return listener


def _url(settings: Settings, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "http" if settings.tls_certificate is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
