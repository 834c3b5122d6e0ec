"""Installing, upgrading and removing the deb, on a host that is up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demo.stack import wait_for
from tests.packaging.booted.marks import BOOTED
from tests.packaging.booted.root import AGENT
from tests.packaging.booted.site import CONFIGURATION, Gate, revision

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


def age_versions(host: BootedRoot) -> None:
    """As if they had been installed two minutes ago, so that they may be removed."""
    host.run("sh", "-c", f"touch -d '2 minutes ago' {LIBRARY}/versions/*")


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
    assert "warning" not in host.run("sh", "-c", "apt-get --yes remove codedeploy-agent 2>&1")
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
    age_versions(host)
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
    age_versions(host)
    host.apt("install", host.put(packages.newer_deb))
    assert "inactive" == host.show("ActiveState")
    assert ["9.9.9-1"] == versions(host)


def test_an_old_version_stays_for_as_long_as_something_runs_it(
    site: Site, installed_tree: Path, packages: Packages
) -> None:
    """Such as what writes down the output of an application that a hook has started."""
    host = site.boot(installed_tree)
    age_versions(host)
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


def start_running_a_version(host: BootedRoot) -> None:
    """A process runs from the version that is started from now on, and is no agent."""
    program = f"{LIBRARY}/current/bin/python3"
    host.run("systemd-run", "--quiet", "--unit", "left", program, "-c", "import time; time.sleep(1000)")


def test_a_version_that_is_run_stays_where_its_directory_is_linked(
    site: Site, installed_tree: Path, packages: Packages
) -> None:
    """To a larger file system, say: the kernel knows processes by the real path."""
    host = site.boot(installed_tree)
    host.run("systemctl", "stop", AGENT)
    age_versions(host)
    (old_version,) = versions(host)
    host.run("sh", "-c", f"mv {LIBRARY} /srv/library && ln -s /srv/library {LIBRARY}")
    start_running_a_version(host)
    host.apt("install", host.put(packages.newer_deb))
    kept = host.path("/srv/library/versions").iterdir()
    assert [old_version, "9.9.9-1"] == sorted(path.name for path in kept)


def test_a_purge_leaves_what_is_mounted_linked_or_run(site: Site, installed_tree: Path) -> None:
    """What is mounted or linked from elsewhere holds more than the agent's data; and it says what it leaves."""
    host = site.boot(installed_tree)
    start_running_a_version(host)
    host.run("systemctl", "stop", AGENT)
    data = "/opt/codedeploy-agent"
    host.run("mount", "-t", "tmpfs", "tmpfs", f"{data}/deployment-root")
    host.write(f"{data}/deployment-root/group/file", "theirs")
    host.write("/srv/bound/file", "theirs")
    host.run("mkdir", "-p", f"{data}/state/sub")
    host.run("mount", "--bind", "/srv/bound", f"{data}/state/sub")
    host.run("sh", "-c", "mv /var/log/aws /srv/logs && ln -s /srv/logs /var/log/aws")
    host.write("/srv/logs/codedeploy-agent/file", "theirs")
    (version,) = versions(host)

    told = host.apt("purge", "codedeploy-agent")
    kept = (f"{data}/deployment-root/group", "/srv/bound", "/srv/logs/codedeploy-agent")
    assert ["theirs"] * 3 == [host.path(f"{directory}/file").read_text() for directory in kept]
    assert [version] == versions(host)
    own = (
        f"{data}/deployment-root",
        f"{data}/state",
        "/var/log/aws/codedeploy-agent",
        f"{LIBRARY}/versions/{version}",
    )
    assert [] == [name for name in own if f"codedeploy-agent: {name} stays: " not in told]
    assert not host.path("/etc/codedeploy-agent").exists()


def test_a_removal_waits_for_workers_whose_agent_is_gone(site: Site, installed_tree: Path) -> None:
    """What has begun comes to its end before its program goes; and then nothing is left of the program."""
    host = site.boot(installed_tree)
    gate = Gate(host=host, name="removal")
    site.start(host, "left", revision("1", {"AfterInstall": gate.lines}, {"file": "1"}, "/srv/left"))
    gate.wait()
    host.run("agentctl", "stop", "--now")
    host.run("systemd-run", "--quiet", "--unit", "removal", "apt-get", "--yes", "remove", "codedeploy-agent")
    waits = "cat /proc/[0-9]*/cmdline | grep --quiet --text [w]ait-idle"
    wait_for(lambda: host.try_to("sh", "-c", waits).returncode == 0, timeout_s=20, what="the removal waits")
    gate.open()
    ended = ("systemctl", "is-active", "--quiet", "removal.service")
    wait_for(lambda: host.try_to(*ended).returncode != 0, timeout_s=20, what="the removal has ended")
    assert not host.path(LIBRARY).exists()
