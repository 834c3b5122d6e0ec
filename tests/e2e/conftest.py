"""A whole stack of real processes: control endpoint, S3, GitHub, agents; all over https."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from demo.stack import BUCKET, Host, Stack, Tls, wait_for
from tests.bundle.servers import Answer, Authority, Request, Server, make_authority

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ROLE = "arn:aws:iam::123456789012:role/deployments"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class GitHub:
    """GitHub's archive API: redirects to another host, which has the archives."""

    authority: Authority
    archives: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.downloads = Server(self._download, self.authority.context)
        self.api = Server(self._redirect, self.authority.context)

    @contextlib.contextmanager
    def running(self) -> Iterator[GitHub]:
        """While the block runs, it answers."""
        with self.downloads.running(), self.api.running():
            yield self

    def _redirect(self, request: Request) -> Answer:
        kind = "zip" if "/zipball/" in request.path else "tar"
        return Answer(302, b"", {"Location": f"{self.downloads.url}/archive/{kind}"})

    def _download(self, request: Request) -> Answer:
        return Answer(200, self.archives[request.path.rpartition("/")[2]])


class Fleet:
    """A stack with one application, driven through boto3 as its users drive it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.codedeploy = stack.codedeploy()

    def add_group(self, application: str, group: str, role: str, config: str = "AllAtOnce") -> None:
        """A deployment group of all hosts with this role; the application is made when it is new."""
        if application not in self.codedeploy.list_applications()["applications"]:
            self.codedeploy.create_application(applicationName=application)
        self.codedeploy.create_deployment_group(
            applicationName=application,
            deploymentGroupName=group,
            serviceRoleArn=ROLE,
            deploymentConfigName=f"CodeDeployDefault.{config}",
            onPremisesInstanceTagFilters=[{"Key": "Role", "Value": role, "Type": "KEY_AND_VALUE"}],
        )

    def upload(self, key: str, content: bytes, kind: str) -> dict[str, Any]:
        """Put a bundle into the bucket; the revision to deploy."""
        etag = self.stack.s3().put_object(Bucket=BUCKET, Key=key, Body=content)["ETag"].strip('"')
        location = {"bucket": BUCKET, "key": key, "bundleType": kind, "eTag": etag}
        return {"revisionType": "S3", "s3Location": location}

    def start(self, application: str, group: str, revision: Mapping[str, Any], **options: Any) -> str:
        """Create a deployment; its id."""
        deployment_id: str = self.codedeploy.create_deployment(
            applicationName=application, deploymentGroupName=group, revision=revision, **options
        )["deploymentId"]
        return deployment_id

    def wait(self, deployment_id: str, timeout_s: float = 60) -> dict[str, Any]:
        """What became of a deployment."""

        def over() -> dict[str, Any] | None:
            info: dict[str, Any] = self.codedeploy.get_deployment(deploymentId=deployment_id)[
                "deploymentInfo"
            ]
            return info if info["status"] in ("Succeeded", "Failed", "Stopped") else None

        info: dict[str, Any] = wait_for(
            over, timeout_s=timeout_s, what=f"{deployment_id} is over", interval_s=0.05
        )
        return info

    def events(self, deployment_id: str) -> dict[str, dict[str, Any]]:
        """Lifecycle events of the deployment's first target, by name."""
        target_ids = self.codedeploy.list_deployment_targets(deploymentId=deployment_id)["targetIds"]
        target = self.codedeploy.get_deployment_target(deploymentId=deployment_id, targetId=target_ids[0])
        events = target["deploymentTarget"]["instanceTarget"]["lifecycleEvents"]
        return {event["lifecycleEventName"]: event for event in events}

    def deploy(self, application: str, group: str, revision: Mapping[str, Any]) -> tuple[str, str]:
        """Deploy and wait; id and status, with the failed event's message when there is one."""
        deployment_id = self.start(application, group, revision)
        status: str = self.wait(deployment_id)["status"]
        if status != "Succeeded":
            for event in self.events(deployment_id).values():
                if event["status"] == "Failed":
                    status += f": {event['diagnostics']}"
        return deployment_id, status


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA for all servers."""
    return make_authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def github(authority: Authority) -> Iterator[GitHub]:
    """GitHub on loopback."""
    with GitHub(authority).running() as running:
        yield running


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, authority: Authority, github: GitHub) -> Iterator[Stack]:
    """Servers and two hosts, `web` and `db`, whose agents run."""
    scratch = tmp_path_factory.mktemp("stack")
    server_file = authority.ca_file.with_name("test-server.pem")
    with Stack(scratch, tls=Tls(authority.ca_file, server_file)) as running:
        running.start_control("--redeliver-after", "5")
        for name in ("web", "db"):
            running.add_host(name, {"Role": name}, {"github_api_endpoint": github.api.url})
        running.start_s3()
        for host in running.hosts.values():
            start_agent(running, host)
        yield running


def start_agent(stack: Stack, host: Host) -> None:
    """Start this host's agent and wait until it polls."""
    stack.start_agent(host)
    wait_for(lambda: stack.agentctl(host, "status").returncode == 0, timeout_s=20, what=f"{host.name} runs")


@pytest.fixture(scope="module")
def fleet(stack: Stack) -> Fleet:
    """The stack's users."""
    return Fleet(stack)


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    """Where a bundle's files go."""
    return tmp_path / "destination"
