"""The agent as an ordinary user."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.packaging.booted.marks import BOOTED
from tests.packaging.booted.root import AGENT
from tests.packaging.booted.site import CONFIGURATION, revision

if TYPE_CHECKING:
    from pathlib import Path

    from tests.packaging.booted.root import BootedRoot
    from tests.packaging.booted.site import Site

pytestmark = BOOTED
UNPRIVILEGED = "codedeploy-agent-unprivileged.service"
IDENTITY = f"{CONFIGURATION}/codedeploy-unprivileged.onpremises.yml"


@pytest.fixture(scope="module")
def host(site: Site, installed_tree: Path) -> BootedRoot:
    """Set up as the unit's comments say."""
    host = site.boot(installed_tree, identity="codedeploy-unprivileged.onpremises.yml")
    host.run("systemd-sysusers", "codedeploy-agent.conf")
    host.run("chown", "codedeploy-agent:", IDENTITY)
    configuration = f"{CONFIGURATION}/codedeployagent-unprivileged.yml"
    shipped = host.path(configuration).read_text().replace("wait_between_runs: 1\n", "")
    host.write(configuration, shipped + site.settings())
    host.run("install", "--directory", "--owner=codedeploy-agent", "/srv/shop")
    host.write(f"/etc/systemd/system/{UNPRIVILEGED}.d/places.conf", "[Service]\nReadWritePaths=/srv/shop\n")
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "disable", AGENT)
    host.run("systemctl", "enable", "--now", UNPRIVILEGED)
    host.wait_for_status("polling", UNPRIVILEGED)
    return host


def test_it_deploys_where_it_may_write(host: BootedRoot, site: Site) -> None:
    """Hooks and files are its user's, and the agent of root has made way for it."""
    hooks = {"ApplicationStart": "id --user --name >/srv/shop/started-by; sleep 100000 &"}
    members = revision("1", hooks, {"file": "1"}, "/srv/shop/release")
    assert "Succeeded" == site.deploy(host, "shop", members)
    assert "codedeploy-agent\n" == host.path("/srv/shop/started-by").read_text()
    assert "codedeploy-agent" == host.run("stat", "--format=%U", "/srv/shop/release/file")
    assert "inactive" == host.show("ActiveState", AGENT)


def test_the_usual_command_means_the_agent_that_is_in_use(host: BootedRoot) -> None:
    """`codedeploy-agent restart` must not start root's agent, which would end this one."""
    before = host.main_pid(UNPRIVILEGED)
    assert f"The AWS CodeDeploy agent is running as PID {before}" == host.run("codedeploy-agent", "status")
    host.run("codedeploy-agent", "restart")
    host.wait_for_status("polling", UNPRIVILEGED)
    assert before != host.main_pid(UNPRIVILEGED)
    assert "inactive" == host.show("ActiveState", AGENT)


def test_it_can_not_deploy_anywhere_else(host: BootedRoot, site: Site) -> None:
    """The deployment fails, says where, and leaves nothing behind."""
    outcome = site.deploy(host, "elsewhere", revision("1", {}, {"file": "1"}, "/etc/elsewhere"))
    assert outcome.startswith("Failed; Install: ")
    assert "/etc/elsewhere" in outcome
    assert "install-undo-incomplete" not in outcome
    assert not host.path("/etc/elsewhere").exists()


def test_a_restart_leaves_its_applications_alone(host: BootedRoot, site: Site) -> None:
    """As with the agent of root."""
    hooks = {"ApplicationStart": "sleep 100000 & echo $! >/srv/shop/left.pid"}
    assert "Succeeded" == site.deploy(host, "left", revision("1", hooks, {"file": "1"}, "/srv/shop/left"))
    pid = int(host.path("/srv/shop/left.pid").read_text())
    host.run("systemctl", "restart", UNPRIVILEGED)
    host.wait_for_status("polling", UNPRIVILEGED)
    assert host.is_running(pid)


def test_a_hook_may_stop_its_agent(host: BootedRoot, site: Site) -> None:
    """The command that its user may call: asking systemd is for root."""
    agent = host.main_pid(UNPRIVILEGED)
    stop = f"agentctl stop --now --config-file {CONFIGURATION}/codedeployagent-unprivileged.yml"
    members = revision("1", {"ApplicationStart": stop}, {"file": "1"}, "/srv/shop/stops")
    deployment = site.start(host, "stops", members)
    host.run("sh", "-c", f"n=0; while [ -e /proc/{agent} ] && [ $n -lt 100 ]; do n=$((n+1)); sleep 0.1; done")
    host.run("systemctl", "start", UNPRIVILEGED)
    assert "Succeeded" == site.finish(deployment)
