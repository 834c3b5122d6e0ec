"""The proxy before the S3 server answers as each fault wants it."""

from __future__ import annotations

import http.client
import random
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from chaos.faults import RANGE_FAULTS, S3Fault
from chaos.s3_answers import Answer, Stored, answer_range, parse_range, refusal
from chaos.s3_proxy import Download, S3Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.server

CONTENT = random.Random(1).randbytes(4000)
STORED = Stored(content=CONTENT, headers={"ETag": '"e"'})


class _Origin(BaseHTTPRequestHandler):
    """Has one object, and answers a range with 200 and Content-Range, as some servers do."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - the base class names it

    def do_GET(self) -> None:
        if not self.path.startswith("/bucket/key"):
            self.send_error(404)
            return
        wanted = parse_range(self.headers.get("Range", ""))
        start = wanted[0] if wanted else 0
        self.send_response(200)
        self.send_header("ETag", '"e"')
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:])


class Scripted(S3Proxy):
    """Does to every download what it is told to."""

    fault = S3Fault.NONE

    def begin(self, path: str, wanted: str) -> tuple[Download, random.Random]:
        download, chance = super().begin(path, wanted)
        download.fault = self.fault
        return download, chance


@contextmanager
def proxy(fault: S3Fault) -> Iterator[Scripted]:
    origin = ThreadingHTTPServer(("127.0.0.1", 0), _Origin)
    threading.Thread(target=origin.serve_forever, args=(0.01,), daemon=True).start()
    made = Scripted(urlsplit(f"http://127.0.0.1:{origin.server_address[1]}"), seed=3, share=0.0)
    made.fault = fault
    try:
        yield made
    finally:
        made.close()
        origin.shutdown()
        origin.server_close()


def get(address: str, path: str = "/bucket/key", wanted: str = "") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and whole body; raises what the connection does."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request("GET", path, headers={"Range": wanted} if wanted else {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_without_a_fault_everything_passes_through() -> None:
    """The real server is what agents are tested against."""
    with proxy(S3Fault.NONE) as made:
        assert (200, CONTENT) == get(made.url)[::2]
        status, headers, body = get(made.url, wanted="bytes=100-")
        assert 404 == get(made.url, "/bucket/other")[0]
    assert (200, "bytes 100-3999/4000", CONTENT[100:]) == (status, headers["Content-Range"], body)
    assert ["key", "key", "other"] == [download.key for download in made.downloads]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [(S3Fault.SLOW_DOWN, (503, b"SlowDown")), (S3Fault.ERROR, (500, b"InternalError"))],
)
def test_a_busy_server_says_so_as_s3_does(fault: S3Fault, expected: tuple[int, bytes]) -> None:
    """Agents know these by their codes."""
    with proxy(fault) as made:
        status, _, body = get(made.url)
    assert expected[0] == status
    assert b"<Code>" + expected[1] + b"</Code>" in body


def test_a_reset_is_one() -> None:
    """No answer at all."""
    with proxy(S3Fault.RESET) as made, pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        get(made.url)


@pytest.mark.parametrize("fault", [S3Fault.BODY_RESET, S3Fault.BODY_ENDED])
def test_a_body_breaks_off_in_the_middle(fault: S3Fault) -> None:
    """What has arrived is right, and less than was promised."""
    with proxy(fault) as made, pytest.raises((ConnectionError, http.client.IncompleteRead)) as raised:
        get(made.url)
    [download] = made.downloads
    assert 0 <= download.sent_bytes < download.body_bytes == len(CONTENT)
    if fault is S3Fault.BODY_ENDED:
        assert isinstance(raised.value, http.client.IncompleteRead)
        assert CONTENT[: download.sent_bytes] == raised.value.partial


def test_a_slow_body_arrives_whole() -> None:
    """Slow is not broken."""
    with proxy(S3Fault.SLOW) as made:
        assert CONTENT == get(made.url)[2]


def test_wrong_bytes_are_as_many_as_the_right_ones() -> None:
    """Only their content tells."""
    with proxy(S3Fault.WRONG_BYTES) as made:
        _, headers, body = get(made.url)
    assert ('"e"', len(CONTENT)) == (headers["ETag"], len(body))
    assert 1 == sum(one != other for one, other in zip(CONTENT, body, strict=True))


def test_another_etag_comes_with_the_right_bytes() -> None:
    """A deployment that names its ETag can't know that."""
    with proxy(S3Fault.OTHER_ETAG) as made:
        _, headers, body = get(made.url)
    assert CONTENT == body
    assert '"e"' != headers["ETag"]


RIGHT = "bytes 1000-3999/4000"


@pytest.mark.parametrize(
    ("fault", "status", "content_range", "body"),
    [
        (S3Fault.RANGE_206, 206, RIGHT, CONTENT[1000:]),
        (S3Fault.RANGE_200, 200, RIGHT, CONTENT[1000:]),
        (S3Fault.RANGE_IGNORED, 200, None, CONTENT),
        (S3Fault.RANGE_REFUSED, 416, "bytes */4000", None),
    ],
)
def test_a_range_is_answered_in_these_ways(
    fault: S3Fault, status: int, content_range: str | None, body: bytes | None
) -> None:
    """Each of them is seen in the field."""
    with proxy(fault) as made:
        found, headers, content = get(made.url, wanted="bytes=1000-")
    assert (status, content_range) == (found, headers.get("Content-Range"))
    assert body is None or body == content


def test_a_range_at_another_place_says_so() -> None:
    """Taken for what was asked for, it would damage the file."""
    with proxy(S3Fault.RANGE_OTHER_OFFSET) as made:
        status, headers, body = get(made.url, wanted="bytes=1000-")
    start = int(headers["Content-Range"].removeprefix("bytes ").partition("-")[0])
    assert 206 == status
    assert 1000 != start
    assert CONTENT[start:] == body


def test_a_range_of_another_total_says_so() -> None:
    """The size of one object does not change."""
    with proxy(S3Fault.RANGE_OTHER_TOTAL) as made:
        _, headers, body = get(made.url, wanted="bytes=1000-")
    assert "4000" != headers["Content-Range"].rpartition("/")[2]
    assert CONTENT[1000:] == body


@pytest.mark.parametrize("fault", [S3Fault.RANGE_SHORTER, S3Fault.RANGE_LONGER])
def test_a_range_may_be_shorter_or_longer_than_it_says(fault: S3Fault) -> None:
    """Content-Length is right then, and Content-Range is not."""
    with proxy(fault) as made:
        _, headers, body = get(made.url, wanted="bytes=1000-")
    assert (RIGHT, str(len(body))) == (headers["Content-Range"], headers["Content-Length"])
    assert (len(body) < 3000) == (fault is S3Fault.RANGE_SHORTER)
    assert CONTENT[1000:].startswith(body) or body.startswith(CONTENT[1000:])


def test_a_range_of_another_object_has_another_etag() -> None:
    """The bundle was replaced in the middle of the download."""
    with proxy(S3Fault.RANGE_OTHER_ETAG) as made:
        _, headers, body = get(made.url, wanted="bytes=1000-")
    assert '"e"' != headers["ETag"]
    assert CONTENT[1000:] != body


@pytest.mark.parametrize("wanted", ["", "bytes=0-"])
def test_a_fault_of_ranges_needs_a_range_within_the_object(wanted: str) -> None:
    """It is counted only where it has happened."""
    with proxy(S3Fault.RANGE_REFUSED) as made:
        assert 200 == get(made.url, wanted=wanted)[0]
    assert [S3Fault.NONE] == [download.fault for download in made.downloads]


def test_every_fault_of_ranges_has_its_answer() -> None:
    """One that was forgotten would break the campaign in the middle."""
    for fault in RANGE_FAULTS:
        assert isinstance(answer_range(fault, STORED, (10, 99), random.Random(1)), Answer)
    with pytest.raises(ValueError, match="not about ranges"):
        answer_range(S3Fault.SLOW, STORED, (10, None), random.Random(1))
    assert 500 == refusal(S3Fault.ERROR).status


def test_a_server_that_is_down_refuses_connections_and_comes_back_where_it_was() -> None:
    """Agents know no other address."""
    with proxy(S3Fault.NONE) as made:
        assert 200 == get(made.url)[0]
        made.listener.go_away()
        with pytest.raises(ConnectionRefusedError):
            get(made.url)
        made.listener.come_back()
        assert 200 == get(made.url)[0]
