"""Control endpoint and S3 server that all hosts of a campaign share."""

from __future__ import annotations

import http.client
import signal
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import botocore.exceptions

from chaos.certificates import make_certificates
from chaos.checks import Event
from demo.stack import BUCKET, Stack

if TYPE_CHECKING:
    from pathlib import Path
    from urllib.parse import SplitResult

_APPLICATION = "chaos"
_FINAL = ("Succeeded", "Failed", "Stopped")


class Servers:
    """One control endpoint, which may be killed and started again, and one S3 server."""

    def __init__(self, scratch: Path) -> None:
        self._lock = threading.RLock()
        self._stack = Stack(scratch, s3_keys={})
        self.restarts = 0
        self._is_closed = False
        self._start_control()
        self._stack.start_s3()
        self._client = self._stack.codedeploy()
        self._client.create_application(applicationName=_APPLICATION)
        self.ca_file = scratch / "signer-ca.pem"
        self.certificates = make_certificates(scratch)

    def _start_control(self) -> None:
        self._stack.start_control("--poll-hold", "5", "--redeliver-after", "3")

    @property
    def endpoint(self) -> SplitResult:
        """Address of the control endpoint."""
        return urlsplit(self._stack.control_url)

    @property
    def s3(self) -> SplitResult:
        """Address of the S3 server, which lets everybody in."""
        return urlsplit(self._stack.s3_url)

    def add_host(self, name: str) -> Path:
        """Register a host; its on-premises file."""
        with self._lock:
            host = self._stack.add_host(name, {"Role": name})
            return host.directory / "codedeploy.onpremises.yml"

    def upload(self, key: str, content: bytes) -> str:
        """Put a bundle into the bucket; its ETag. Through the server, which does not look at its disk each time."""
        address = self.s3
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
        try:
            connection.request("PUT", f"/{BUCKET}/{key}", body=content)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise RuntimeError(f"the S3 server answered {answer.status} to {key}")
            return answer.getheader("ETag", "").strip('"')
        finally:
            connection.close()

    def kill_control(self) -> None:
        """SIGKILL to the control endpoint, and start it again at the same address."""
        with self._lock:
            process = self._stack.control_process
            if process is not None:
                process.popen.send_signal(signal.SIGKILL)
                process.popen.wait()
                self._stack.processes.remove(process)
            self._start_control()
            self.restarts += 1

    def add_group(self, group: str, role: str) -> None:
        """A deployment group of the one host with this role."""
        self._call(
            "create_deployment_group",
            applicationName=_APPLICATION,
            deploymentGroupName=group,
            serviceRoleArn="arn:aws:iam::123456789012:role/deployments",
            deploymentConfigName="CodeDeployDefault.AllAtOnce",
            onPremisesInstanceTagFilters=[{"Key": "Role", "Value": role, "Type": "KEY_AND_VALUE"}],
        )

    def deploy(self, group: str, key: str, bundle_type: str, etag: str) -> str:
        """Create a deployment of this bundle, with this ETag if there is one; its id."""
        location = {"bucket": BUCKET, "key": key, "bundleType": bundle_type}
        if etag:
            location["eTag"] = etag
        answer = self._call(
            "create_deployment",
            applicationName=_APPLICATION,
            deploymentGroupName=group,
            revision={"revisionType": "S3", "s3Location": location},
        )
        return str(answer["deploymentId"])

    def wait(self, deployment_id: str, timeout_s: float) -> str:
        """Status of the deployment once it is over, or when the time is."""
        deadline = time.monotonic() + timeout_s
        while True:
            answer = self._call("get_deployment", deploymentId=deployment_id)
            status = str(answer["deploymentInfo"]["status"])
            if status in _FINAL or time.monotonic() > deadline:
                return status
            time.sleep(0.25)

    def events(self, deployment_id: str, host: str) -> list[Event]:
        """The lifecycle events of the deployment on this host."""
        answer = self._call("get_deployment_target", deploymentId=deployment_id, targetId=host)
        return [
            _event(deployment_id, event)
            for event in answer["deploymentTarget"]["instanceTarget"]["lifecycleEvents"]
        ]

    def _call(self, operation: str, **members: Any) -> Any:
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the campaign has been ended")
            try:
                return getattr(self._client, operation)(**members)
            except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
                raise RuntimeError(f"{operation} was refused: {error}") from error

    def close(self) -> None:
        """Stop both."""
        with self._lock:
            self._is_closed = True
            self._stack.close()


def _event(deployment_id: str, event: dict[str, Any]) -> Event:
    diagnostics = event.get("diagnostics", {})
    return Event(
        deployment_id=deployment_id,
        name=event["lifecycleEventName"],
        status=event["status"],
        code=diagnostics.get("errorCode", ""),
        message=diagnostics.get("message", ""),
    )
