"""The service of the package, under a real systemd, on a host without Python."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.stack import wait_for
from tests.packaging.booted.marks import BOOTED
from tests.packaging.booted.root import AGENT
from tests.packaging.booted.site import CONFIGURATION, Gate, revision

if TYPE_CHECKING:
    from tests.packaging.booted.builds import Packages
    from tests.packaging.booted.root import BootedRoot
    from tests.packaging.booted.site import Site

pytestmark = BOOTED
UNPRIVILEGED = "codedeploy-agent-unprivileged.service"
_DOCUMENT = Path(__file__).parents[3] / "docs/service.md"
# The first systemd that knows growing pauses between restarts.
_GROWING_DELAYS = 254


@pytest.fixture
def host(installed_host: BootedRoot) -> BootedRoot:
    """Any host on which the agent runs."""
    return installed_host


def test_there_is_no_python_on_the_host(clean_tree: Path) -> None:
    """Everything below shows that none is needed only if this is so."""
    places = ("usr/bin", "usr/local/bin", "usr/lib", "usr/local/lib")
    found = [path for place in places for path in (clean_tree / place).glob("*python*")]
    assert [] == found


def test_an_enabled_agent_runs_after_boot(host: BootedRoot) -> None:
    """As in an image in which the package was installed without systemd running."""
    assert ("enabled", "active") == (
        host.run("systemctl", "is-enabled", AGENT),
        host.run("systemctl", "is-active", AGENT),
    )


def test_the_agent_is_ready_within_two_seconds(host: BootedRoot, figures: list[str]) -> None:
    """Units that come after the agent don't hold up a boot."""
    host.run("systemctl", "restart", AGENT)
    began, ready = (
        int(host.show(name)) for name in ("InactiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic")
    )
    figures.append(f"started to READY: {(ready - began) / 1e6:.2f} s")
    assert (ready - began) / 1e6 < 2


def test_the_status_line_says_what_the_agent_does(host: BootedRoot, site: Site) -> None:
    """`systemctl status` is the first thing that anybody types."""
    host.wait_for_status("polling")
    gate = Gate(host=host, name="status")
    deployment = site.start(
        host, "status", revision("s", {"AfterInstall": gate.lines}, {"f": ""}, "/srv/status")
    )
    gate.wait()
    host.wait_for_status("polling; 1 running")
    gate.open()
    assert "Succeeded" == site.finish(deployment)
    host.wait_for_status("polling")


def test_the_journal_is_readable(host: BootedRoot, site: Site) -> None:
    """What the agent decides is found under its name, a line each, and hooks are named when they fail."""
    failing = revision(
        "j", {"AfterInstall": "echo the database is away >&2; exit 3"}, {"f": ""}, "/srv/journal"
    )
    assert site.deploy(host, "journal", failing).startswith("Failed; AfterInstall: ")
    told = host.run("journalctl", "--no-pager", "--output", "cat", "--identifier", "codedeploy-agent")
    for event in ("agent_started", "host_identified", "command_accepted", "AfterInstall"):
        assert event in told
    assert all(line.isprintable() for line in told.splitlines())


def test_a_frozen_agent_is_restarted_by_the_watchdog(host: BootedRoot) -> None:
    """A process that is there and does nothing is worse than none: nobody is told."""
    drop_in = f"/run/systemd/system/{AGENT}.d/impatient.conf"
    host.write(drop_in, "[Service]\nWatchdogSec=4s\nRestartSec=100ms\n")
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "restart", AGENT)
    frozen = host.main_pid()
    host.run("systemctl", "kill", "--kill-who=main", "--signal=STOP", AGENT)
    host.wait_for_new_agent(frozen)
    assert not host.is_running(frozen)
    host.wait_for_status("polling")
    host.path(drop_in).unlink()
    host.run("systemctl", "daemon-reload")


@pytest.fixture(scope="module")
def host_with_credential(site: Site, installed_tree: Path) -> BootedRoot:
    """A host whose agent is to find its identity among the credentials of its service."""
    place = "/run/credentials/codedeploy-agent.service/onpremises"
    host = site.boot(installed_tree, settings=f"on_premises_config_file: {place}\n")
    host.run("mv", f"{CONFIGURATION}/codedeploy.onpremises.yml", "/etc/codedeploy-agent/onpremises.yml")
    return host


def start_with_identity(host: BootedRoot, drop_in: str) -> subprocess.CompletedProcess[str]:
    """What became of a start of the agent with this drop-in."""
    host.write(f"/etc/systemd/system/{AGENT}.d/identity.conf", drop_in)
    host.run("systemctl", "daemon-reload")
    return host.try_to("systemctl", "restart", AGENT)


def from_document(pattern: str) -> str:
    """The only piece of docs/service.md that this pattern finds."""
    (found,) = re.findall(pattern, _DOCUMENT.read_text("utf-8"), re.MULTILINE)
    return str(found)


def test_the_identity_may_be_a_credential_of_the_service(
    host_with_credential: BootedRoot, site: Site
) -> None:
    """Which nobody sees but the agent."""
    host = host_with_credential
    drop_in = from_document(r"^\[Service\]\nLoadCredential=.*\n")
    assert 0 == start_with_identity(host, drop_in).returncode
    host.wait_for_status("polling")
    hooks = {"AfterInstall": 'echo "${CREDENTIALS_DIRECTORY-unset}" >/srv/seen'}
    assert "Succeeded" == site.deploy(host, "credential", revision("c", hooks, {"f": ""}, "/srv/credential"))
    assert "unset\n" == host.path("/srv/seen").read_text()


def test_the_identity_may_be_an_encrypted_credential(host_with_credential: BootedRoot) -> None:
    """Just as the document says; and one that can't be decrypted is not tried again for ever."""
    host = host_with_credential
    if host.try_to("systemd-creds", "--version").returncode:
        pytest.skip("this systemd has no systemd-creds")
    plain = host.path("/etc/codedeploy-agent/onpremises.yml")
    identity = plain.read_text()
    host.run("sh", "-euc", from_document(r"^```sh\n((?:.*\n)??systemd-creds (?:.*\n)*?)```"))
    assert not plain.exists()
    drop_in = from_document(r"^\[Service\]\nLoadCredentialEncrypted=.*\n")
    assert 0 == start_with_identity(host, drop_in).returncode
    host.wait_for_status("polling")

    host.write("/etc/codedeploy-agent/onpremises.cred", "no credential")
    assert 1 == start_with_identity(host, drop_in).returncode
    assert ("failed", "243", "0") == tuple(map(host.show, ("ActiveState", "ExecMainStatus", "NRestarts")))
    host.write("/etc/codedeploy-agent/onpremises.yml", identity, 0o600)


def test_the_agent_waits_for_the_boot_condition(site: Site, installed_tree: Path) -> None:
    """A host that still sets itself up is not deployed to, holds up no boot, and says what it waits for."""
    host = site.boot(installed_tree, settings="start_when_file: /run/set-up\n")
    host.wait_for_status("waiting: start_when_file /run/set-up does not exist")
    assert "active" == host.show("ActiveState")
    host.path("/run/set-up").touch()
    host.wait_for_status("polling")


def test_wait_idle_returns_when_the_hook_has_ended(host: BootedRoot, site: Site) -> None:
    """Whoever reboots a host in a script does it after that."""
    gate = Gate(host=host, name="idle")
    members = revision("i", {"AfterInstall": gate.lines}, {"f": ""}, "/srv/idle")
    deployment = site.start(host, "idle", members)
    gate.wait()
    assert 1 == host.try_to("agentctl", "wait-idle", "--timeout", "0.2").returncode
    gate.open()
    host.run("agentctl", "wait-idle", "--timeout", "30")
    assert "Succeeded" == site.finish(deployment, timeout_s=5)


@pytest.mark.parametrize("unit", [AGENT, UNPRIVILEGED])
def test_pauses_between_restarts_grow_where_systemd_knows_that(host: BootedRoot, unit: str) -> None:
    """And not far: what has happened once is never forgotten. An older systemd would complain of the words."""
    known = int(host.run("systemctl", "--version").split()[1])
    link = host.path(f"/usr/lib/systemd/system/{unit}.d/restart-delays.conf")
    if known < _GROWING_DELAYS:
        assert ("5s", False) == (host.show("RestartUSec", unit), link.is_symlink())
        return
    names = ("RestartUSec", "RestartSteps", "RestartMaxDelayUSec")
    assert ("1s", "5", "30s") == tuple(host.show(name, unit) for name in names)


def test_the_units_have_no_mistakes(host: BootedRoot) -> None:
    """Of words that it does not know systemd only warns, and goes on without them."""
    units = [f"/usr/lib/systemd/system/{unit}" for unit in (AGENT, UNPRIVILEGED)]
    host.run("systemd-sysusers", "codedeploy-agent.conf")
    answer = host.try_to("systemd-analyze", "verify", "--man=no", *units)
    assert (0, "", "") == (answer.returncode, answer.stdout, answer.stderr)


def test_the_unprivileged_agent_is_not_enabled_by_the_first_boot_of_an_image(host: BootedRoot) -> None:
    """Whatever no preset forbids is enabled then, and of the two agents only one can run."""
    host.run("systemctl", "preset", "--preset-mode=enable-only", UNPRIVILEGED)
    assert "disabled" == host.try_to("systemctl", "is-enabled", UNPRIVILEGED).stdout.strip()


@pytest.mark.parametrize("command", ["agentctl", "codedeploy-agent", "codedeploy-local"])
def test_commands_are_on_the_path_and_say_their_version(host: BootedRoot, command: str) -> None:
    """Scripts ask for it before they do anything else."""
    expected = host.run("cat", "/usr/lib/codedeploy-agent/current/version")
    assert host.run(command, "--version").endswith(expected)


def test_the_commands_of_the_existing_agents_work(host: BootedRoot) -> None:
    """Their names, words and exit codes are in many scripts."""
    pid = host.main_pid()
    assert f"The AWS CodeDeploy agent is running as PID {pid}" == host.run("codedeploy-agent", "status")
    host.run("codedeploy-agent", "stop")
    assert 3 == host.try_to("codedeploy-agent", "status").returncode
    host.run("/opt/codedeploy-agent/bin/codedeploy-agent", "start")
    started = host.wait_for_new_agent(pid)
    host.wait_for_status("polling")
    host.run("codedeploy-agent", "restart")
    host.wait_for_new_agent(started)


def test_size_and_memory_are_measured(
    host: BootedRoot, site: Site, packages: Packages, installed_tree: Path, figures: list[str]
) -> None:
    """The bound is loose: machines differ. The figures are printed, beside those of an agent from this checkout.

    What it shares with agents of other hosts, whose files are the same, counts in part in PSS and not in USS.
    """
    host.run("systemctl", "restart", AGENT)
    host.wait_for_status("polling")
    service = memory_kib(host.path(f"/proc/{host.main_pid()}/smaps_rollup").read_text())
    known = site.stack.add_host("checkout", {})
    agent = site.stack.start_agent(known)
    wait_for(lambda: site.stack.agentctl(known, "status").returncode == 0, timeout_s=20, what="it runs")
    checkout = memory_kib(Path(f"/proc/{agent.popen.pid}/smaps_rollup").read_text())
    agent.stop()
    du = ["du", "-sk", str(installed_tree / "usr/lib/codedeploy-agent")]
    installed = int(subprocess.run(du, check=True, capture_output=True, text=True).stdout.split()[0])
    sizes = ", ".join(f"{file.name} {file.stat().st_size / 1e6:.1f} MB" for file in packages.files)
    figures += [
        f"size: {sizes}; installed {installed * 1024 / 1e6:.1f} MB on disk",
        f"memory of the idle service, KiB: {service}",
        f"memory of an agent from the checkout, KiB: {checkout}",
    ]
    assert service["RSS"] < 32 * 1024


def memory_kib(smaps_rollup: str) -> dict[str, int]:
    """RSS, PSS and USS of a process."""
    kib = {line.split()[0]: int(line.split()[1]) for line in smaps_rollup.splitlines()[1:]}
    unique = kib["Private_Clean:"] + kib["Private_Dirty:"]
    return {"RSS": kib["Rss:"], "PSS": kib["Pss:"], "USS": unique}
