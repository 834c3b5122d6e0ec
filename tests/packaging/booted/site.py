"""Hosts with an agent, and what is deployed to them."""

from __future__ import annotations

import itertools
import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from demo.stack import wait_for
from tests.e2e.bundles import pack
from tests.packaging.booted.root import BootedRoot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from demo.stack import Stack
    from tests.e2e.conftest import Fleet

CONFIGURATION = "/etc/codedeploy-agent/conf"


@dataclass(kw_only=True)
class Site:
    """The servers, and hosts that know them."""

    stack: Stack
    fleet: Fleet
    scratch: Path
    booted: list[BootedRoot] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def boot(
        self, tree: Path, *, settings: str = "", identity: str = "codedeploy.onpremises.yml"
    ) -> BootedRoot:
        """A new host that runs the tree with a configuration for our servers, and `settings` besides."""
        name = f"booted-{os.getpid()}-{next(self.numbers)}"
        self._register(name)
        layer = self.scratch / name
        directory = layer / CONFIGURATION[1:]
        directory.mkdir(parents=True)
        known = self.stack.hosts[name].directory
        shutil.copy(self.stack.scratch / "signer-ca.pem", directory / "signer-ca.pem")
        shutil.copy(known / "codedeploy.onpremises.yml", directory / identity)
        (directory / identity).chmod(0o600)
        (directory / "codedeployagent.yml").write_text(self.settings() + settings)
        root = BootedRoot(name, [layer, tree])
        self.booted.append(root)
        return root

    def _register(self, name: str) -> None:
        """The servers know a host of this name."""
        self.stack.add_host(name, {"Role": name})
        # It knows the keys that it was started with.
        for process in [process for process in self.stack.processes if process.name == "s3"]:
            process.stop()
            self.stack.processes.remove(process)
        self.stack.start_s3()

    def settings(self) -> str:
        """Of an agent that is to find the servers."""
        return (
            f"deploy_control_endpoint: {self.stack.control_url}\n"
            f"s3_endpoint_override: {self.stack.s3_url}\n"
            f"deployment_signer_ca_file: {CONFIGURATION}/signer-ca.pem\n"
            "wait_between_runs: 1\n"
        )

    def start(self, host: BootedRoot, application: str, members: Mapping[str, str]) -> str:
        """Deploy these files to the host; the id of the deployment, which has begun."""
        group = f"{application}-on-{host.name}"
        self.add_group(application, host)
        key = f"{group}-{next(self.numbers)}.tgz"
        revision = self.fleet.upload(key, pack("tgz", members), "tgz")
        return self.fleet.start(application, group, revision)

    def add_group(self, application: str, host: BootedRoot) -> str:
        """The id of the group that has this host alone; it is made when it is new."""
        group = f"{application}-on-{host.name}"
        codedeploy = self.fleet.codedeploy
        if application not in codedeploy.list_applications()["applications"]:
            self.fleet.add_group(application, group, host.name)
        groups = codedeploy.list_deployment_groups(applicationName=application)["deploymentGroups"]
        if group not in groups:
            self.fleet.add_group(application, group, host.name)
        info = codedeploy.get_deployment_group(applicationName=application, deploymentGroupName=group)
        found: str = info["deploymentGroupInfo"]["deploymentGroupId"]
        return found

    def finish(self, deployment_id: str, timeout_s: float = 60) -> str:
        """What became of the deployment: its status, and what each failed event said."""
        status: str = self.fleet.wait(deployment_id, timeout_s)["status"]
        failed = [
            f"{name}: {event['diagnostics']}"
            for name, event in self.fleet.events(deployment_id).items()
            if event["status"] == "Failed"
        ]
        return "; ".join([status, *failed])

    def deploy(self, host: BootedRoot, application: str, members: Mapping[str, str]) -> str:
        """Deploy these files to the host, and wait; what became of it."""
        return self.finish(self.start(host, application, members))


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A place in a hook at which it waits until the test has done what it wants to do meanwhile."""

    host: BootedRoot
    name: str

    @property
    def lines(self) -> str:
        """For the hook, which needs nothing but sh and sleep."""
        return (
            f"touch /tmp/{self.name}.reached\n"
            f"n=0; until [ -e /tmp/{self.name}.open ]; do\n"
            f'  n=$((n + 1)); [ "$n" -lt 600 ] || exit 99; sleep 0.1\ndone\n'
        )

    def wait(self) -> None:
        """The hook is there."""
        file = self.host.path(f"/tmp/{self.name}.reached")
        wait_for(file.exists, timeout_s=30, what=f"the hook has reached {self.name}")

    def open(self) -> None:
        """The hook goes on."""
        self.host.path(f"/tmp/{self.name}.open").touch()


def revision(
    name: str, hooks: Mapping[str, str], files: Mapping[str, str], destination: str
) -> dict[str, str]:
    """A bundle: `files` go to the destination, `hooks` are events with the lines of their script."""
    lines = ["version: 0.0", "os: linux", "files:", "  - source: files", f"    destination: {destination}"]
    lines += ["hooks:"] if hooks else []
    members = {f"files/{file}": text for file, text in files.items()}
    for event, script in hooks.items():
        lines += [f"  {event}:", f"    - location: {event}.sh", "      timeout: 90"]
        members[f"{event}.sh"] = f"#!/bin/sh\nset -e\n{script}\n"
    return {"appspec.yml": "\n".join(lines) + "\n", **members}
