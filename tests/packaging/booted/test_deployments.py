"""Deployments that start applications, and what may become of the agent meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from demo.stack import wait_for
from tests.packaging.booted.marks import BOOTED
from tests.packaging.booted.root import AGENT
from tests.packaging.booted.site import Gate, revision

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.packaging.booted.builds import Packages
    from tests.packaging.booted.root import BootedRoot
    from tests.packaging.booted.site import Site

pytestmark = BOOTED


@pytest.fixture
def host(installed_host: BootedRoot, packages: Packages) -> BootedRoot:
    """Any host on which the agent runs; both packages lie in /root."""
    for name, package in (("same.deb", packages.deb), ("newer.deb", packages.newer_deb)):
        file = installed_host.path(f"/root/{name}")
        if not file.exists():
            file.write_bytes(package.read_bytes())
    installed_host.wait_for_status("polling")
    return installed_host


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """A shop: a service of its own, and a process that a hook starts directly, as many do."""

    name: str
    host: BootedRoot

    @property
    def unit(self) -> str:
        return f"{self.name}.service"

    def bundle(self, hooks: dict[str, str]) -> dict[str, str]:
        """ApplicationStart starts both."""
        home = f"/srv/{self.name}"
        unit = f"[Service]\nExecStart={home}/serve.sh\n"
        start = (
            f"cp {home}/{self.unit} /etc/systemd/system/\n"
            f"systemctl daemon-reload\nsystemctl start {self.unit}\n"
            f"{home}/serve.sh & echo $! >{home}.pid"
        )
        files = {"serve.sh": "#!/bin/sh\nexec sleep 100000\n", self.unit: unit}
        return revision(self.name, {"ApplicationStart": start, **hooks}, files, home)

    @property
    def pids(self) -> tuple[int, int]:
        """Of the service and of the process, both of which run."""
        background = int(self.host.path(f"/srv/{self.name}.pid").read_text())
        assert self.host.is_running(background)
        return self.host.main_pid(self.unit), background


def _restart(host: BootedRoot, at_gate: Gate) -> None:
    host.run("systemctl", "--no-block", "restart", AGENT)
    wait_for(lambda: host.show("ActiveState") == "deactivating", timeout_s=10, what="the agent drains")
    host.wait_for_status("stopping; 1 running")
    at_gate.open()


def _kill(host: BootedRoot, at_gate: Gate) -> None:
    killed = host.main_pid()
    host.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", AGENT)
    host.wait_for_new_agent(killed)
    at_gate.open()


def _stop_now(host: BootedRoot, at_gate: Gate) -> None:
    host.run("agentctl", "stop", "--now")
    wait_for(lambda: host.show("ActiveState") == "inactive", timeout_s=10, what="the agent has stopped")
    at_gate.open()
    host.run("systemctl", "start", AGENT)


def _upgrade(host: BootedRoot, at_gate: Gate) -> None:
    host.run("dpkg", "--install", "/root/newer.deb")
    wait_for(lambda: host.show("ActiveState") == "deactivating", timeout_s=10, what="the agent drains")
    at_gate.open()


def _upgrade_and_kill(host: BootedRoot, at_gate: Gate) -> None:
    """The worker of the old version goes on while the new version's agent works."""
    agent = host.main_pid()
    host.run("dpkg", "--install", "/root/newer.deb")
    host.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", AGENT)
    host.wait_for_new_agent(agent)
    at_gate.open()


@pytest.mark.parametrize("disturb", [_restart, _kill, _stop_now, _upgrade, _upgrade_and_kill])
def test_a_deployment_and_its_application_outlive(
    host: BootedRoot, site: Site, disturb: Callable[[BootedRoot, Gate], None]
) -> None:
    """Whatever happens to the agent in the middle of a hook: the deployment succeeds, and nobody notices."""
    name = disturb.__name__.strip("_").replace("_", "-")
    application = Application(name=name, host=host)
    gate = Gate(host=host, name=name)
    agent = host.main_pid()
    deployment = site.start(host, name, application.bundle({"ValidateService": gate.lines}))
    gate.wait()
    pids = application.pids
    disturb(host, gate)
    assert "Succeeded" == site.finish(deployment)
    host.wait_for_new_agent(agent)
    host.wait_for_status("polling")
    assert pids == application.pids


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("systemctl", "systemctl restart codedeploy-agent"),
        ("stop-start", "systemctl stop codedeploy-agent\nsystemctl start codedeploy-agent"),
        ("service", "service codedeploy-agent restart"),
        ("command", "codedeploy-agent stop\ncodedeploy-agent start"),
        ("command-restart", "/opt/codedeploy-agent/bin/codedeploy-agent restart"),
        ("reinstall", "dpkg --install /root/same.deb"),
    ],
)
@pytest.mark.parametrize("event", ["BeforeInstall", "ApplicationStart"])
def test_a_hook_may_restart_the_agent(
    host: BootedRoot, site: Site, name: str, script: str, event: str
) -> None:
    """Hooks that configure hosts do. They neither wait for an agent that waits for them, nor fail."""
    agent = host.main_pid()
    hooks = {event: f"{script}\necho done >>/srv/{name}-{event}.log"}
    members = revision(name, hooks, {"file": name}, f"/srv/by-{name}-{event}")
    assert "Succeeded" == site.deploy(host, f"{name}-{event}".lower(), members)
    assert name == host.path(f"/srv/by-{name}-{event}/file").read_text()
    assert "done\n" == host.path(f"/srv/{name}-{event}.log").read_text()
    host.wait_for_new_agent(agent)


def test_stopping_the_agent_leaves_applications_alone(host: BootedRoot, site: Site) -> None:
    """The service and what a hook has started directly; the process is of the agent's control group."""
    application = Application(name="left-alone", host=host)
    assert "Succeeded" == site.deploy(host, application.name, application.bundle({}))
    pids = application.pids
    host.run("systemctl", "stop", AGENT)
    assert pids == application.pids
    host.run("systemctl", "start", AGENT)
    assert pids == application.pids


def test_the_next_revision_replaces_the_application(host: BootedRoot, site: Site) -> None:
    """Its own ApplicationStop ends what ApplicationStart of the same revision has started."""
    application = Application(name="replaced", host=host)
    stop = f"systemctl stop {application.unit}\nkill $(cat /srv/replaced.pid)"
    members = application.bundle({"ApplicationStop": stop})
    assert "Succeeded" == site.deploy(host, application.name, members)
    first = application.pids
    assert "Succeeded" == site.deploy(host, application.name, members)
    assert not [pid for pid in first if host.is_running(pid)]
    assert set(first).isdisjoint(application.pids)
