"""A proxy between one host and the S3 server, which harms downloads and records them."""
# ruff: noqa: S311 - reproducible, not secret

from __future__ import annotations

import http.client
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from chaos.faults import RANGE_FAULTS, S3Fault, S3Faults
from chaos.listening import Handler, Listener
from chaos.s3_answers import Answer, Stored, answer_range, harmed, parse_range, refusal

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from chaos.listening import Gate

_UPSTREAM_TIMEOUT_S = 40.0
_REFUSING = (S3Fault.SLOW_DOWN, S3Fault.ERROR)
# Said by whoever sends, not by whoever stores.
_PER_CONNECTION = frozenset(("connection", "content-length", "content-range", "date", "transfer-encoding"))
_PIECES = 10


@dataclass(kw_only=True)
class Download:
    """One request of the agent for an object and what became of it.

    Attributes:
        key: of the object, without the bucket.
        wanted: the Range header; empty = the whole object.
        status: what the agent was answered; 0 = nothing.
        body_bytes: length of the answer's body.
        sent_bytes: how much of it was sent.
    """

    at: float
    key: str
    wanted: str
    fault: S3Fault
    status: int = 0
    body_bytes: int = 0
    sent_bytes: int = 0


class S3Proxy:
    """Listens on loopback for one host. Harms nothing before `start_faults` and after `stop_faults`."""

    def __init__(self, upstream: SplitResult, *, seed: int, share: float, gate: Gate | None = None) -> None:
        self.downloads: list[Download] = []
        self.share = 0.0
        self._full_share = share
        self._upstream = upstream
        self._faults = S3Faults(seed)
        self._lock = threading.Lock()
        proxy = self

        class Owned(_Handler):
            owner = proxy

        self.listener = Listener(Owned, gate)

    @property
    def url(self) -> str:
        """What the agent takes for the S3 server."""
        return self.listener.url

    def start_faults(self) -> None:
        """From now on downloads are harmed."""
        self.share = self._full_share

    def stop_faults(self) -> None:
        """From now on nothing is harmed any more."""
        self.share = 0.0

    def be_down(self, duration_s: float) -> None:
        """For a while nobody listens."""
        self.listener.go_away()
        time.sleep(duration_s)
        self.listener.come_back()

    def close(self) -> None:
        """Stop listening."""
        self.listener.close()

    def begin(self, path: str, wanted: str) -> tuple[Download, random.Random]:
        """Note a request, and decide its fate; what else is left to chance is drawn from the second."""
        key = unquote(path).lstrip("/").partition("/")[2]
        with self._lock:
            fault = self._faults.choose(self.share, is_range=parse_range(wanted) is not None)
            download = Download(at=time.time(), key=key, wanted=wanted, fault=fault)
            self.downloads.append(download)
            return download, random.Random(self._faults.chance.random())

    def forward(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Ask the S3 server; status 0 when it gives no answer."""
        connection = http.client.HTTPConnection(
            self._upstream.hostname or "", self._upstream.port, timeout=_UPSTREAM_TIMEOUT_S
        )
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        except (OSError, http.client.HTTPException):
            return 0, {}, b""
        finally:
            connection.close()


class _Handler(Handler):
    """One connection of the agent."""

    owner: S3Proxy

    def do_GET(self) -> None:  # noqa: N802 - the base class names it
        """Take one download through."""
        download, chance = self.owner.begin(self.path, self.headers.get("Range", ""))
        try:
            answer = self._answer(download, chance)
            if answer is None:
                self.break_off()
                return
            download.status, download.body_bytes = answer.status, len(answer.body)
            self._send(answer, download)
        except OSError:
            self.close_connection = True

    def _answer(self, download: Download, chance: random.Random) -> Answer | None:
        """What to send; None = the connection is to break."""
        fault = download.fault
        if fault is S3Fault.RESET:
            return None
        if fault in _REFUSING:
            return refusal(fault)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        status, found, body = self.owner.forward(self.path, headers)
        if not status:
            return None
        sent_on = {name: value for name, value in found.items() if name.lower() != "content-length"}
        real = Answer(status=status, headers=sent_on, body=body)
        if status >= 300:
            download.fault = S3Fault.NONE
            return real
        if fault in RANGE_FAULTS:
            return self._answer_range(download, real, headers, chance)
        return harmed(fault, real, chance)

    def _answer_range(
        self, download: Download, real: Answer, headers: dict[str, str], chance: random.Random
    ) -> Answer:
        wanted, stored = parse_range(download.wanted), self._stored(headers)
        if wanted is None or not 0 < wanted[0] < len(stored.content):
            download.fault = S3Fault.NONE
            return real
        return answer_range(download.fault, stored, wanted, chance)

    def _stored(self, headers: dict[str, str]) -> Stored:
        whole = {name: value for name, value in headers.items() if name.lower() not in {"range", "if-match"}}
        _, found, content = self.owner.forward(self.path, whole)
        kept = {name: value for name, value in found.items() if name.lower() not in _PER_CONNECTION}
        return Stored(content=content, headers=kept)

    def _send(self, answer: Answer, download: Download) -> None:
        self.send_response_only(answer.status)
        headers = {name: value for name, value in answer.headers.items() if name.lower() != "connection"}
        for name, value in headers.items():
            self.send_header(name, value)
        if "date" not in {name.lower() for name in headers}:
            self.send_header("Date", self.date_time_string())
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.flush()
        body = answer.body if answer.sent is None else answer.body[: answer.sent]
        size = max(1, -(-len(body) // (_PIECES if answer.pause_s else 1)))
        for place in range(0, len(body), size):
            time.sleep(answer.pause_s / _PIECES)
            self.wfile.write(body[place : place + size])
            download.sent_bytes += len(body[place : place + size])
        self.wfile.flush()
        if answer.sent is not None:
            self.close_connection = True
            if answer.is_reset:
                self.break_off()
