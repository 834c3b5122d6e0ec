"""`agentctl recover`: Installs that were interrupted are undone or completed, and nobody is disturbed."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.deployments import DeploymentDirectory, DeploymentFacts, DeploymentRoot, JobStore, RecordedProcess
from agent.deployments.group import group_lock_file
from agent.deployments.pointers import write_pointer
from agent.files import open_lock
from agent.processes import boot_id, start_ticks
from agent.protocol import HostCommand
from tests.daemon.agent_process import clean_environment
from tests.install.mounts import needs_mounts, with_mounts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.deployments import Job
    from tests.cli.conftest import AgentCtl, Done

GROUP = "11111111-2222-3333-4444-555555555555"

# Installs an archive, and dies of SIGKILL at the first step of this kind; with no kind it lives.
INSTALL = """
import os, signal, sys
from pathlib import Path
from agent.appspec import read_appspec
from agent.install import InstallRequest, install

archive, instructions, group_id, deployment_id, kind = sys.argv[1:]
Path(instructions).mkdir(parents=True, exist_ok=True)

def observe(moment, _path):
    if moment.value == kind:
        os.kill(os.getpid(), signal.SIGKILL)

install(
    InstallRequest(
        appspec=read_appspec(Path(archive), None),
        archive=Path(archive),
        instructions_directory=Path(instructions),
        group_id=group_id,
        deployment_id=deployment_id,
    ),
    observer=observe,
)
"""


# The interpreter itself may lie where only root can read, so all is loaded before.
AS_NOBODY = """
import encodings.utf_8_sig, os, sys
import structlog
import agent.cli.recover
from agent.cli.main import main

os.setgroups([])
os.setgid(65534)
os.setuid(65534)
main()
"""


class Host:
    """One host's deployment root, and an agentctl that is configured for it."""

    def __init__(self, agentctl: AgentCtl, base: Path) -> None:
        self.root = base / "root"
        self.state = base / "state"
        self.instructions = self.root / "deployment-instructions"
        self.config_file = base / "agent.yml"
        self.config_file.write_text(f"root_dir: {self.root}\nlog_dir: {base}/log\npid_dir: {self.state}\n")
        self._agentctl = agentctl
        self._base = base

    def destination(self, group_id: str = GROUP) -> Path:
        """Where the group's files go."""
        return self._base / "destination" / group_id

    def install(
        self,
        content: str,
        *,
        group_id: str = GROUP,
        deployment_id: str = "d-1",
        directory: str = "",
        killed_at: str = "",
    ) -> None:
        """A revision of one file with this content and one file of that name, in a process of its own."""
        archive = self._base / f"archive-{content}-{group_id}"
        (archive / "app" / directory).mkdir(parents=True)
        (archive / "app/file").write_text(content)
        (archive / "app" / content).touch()
        files = f"files:\n  - source: app\n    destination: {self.destination(group_id)}\n"
        (archive / "appspec.yml").write_text(f"version: 0.0\nos: linux\n{files}")
        arguments = (archive, self.instructions, group_id, deployment_id, killed_at)
        done = subprocess.run([sys.executable, "-c", INSTALL, *arguments], check=False)
        assert (-signal.SIGKILL if killed_at else 0) == done.returncode

    def tree(self, group_id: str = GROUP) -> dict[str, str]:
        """Name → content of what is at the destination, hidden files and all."""
        return {path.name: path.read_text() for path in self.destination(group_id).iterdir()}

    def keep(self, deployment_id: str) -> Path:
        """The directory of this deployment, as downloads leave it."""
        directory = self.root / GROUP / deployment_id
        directory.mkdir(parents=True)
        return directory

    def last_successful(self) -> str:
        """Deployment directory whose scripts would run at the next ApplicationStop; empty when there is none."""
        pointer = DeploymentRoot(path=self.root).last_successful(GROUP)
        return pointer.read_text() if pointer.exists() else ""

    def journals(self) -> list[str]:
        """Which are left."""
        return sorted(name for name in os.listdir(self.instructions) if "-journal" in name)

    def recover(self, *arguments: object) -> Done:
        return self._agentctl("recover", "--config-file", self.config_file, *arguments)

    def job(self, step: str, *, pid: int | None = None) -> Job:
        """A record of an Install of the group, which this process holds."""
        job = JobStore(self.state).accept(
            HostCommand(
                identifier="hc-1", host_identifier="host", deployment_execution_id="x", name="Install"
            )
        )
        pid = pid or os.getpid()
        ticks = start_ticks(pid) or 0
        job.note_worker(RecordedProcess(pid=pid, start_ticks=ticks, boot_id=boot_id()))
        job.note_deployment(
            DeploymentFacts(
                deployment_id="d-8KD21MX0Q",
                deployment_group_id=GROUP,
                deployment_group_name="blue",
                application_name="shop",
            )
        )
        job.note_step(step)
        return job


@pytest.fixture
def host(agentctl: AgentCtl, tmp_path: Path) -> Host:
    return Host(agentctl, tmp_path)


def test_nothing_to_recover_is_said(host: Host) -> None:
    """On a host that is well, and on one that was never deployed to."""
    fresh = host.recover()
    host.install("one")
    well = host.recover()
    for done in (fresh, well):
        assert (0, "") == (done.returncode, done.stderr)
        said = f"Nothing to recover: there is no interrupted Install in {host.instructions}.\n"
        assert said == done.stdout
    assert {"file": "one", "one": ""} == host.tree()


def test_an_install_that_had_not_taken_effect_is_undone(host: Host) -> None:
    """The application of before is what must be there when people come to look."""
    host.install("one")
    host.install("two", killed_at="commit")
    assert [f"{GROUP}-journal"] == host.journals()
    done = host.recover()
    assert 0 == done.returncode, done.stderr
    assert (
        f"{GROUP}: the interrupted Install has been undone; the previous revision is whole again.\n"
        == done.stdout
    )
    assert ({"file": "one", "one": ""}, []) == (host.tree(), host.journals())
    assert "Nothing to recover" in host.recover().stdout


def test_an_install_that_had_taken_effect_is_completed(host: Host) -> None:
    """The new revision is there already; only old files are left to go."""
    host.install("one")
    host.install("two", killed_at="publish")
    assert [f"{GROUP}-journal-committed"] == host.journals()
    done = host.recover()
    assert 0 == done.returncode, done.stderr
    said = f"{GROUP}: the Install had taken effect; what was left to do has been completed.\n"
    assert said == done.stdout
    assert ({"file": "two", "two": ""}, []) == (host.tree(), host.journals())


def test_a_completed_install_is_the_last_successful_one_from_then_on(host: Host) -> None:
    """Its own scripts must stop what it has installed, and not those of the revision before."""
    kept = host.keep("d-2")
    host.install("one")
    host.install("two", deployment_id="d-2", killed_at="publish")
    assert 0 == host.recover().returncode
    assert str(kept) == host.last_successful()


def test_a_completed_install_that_cannot_be_named_is_not_over(host: Host) -> None:
    """The next ApplicationStop would run another revision's scripts, and nothing would tell of it any more."""
    kept = host.keep("d-2")
    host.install("one")
    host.install("two", deployment_id="d-2", killed_at="publish")
    pointer = DeploymentRoot(path=host.root).last_successful(GROUP)
    pointer.mkdir()
    done = host.recover()
    assert (1, "") == (done.returncode, done.stdout)
    assert f"{GROUP}: Deployment d-2 is installed, but {pointer} can't" in done.stderr
    assert "[install-not-completed]" in done.stderr
    assert [f"{GROUP}-journal-committed"] == host.journals()
    pointer.rmdir()
    assert 0 == host.recover().returncode
    assert (str(kept), []) == (host.last_successful(), host.journals())


def test_an_undone_install_leaves_the_last_successful_one_as_it_was(host: Host) -> None:
    """That is whose application runs."""
    first = host.keep("d-1")
    host.keep("d-2")
    host.install("one")
    pointer = DeploymentRoot(path=host.root).last_successful(GROUP)
    write_pointer(pointer, DeploymentDirectory(path=first))
    host.install("two", deployment_id="d-2", killed_at="commit")
    assert 0 == host.recover().returncode
    assert str(first) == host.last_successful()


def test_a_deployment_whose_directory_has_gone_is_not_named(host: Host) -> None:
    """There are no scripts in it to run."""
    host.install("one", killed_at="publish")
    assert 0 == host.recover().returncode
    assert "" == host.last_successful()


@pytest.mark.root
@needs_mounts
def test_old_files_that_cannot_be_removed_are_named_until_they_can(host: Host) -> None:
    """Exit code 0 would claim that nothing is left, and `agentctl plan` would send people here for ever."""
    host.install("one", directory="data")
    host.install("two", killed_at="publish")
    old = host.destination() / "data"
    done = with_mounts({old: "size=1m"}, host.recover)
    assert (1, "") == (done.returncode, done.stdout)
    assert str(old) in done.stderr
    assert f"{GROUP}: the Install had taken effect, but what is named above can't be removed" in done.stderr
    assert [f"{GROUP}-journal-committed"] == host.journals()
    assert "has been completed" in host.recover().stdout
    assert ({"file": "two", "two": ""}, []) == (host.tree(), host.journals())


def test_all_groups_are_recovered_or_only_the_one_that_is_named(host: Host) -> None:
    """One line each; a group that is not meant stays as it is."""
    for group_id in ("a", "b", "c"):
        host.install("one", group_id=group_id)
        host.install("two", group_id=group_id, killed_at="commit")
    nobody = host.recover("--deployment-group", "d")
    only_b = host.recover("-g", "b")
    assert ["a-journal", "c-journal"] == host.journals()
    rest = host.recover()
    assert (0, 0, 0) == (nobody.returncode, only_b.returncode, rest.returncode)
    assert "no interrupted Install of group d in" in nobody.stdout
    assert ["b: "] == [line[:3] for line in only_b.stdout.splitlines()]
    assert ["a: ", "c: "] == [line[:3] for line in rest.stdout.splitlines()]
    assert [{"file": "one", "one": ""}] * 3 == [host.tree(group_id) for group_id in ("a", "b", "c")]


def test_a_group_that_is_locked_is_left_alone_and_its_holder_named(host: Host) -> None:
    """`agentctl deploy` in another window: its Install looks just like an interrupted one."""
    host.install("one")
    host.install("two", killed_at="commit")
    group = host.root / GROUP
    group.mkdir()
    descriptor = open_lock(group_lock_file(group))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        done = host.recover()
    finally:
        os.close(descriptor)
    assert (1, "") == (done.returncode, done.stdout)
    assert f"{GROUP}: left alone, because pid {os.getpid()} (`" in done.stderr
    assert [f"{GROUP}-journal"] == host.journals()
    assert 0 == host.recover().returncode


def test_a_group_whose_worker_lives_is_left_alone_and_its_deployment_named(host: Host) -> None:
    """A worker that is about to undo it by itself holds its record before it has the group's lock."""
    host.install("one")
    host.install("two", killed_at="commit")
    job = host.job("run")
    done = host.recover()
    job.let_go()
    assert (1, "") == (done.returncode, done.stdout)
    assert f"because pid {os.getpid()} (Install of deployment d-8KD21MX0Q) works on it" in done.stderr
    assert [f"{GROUP}-journal"] == host.journals()


def test_the_record_of_an_undone_install_no_longer_says_that_it_took_effect(host: Host) -> None:
    """Its worker died right at the switch. The agent reports it later, and must not report a success."""
    host.install("one")
    host.install("two", killed_at="commit")
    job = host.job("commit")
    job.let_go()
    assert 0 == host.recover().returncode
    state = job.read()
    assert state is not None
    assert "undo" == state.step
    assert not job.is_alive()
    assert {"file": "one", "one": ""} == host.tree()


def test_the_record_of_a_completed_install_goes_on_saying_that_it_took_effect(host: Host) -> None:
    """And the agent reports the success that it was."""
    host.install("one")
    host.install("two", killed_at="publish")
    job = host.job("commit")
    job.let_go()
    assert 0 == host.recover().returncode
    state = job.read()
    assert state is not None
    assert "commit" == state.step


def test_what_cannot_be_recovered_is_said_and_the_other_groups_are(host: Host) -> None:
    """A journal that can't be read: here a directory in its place, which not even root can read."""
    host.install("one")
    host.install("two", killed_at="commit")
    (host.instructions / "a-group-journal").mkdir()
    done = host.recover()
    assert 1 == done.returncode
    assert "agentctl: a-group: The journal" in done.stderr
    assert "[install-journal-unreadable]" in done.stderr
    assert "Traceback" not in done.stderr
    assert f"{GROUP}: the interrupted Install has been undone" in done.stdout
    assert ["a-group-journal"] == host.journals()


def test_a_configuration_that_is_not_there_is_bad_input(agentctl: AgentCtl) -> None:
    """As everywhere."""
    done = agentctl("recover", "--config-file", "nowhere.yml")
    assert (2, "") == (done.returncode, done.stdout)
    assert "nowhere.yml can't be used" in done.stderr


@pytest.fixture
def open_host(agentctl: AgentCtl) -> Iterator[Host]:
    """A host whose files every user can read."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)  # noqa: S103 - for another user
        yield Host(agentctl, Path(directory))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_another_user_is_told_who_may_recover(open_host: Host) -> None:
    """Half an undo by somebody without the rights would be worse than none."""
    open_host.install("one")
    open_host.install("two", killed_at="commit")
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, "recover", "--config-file", open_host.config_file],
        env=clean_environment(),
        check=False,
        capture_output=True,
        text=True,
    )
    assert (4, "") == (done.returncode, done.stdout), done.stderr
    assert "only root may recover this Install; try again with sudo" in done.stderr
    assert [f"{GROUP}-journal"] == open_host.journals()
