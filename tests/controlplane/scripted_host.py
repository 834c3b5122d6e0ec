"""Hosts that do what a test says, over the real host command protocol, and the raw signed requests below."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.waiting import PATIENCE_S, wait_until

REGION = "us-east-1"
NORMAL = ("CodeDeployCommandService_v20141006", "codedeploy-commands")
SECURE = ("CodeDeployCommandService", "codedeploy-commands-secure")
REVISION = {
    "revisionType": "S3",
    "s3Location": {"bucket": "bundles", "key": "app.zip", "bundleType": "zip"},
}
EVENTS = [
    "ApplicationStop",
    "DownloadBundle",
    "BeforeInstall",
    "Install",
    "AfterInstall",
    "ApplicationStart",
    "ValidateService",
]


@dataclass
class Answer:
    """What came back over HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


def post(url: str, path: str, headers: dict[str, str], body: bytes, timeout_s: float = PATIENCE_S) -> Answer:
    """One POST on a connection of its own."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=timeout_s)
    try:
        connection.request("POST", path, body=body, headers=headers)
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(status=response.status, headers=names, body=response.read())
    finally:
        connection.close()


def sign(url: str, target: str, body: bytes, *, credentials: tuple[str, str], service: str) -> dict[str, str]:
    """The headers of a signed JSON 1.1 request."""
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target}
    request = AWSRequest(method="POST", url=f"{url}/", data=body, headers=headers)
    SigV4Auth(Credentials(*credentials), service, REGION).add_auth(request)
    return dict(request.headers.items())


class HostRefusedError(Exception):
    """The endpoint refused a host's call."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body)
        self.code = answer.document["__type"]
        self.message = answer.document["message"]
        self.status = answer.status


@dataclass
class ScriptedHost:
    """A host that does what the test says, over the real protocol."""

    url: str
    name: str
    arn: str
    credentials: tuple[str, str]
    stack: tuple[str, str] = NORMAL
    seen: list[str] = field(default_factory=list)

    def call(self, operation: str, timeout_s: float = PATIENCE_S, **members: Any) -> Any:
        prefix, service = self.stack
        body = json.dumps(members).encode()
        headers = sign(self.url, f"{prefix}.{operation}", body, credentials=self.credentials, service=service)
        headers["x-amz-codedeploy-agent-version"] = "scripted/1.0"
        answer = post(self.url, "/", headers, body, timeout_s)
        if answer.status != 200:
            raise HostRefusedError(answer)
        return answer.document

    def poll(self, timeout_s: float = PATIENCE_S) -> dict[str, Any] | None:
        command: dict[str, Any] | None = self.call(
            "PollHostCommand", timeout_s=timeout_s, HostIdentifier=self.arn
        )["HostCommand"]
        if command:
            self.seen.append(command["CommandName"])
        return command

    def expect(self, event: str) -> dict[str, Any]:
        """Polls until a command comes; it must be this one."""
        command = wait_until(self.poll, f"{event} for {self.name}")
        assert event == command["CommandName"]
        return dict(command)

    def specification(self, command: dict[str, Any]) -> Any:
        return self.call(
            "GetDeploymentSpecification",
            DeploymentExecutionId=command["DeploymentExecutionId"],
            HostIdentifier=self.arn,
        )

    def acknowledge(self, command: dict[str, Any], *, is_noop: bool = False) -> str:
        status: str = self.call(
            "PutHostCommandAcknowledgement",
            HostCommandIdentifier=command["HostCommandIdentifier"],
            Diagnostics={"Format": "JSON", "Payload": json.dumps({"IsCommandNoop": is_noop})},
        )["CommandStatus"]
        return status

    def complete(
        self,
        command: dict[str, Any],
        status: str = "Succeeded",
        code: int = 0,
        message: str = "Succeeded: done",
    ) -> None:
        payload = {"error_code": code, "script_name": "scripts/x.sh", "message": message, "log": "last line"}
        self.call(
            "PutHostCommandComplete",
            HostCommandIdentifier=command["HostCommandIdentifier"],
            CommandStatus=status,
            Diagnostics={"Format": "JSON", "Payload": json.dumps(payload)},
        )

    def fail(self, command: dict[str, Any], message: str = "script failed", code: int = 4) -> None:
        self.complete(command, "Failed", code, message)

    def carry_out(self, *events: str) -> None:
        """Takes and completes these events, all seven when none is named."""
        for event in events or EVENTS:
            command = self.expect(event)
            assert self.acknowledge(command) == "InProgress"
            self.complete(command)
