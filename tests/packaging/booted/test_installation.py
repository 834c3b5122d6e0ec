"""Installing, upgrading and removing the deb, on a host that is up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demo.stack import wait_for
from tests.packaging.booted.marks import BOOTED
from tests.packaging.booted.root import AGENT
from tests.packaging.booted.site import CONFIGURATION, revision

if TYPE_CHECKING:
    from pathlib import Path

    from tests.packaging.booted.builds import Packages
    from tests.packaging.booted.root import BootedRoot
    from tests.packaging.booted.site import Site

pytestmark = BOOTED
LIBRARY = "/usr/lib/codedeploy-agent"
# Of the package manager and of systemd, not ours; what is deployed below /srv is the user's.
_FOREIGN = (
    *("/proc", "/sys", "/dev", "/run", "/tmp", "/srv", "/root"),
    *("/var/cache", "/var/lib/apt", "/var/lib/dpkg", "/var/lib/systemd"),
    *("/var/log/apt", "/var/log/dpkg.log", "/var/log/journal"),
)


def files(host: BootedRoot) -> set[str]:
    """All files and directories but those of the package manager, with their owners and modes."""
    pruned = [word for place in _FOREIGN for word in ("-path", place, "-o")][:-1]
    found = host.run("find", "/", "(", *pruned, ")", "-prune", "-o", "-printf", "%p %u %g %m\\n")
    return set(found.splitlines())


def versions(host: BootedRoot) -> list[str]:
    return sorted(path.name for path in host.path(f"{LIBRARY}/versions").iterdir())


def test_the_agent_is_installed_removed_purged_and_installed_again(
    site: Site, clean_tree: Path, packages: Packages
) -> None:
    """From a clean host and back to one: nothing is left that was ours, and nothing that was not is gone."""
    host = site.boot(clean_tree)
    before = {line for line in files(host) if not line.startswith("/etc/codedeploy-agent")}
    deb = host.put(packages.deb)

    host.apt("install", deb)
    assert ("disabled", "inactive") == (
        host.try_to("systemctl", "is-enabled", AGENT).stdout.strip(),
        host.try_to("systemctl", "is-active", AGENT).stdout.strip(),
    )
    assert site.settings() == host.path(f"{CONFIGURATION}/codedeployagent.yml").read_text()
    host.run("systemctl", "enable", "--now", AGENT)
    assert "Succeeded" == site.deploy(host, "kept", revision("1", {}, {"file": "1"}, "/srv/kept"))

    agent = host.main_pid()
    host.apt("remove", "codedeploy-agent")
    assert not host.is_running(agent)
    assert not host.path(LIBRARY).exists()
    left = {line.split()[0] for line in files(host) - before}
    roots = ("/etc/codedeploy-agent", "/opt/codedeploy-agent", "/var/log/aws", "/etc/logrotate.d")
    assert [] == sorted(path for path in left if not path.startswith(roots))
    assert {f"{CONFIGURATION}/codedeploy.onpremises.yml", "/opt/codedeploy-agent/deployment-root"} <= left
    assert {"/opt/codedeploy-agent/state", "/var/log/aws/codedeploy-agent"} <= left

    host.apt("purge", "codedeploy-agent")
    assert before == files(host)
    assert "1" == host.path("/srv/kept/file").read_text()

    identity = site.stack.hosts[host.name].directory / "codedeploy.onpremises.yml"
    host.write(f"{CONFIGURATION}/codedeploy.onpremises.yml", identity.read_text(), 0o600)
    host.write(f"{CONFIGURATION}/signer-ca.pem", (site.stack.scratch / "signer-ca.pem").read_text())
    host.apt("install", deb)
    host.write(f"{CONFIGURATION}/codedeployagent.yml", site.settings())
    host.run("systemctl", "enable", "--now", AGENT)
    assert "Succeeded" == site.deploy(host, "anew", revision("2", {}, {"file": "2"}, "/srv/anew"))


def test_an_upgrade_keeps_configuration_and_what_was_enabled(
    site: Site, installed_tree: Path, packages: Packages
) -> None:
    """And goes from the running version to the new one by itself; of the old one nothing is left."""
    host = site.boot(installed_tree, settings="max_revisions: 3  # ours\n")
    host.wait_for_status("polling")
    configuration = host.path(CONFIGURATION)
    before = {file.name: file.read_bytes() for file in configuration.iterdir()}
    agent = host.main_pid()
    host.apt("install", host.put(packages.newer_deb))
    host.wait_for_new_agent(agent)
    host.wait_for_status("polling")
    assert before == {file.name: file.read_bytes() for file in configuration.iterdir()}
    assert "enabled" == host.run("systemctl", "is-enabled", AGENT)
    assert host.run("agentctl", "--version").endswith("9.9.9")
    assert ["9.9.9-1"] == versions(host)
    assert "Succeeded" == site.deploy(host, "upgraded", revision("1", {}, {"file": "1"}, "/srv/upgraded"))


def test_an_upgrade_does_not_start_an_agent_that_was_stopped(
    site: Site, installed_tree: Path, packages: Packages
) -> None:
    """Somebody has stopped it for a reason."""
    host = site.boot(installed_tree)
    host.run("systemctl", "stop", AGENT)
    host.apt("install", host.put(packages.newer_deb))
    assert "inactive" == host.show("ActiveState")
    assert ["9.9.9-1"] == versions(host)


def test_an_old_version_stays_for_as_long_as_something_runs_it(
    site: Site, installed_tree: Path, packages: Packages
) -> None:
    """Such as what writes down the output of an application that a hook has started."""
    host = site.boot(installed_tree)
    start = "sleep 100000 & echo $! >/srv/started.pid"
    members = revision("1", {"ApplicationStart": start}, {"file": "1"}, "/srv/started")
    assert "Succeeded" == site.deploy(host, "started", members)
    old_agent = host.main_pid()
    host.apt("install", host.put(packages.newer_deb))
    new_agent = host.wait_for_new_agent(old_agent)
    old_version, new_version = versions(host)
    assert "9.9.9-1" == new_version

    host.run("sh", "-c", "kill $(cat /srv/started.pid)")
    in_use = f"readlink /proc/[0-9]*/exe | grep --quiet {old_version}"
    wait_for(lambda: host.try_to("sh", "-c", in_use).returncode == 1, timeout_s=10, what="it is not in use")
    host.run("systemctl", "restart", AGENT)
    host.wait_for_new_agent(new_agent)
    assert ["9.9.9-1"] == versions(host)
