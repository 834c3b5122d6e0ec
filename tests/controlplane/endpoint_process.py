"""A control endpoint in a process of its own, and the callers of its public API."""

from __future__ import annotations

import json
import secrets
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from click.testing import CliRunner

from controlplane.cli import codedeploy_control
from tests.controlplane.scripted_host import REGION, REVISION, ScriptedHost
from tests.waiting import PATIENCE_S

CONTROL = Path(sys.executable).with_name("codedeploy-control")


class ControlEndpoint:
    """A `codedeploy-control serve` process over one data directory."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.url = ""
        self.process: subprocess.Popen[str] | None = None
        self._user: tuple[str, str] | None = None

    def start(self, *options: str) -> ControlEndpoint:
        arguments: list[str | Path] = ["serve", "--data", self.data, "--listen", "127.0.0.1:0", *options]
        with (self.data.parent / f"{self.data.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [CONTROL, *arguments], stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], PATIENCE_S)[0], "the endpoint did not start"
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), self.log()
        self.url = line.removeprefix("listening on ").strip()
        return self

    def log(self) -> str:
        return (self.data.parent / f"{self.data.name}.log").read_text()

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ends the process and returns its exit code."""
        assert self.process is not None
        self.process.send_signal(how)
        try:
            code = self.process.wait(timeout=PATIENCE_S)
        finally:
            self.process.kill()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None
        return code

    def control(self, *arguments: str) -> str:
        """What a subcommand prints. It runs in this process, beside the server, to spare its start."""
        result = CliRunner().invoke(codedeploy_control, [*arguments, "--data", str(self.data)])
        assert result.exit_code == 0, result.output
        return result.stdout

    @property
    def user(self) -> tuple[str, str]:
        """Access key id and secret of a caller of the public API."""
        if self._user is None:
            key = json.loads(self.control("user", "add", "tester", "--json"))
            self._user = (key["accessKeyId"], key["secretAccessKey"])
        return self._user

    def client(self, credentials: tuple[str, str] | None = None) -> Any:
        """A boto3 client of the public API."""
        key, secret = credentials or self.user
        return boto3.client(
            "codedeploy",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(retries={"max_attempts": 0}, connect_timeout=5, read_timeout=PATIENCE_S),
        )

    def host(self, name: str, *tags: str) -> ScriptedHost:
        """A new registered host with these tags."""
        options = [part for tag in tags for part in ("--tag", tag)]
        key = json.loads(self.control("host", "register", name, "--json", *options))
        credentials = (key["accessKeyId"], key["secretAccessKey"])
        return ScriptedHost(url=self.url, name=name, arn=key["iamUserArn"], credentials=credentials)


@dataclass
class Shop:
    """An application and its deployment group on an endpoint that other tests use too.

    The label keeps names apart; tests call their hosts by short names.
    """

    endpoint: ControlEndpoint
    client: Any
    label: str
    application: str

    @property
    def tag(self) -> str:
        """The tag that puts a host into the group."""
        return f"web-{self.label}"

    def host(self, name: str, *tags: str) -> ScriptedHost:
        """A new host, in the group unless other tags are given."""
        return self.endpoint.host(f"{name}-{self.label}", *(tags or (f"Role={self.tag}",)))

    def create_group(self, name: str, **parameters: Any) -> None:
        self.client.create_deployment_group(
            applicationName=self.application,
            deploymentGroupName=name,
            serviceRoleArn="arn:aws:iam::000000000000:role/deploy",
            **parameters,
        )

    def deploy(self, config: str = "CodeDeployDefault.AllAtOnce", **parameters: Any) -> str:
        """A new deployment to the group `web`, of the usual revision unless another is given."""
        request = {"deploymentGroupName": "web", "revision": REVISION, **parameters}
        deployment_id: str = self.client.create_deployment(
            applicationName=self.application, deploymentConfigName=config, **request
        )["deploymentId"]
        return deployment_id

    def get(self, deployment_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get_deployment(deploymentId=deployment_id)["deploymentInfo"]
        return found

    def target(self, deployment_id: str, host: ScriptedHost) -> dict[str, Any]:
        answer = self.client.get_deployment_target(deploymentId=deployment_id, targetId=host.name)
        found: dict[str, Any] = answer["deploymentTarget"]["instanceTarget"]
        return found

    def events(self, deployment_id: str, host: ScriptedHost) -> dict[str, str]:
        """Status by event name."""
        target = self.target(deployment_id, host)
        return {event["lifecycleEventName"]: event["status"] for event in target["lifecycleEvents"]}


def open_shop(endpoint: ControlEndpoint) -> Shop:
    """A new application with an empty group `web`, deployed to one host at a time by default."""
    label = secrets.token_hex(4)
    shop = Shop(endpoint=endpoint, client=endpoint.client(), label=label, application=f"shop-{label}")
    shop.client.create_application(applicationName=shop.application)
    web = {"Key": "Role", "Value": shop.tag, "Type": "KEY_AND_VALUE"}
    shop.create_group("web", onPremisesInstanceTagFilters=[web])
    return shop
