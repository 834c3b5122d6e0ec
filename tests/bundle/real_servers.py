"""S3 servers that nobody here wrote, and a proxy that cuts what they send."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import botocore.exceptions
import pytest
from botocore.config import Config

from tests.bundle.transfers import CREDENTIALS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BUCKET = "releases"
_SECRET = CREDENTIALS.secret_access_key.reveal()


@dataclass(frozen=True)
class S3Server:
    """A server that checks signatures, with a bucket."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, key: str, content: bytes) -> None:
        self._client().put_object(Bucket=BUCKET, Key=key, Body=content)

    def wait_until_it_takes_objects(self, process: subprocess.Popen[bytes]) -> None:
        client, deadline = self._client(), time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            try:
                client.create_bucket(Bucket=BUCKET)
                client.put_object(Bucket=BUCKET, Key="first", Body=b"x")
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
                time.sleep(0.05)
            else:
                return
        pytest.fail(f"{process.args!r} takes no objects")

    def _client(self) -> boto3.client:
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=CREDENTIALS.access_key_id,
            aws_secret_access_key=_SECRET,
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}),
        )


@contextlib.contextmanager
def rclone_server(directory: Path) -> Iterator[S3Server]:
    """`rclone serve s3`, which answers a range with status 200; our demo runs against it, too."""
    port = free_port()
    command = ["serve", "s3", str(directory), "--addr", f"127.0.0.1:{port}", "--dir-cache-time", "0s"]
    command += ["--auth-key", f"{CREDENTIALS.access_key_id},{_SECRET}", "--config", os.devnull]
    with _running("rclone", command, directory, port) as server:
        yield server


@contextlib.contextmanager
def seaweedfs_server(directory: Path) -> Iterator[S3Server]:
    """`weed server`, which answers a range as S3 does."""
    ports = [free_port() for _ in range(8)]
    identity = {
        "name": "test",
        "credentials": [{"accessKey": CREDENTIALS.access_key_id, "secretKey": _SECRET}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (directory / "data").mkdir()
    command = ["server", "-s3", "-filer", f"-dir={directory}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    names = (
        "master.port",
        "master.port.grpc",
        "volume.port",
        "volume.port.grpc",
        "filer.port",
        "filer.port.grpc",
    )
    command += [f"-{name}={port}" for name, port in zip((*names, "s3.port.grpc"), ports[1:], strict=True)]
    command += [
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
    ]
    command += [
        f"-s3.config={directory}/s3.json",
        f"-filer.localSocket={directory}/filer.sock",
        f"-s3.port={ports[0]}",
    ]
    with _running("weed", command, directory, ports[0]) as server:
        yield server


@contextlib.contextmanager
def _running(program: str, arguments: list[str], directory: Path, port: int) -> Iterator[S3Server]:
    found = shutil.which(program, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert found is not None, f"{program} is not installed"
    process = subprocess.Popen(
        [found, *arguments], cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        server = S3Server(port)
        server.wait_until_it_takes_objects(process)
        yield server
    finally:
        process.kill()  # nothing of theirs is kept, and some take half a minute to stop
        process.wait()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class Cut:
    """Where a connection ends: after `at` bytes of the answer's body, or of its head; negative = before its end."""

    at: int
    in_head: bool = False
    with_reset: bool = False


@dataclass
class CuttingProxy:
    """Passes bytes on between client and server; the first connections are cut, one after the other.

    `on_cut` is called before a connection ends; `heads` are those of the answers that have come, without their bodies.
    """

    server: S3Server
    cuts: list[Cut]
    on_cut: Callable[[], None] = lambda: None
    heads: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._is_ending = False
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @contextlib.contextmanager
    def running(self) -> Iterator[CuttingProxy]:
        thread = threading.Thread(target=self._serve)
        thread.start()
        try:
            yield self
        finally:
            self._is_ending = True
            self._listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            self._listener.close()

    def _serve(self) -> None:
        """One connection at a time: the client under test has no more."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with (
                client,
                socket.create_connection(("127.0.0.1", self.server.port)) as upstream,
                contextlib.suppress(OSError),  # the client has closed it
            ):
                self._carry(client, upstream)

    def _carry(self, client: socket.socket, upstream: socket.socket) -> None:
        answer = b""
        cut = self.cuts.pop(0) if self.cuts else None
        while True:
            ready, _, _ = select.select([client, upstream, self._listener], [], [])
            if self._is_ending or (self._listener in ready and len(ready) == 1):
                return  # nobody needs this connection any more
            if client in ready:
                asked = client.recv(65536)
                if not asked:
                    return
                upstream.sendall(asked)
            if upstream in ready:
                piece = upstream.recv(65536)
                if not piece:
                    return
                before, answer = len(answer), answer + piece
                if cut is not None and (end := _end_of(answer, cut)) is not None:
                    self._end(client, answer[before:end], cut)
                    self._note_head(answer)
                    self.on_cut()
                    return
                if cut is None or b"\r\n\r\n" in answer:
                    client.sendall(answer[before if b"\r\n\r\n" in answer[:before] or cut is None else 0 :])
                self._note_head(answer)

    def _note_head(self, answer: bytes) -> None:
        head, found, _ = answer.partition(b"\r\n\r\n")
        if found and head not in self.heads:
            self.heads.append(head)

    @staticmethod
    def _end(client: socket.socket, last: bytes, cut: Cut) -> None:
        client.sendall(last)
        if cut.with_reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _end_of(answer: bytes, cut: Cut) -> int | None:
    """Where this answer is to end; None = not come so far yet."""
    head, found, body = answer.partition(b"\r\n\r\n")
    if cut.in_head and found:
        return cut.at % (len(head) + 4)
    if cut.in_head:
        return None
    return len(head) + 4 + cut.at if found and len(body) >= cut.at else None
