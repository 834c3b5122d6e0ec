"""A metadata service on loopback that can be as odd as the real ones."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = "/latest/dynamic/instance-identity/document"
DOMAIN = "/latest/meta-data/services/domain"
PARTITION = "/latest/meta-data/services/partition"
ROLES = "/latest/meta-data/iam/security-credentials/"
TOKEN = "/latest/api/token"
ROLE = "web-role"

INSTANCE = {"region": "eu-west-1", "accountId": "123456789012", "instanceId": "i-0abc1234567890def"}


def role_credentials(number: int = 1, expiration: str = "2030-01-01T00:00:00Z") -> str:
    return json.dumps(
        {
            "Code": "Success",
            "AccessKeyId": f"ASIA{number}",
            "SecretAccessKey": f"secret-{number}",
            "Token": f"token-{number}",
            "Expiration": expiration,
        }
    )


class MetadataServer:
    """What it answers can be changed at any time.

    Attributes:
        texts: what stands under each path; a path that is not in it is absent.
        versions: which versions of the protocol it speaks.
        tokens: those that are valid now; clear it to let them all expire.
        statuses: answers to come before the normal ones, for any path but the token's.
        requests: method and path of each request so far.
    """

    def __init__(self) -> None:
        self.texts = {
            DOCUMENT: json.dumps(INSTANCE),
            DOMAIN: "amazonaws.com\n",
            PARTITION: "aws",
            ROLES: f"{ROLE}\n",
            ROLES + ROLE: role_credentials(),
        }
        self.versions = {1, 2}
        self.tokens: set[str] = set()
        self.token_status = 200
        self.statuses: list[int] = []
        self.silent_paths: set[str] = set()
        self.requests: list[str] = []
        self.given_up = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._request_handler())
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def running(self) -> Iterator[MetadataServer]:
        """For a fixture: it listens until the test is over."""
        self._thread.start()
        yield self
        self.given_up.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, method: str, path: str, token: str | None) -> tuple[int, str]:
        """Status and body."""
        self.requests.append(f"{method} {path}")
        if path in self.silent_paths:
            self.given_up.wait(30)
        if path == TOKEN:
            return self._new_token(method)
        if self.statuses:
            return self.statuses.pop(0), "fault"
        if token is None and 1 not in self.versions:
            return 401, "token please"
        if token is not None and token not in self.tokens:
            return 401, "token has expired"
        if path not in self.texts:
            return 404, "nothing here"
        return 200, self.texts[path]

    def _new_token(self, method: str) -> tuple[int, str]:
        if 2 not in self.versions or method != "PUT":
            return 404, "no tokens here"
        if self.token_status != 200:
            return self.token_status, "no token for you"
        token = f"token-{len(self.requests)}=="
        self.tokens.add(token)
        return 200, token

    def _request_handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                status, text = server.answer(
                    self.command, self.path, self.headers.get("X-aws-ec2-metadata-token")
                )
                if server.given_up.is_set():
                    return
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = _answer  # noqa: N815 - the names that http.server looks for

            def log_message(self, *arguments: object) -> None:
                """Tests are quiet."""

        return Handler
