"""The last successful deployment is the one that is installed, whatever could not be written when it was.

Its scripts stop the application, and its archive is never cleared away: naming another one does harm.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.appspec import read_appspec
from agent.deployments import DeploymentFacts, JobStore
from agent.deployments.job_state import COMMIT, RUN
from agent.errors import CommandFailure
from agent.install import InstallRequest, install
from agent.install.model.moments import Moment
from agent.protocol import BundleType, FileExistsBehavior, HostCommand
from agent.settings import Settings
from agent.specification import DeploymentSpecification, LocalRevision
from agent.worker.context import HostContext
from agent.worker.installed import recover_group
from agent.worker.process import this_process
from agent.worker.recovery import recover_interrupted, restore
from agent.worker.runs.install import InstallRun, install_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GROUP = "11111111-2222-3333-4444-555555555555"


class Group:
    """A deployment group on a host of its own."""

    def __init__(self, base: Path) -> None:
        settings = Settings(root_dir=base / "root", pid_dir=base / "state")
        self.host = HostContext(settings=settings, identity=None, s3_url="", environment={})
        self.root = self.host.root
        self.pointer = self.root.last_successful(GROUP)
        self.destination = base / "destination"

    def install(self, deployment_id: str, *, on_step: Callable[[str], None] = lambda _step: None) -> None:
        """Install a revision of one file, which holds the deployment's id."""
        self._unpack(deployment_id)
        InstallRun(self._specification(deployment_id), replace(self.host, on_step=on_step)).carry_out()

    def request(self, deployment_id: str) -> InstallRequest:
        """What such an Install asks for."""
        archive = self._unpack(deployment_id)
        return install_request(
            read_appspec(archive, None), archive, self._specification(deployment_id), self.host
        )

    def _unpack(self, deployment_id: str) -> Path:
        archive = self.root.deployment(GROUP, deployment_id).archive
        archive.mkdir(parents=True, exist_ok=True)
        (archive / "file").write_text(deployment_id)
        files = f"files: [{{source: file, destination: {self.destination}}}]"
        (archive / "appspec.yml").write_text(f"version: 0.0\nos: linux\n{files}\n")
        return archive

    def _specification(self, deployment_id: str) -> DeploymentSpecification:
        archive = self.root.deployment(GROUP, deployment_id).archive
        return DeploymentSpecification(
            deployment_id=deployment_id,
            deployment_group_id=GROUP,
            deployment_group_name="blue",
            application_name="shop",
            revision=LocalRevision(location=archive, bundle_type=BundleType.DIRECTORY),
            file_exists_behavior=FileExistsBehavior.DISALLOW,
        )

    @property
    def installed(self) -> str:
        """Id of the deployment whose file is there."""
        return (self.destination / "file").read_text()

    @property
    def last_successful(self) -> str:
        """Id of the deployment that the pointer names."""
        return os.path.basename(self.pointer.read_text())

    @property
    def journals(self) -> list[str]:
        """What is left of Installs that did not come to an end."""
        return [name for name in os.listdir(self.root.instructions) if "-journal" in name]


@pytest.fixture
def group(tmp_path: Path) -> Group:
    """One with a deployment d-1."""
    made = Group(tmp_path)
    made.install("d-1")
    return made


def put_in_the_way(path: Path) -> None:
    """A directory in the place of a file, which is not even replaced by root."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, f"{path}.before")
    path.mkdir()


@contextlib.contextmanager
def in_the_way(path: Path) -> Iterator[None]:
    """Within the block this file can't be written."""
    put_in_the_way(path)
    yield
    path.rmdir()
    os.rename(f"{path}.before", path)


def test_an_install_that_could_not_be_completed_is_the_last_successful_one(group: Group) -> None:
    """It is reported as failed, for its records are not written; but what is installed is installed."""
    cleanup = group.root.instructions / f"{GROUP}-cleanup"
    with pytest.raises(CommandFailure) as raised:
        group.install("d-2", on_step=lambda _commit: put_in_the_way(cleanup))
    assert "install-not-completed" == raised.value.error_id
    assert ("d-2", "d-2") == (group.installed, group.last_successful)
    cleanup.rmdir()
    assert not recover_group(GROUP, group.root)
    assert ("d-2", "d-2", []) == (group.installed, group.last_successful, group.journals)


def test_an_install_that_could_not_be_named_says_that_it_is_installed_and_what_to_fix(group: Group) -> None:
    """`deploy again` would be wrong: nothing of the deployment itself is missing."""
    with in_the_way(group.pointer), pytest.raises(CommandFailure) as raised:
        group.install("d-2")
    assert "install-not-completed" == raised.value.error_id
    assert f"Deployment d-2 is installed, but {group.pointer} can't be written" in raised.value.message
    assert "the next command of this group, or the next start of the agent, completes" in raised.value.message
    assert ("d-2", "d-1") == (group.installed, group.last_successful)


def test_the_next_command_names_it_however_often_that_has_failed(group: Group) -> None:
    """A disk that stays full for some commands; what tells them so must not go before it is done."""
    with in_the_way(group.pointer):
        with pytest.raises(CommandFailure):
            group.install("d-2")
        for _attempt in range(2):
            with pytest.raises(CommandFailure) as raised:
                recover_group(GROUP, group.root)
            assert "install-not-completed" == raised.value.error_id
            assert str(group.pointer) in raised.value.message
    assert not recover_group(GROUP, group.root)
    assert ("d-2", "d-2", []) == (group.installed, group.last_successful, group.journals)


def test_the_start_of_the_agent_names_it_too(group: Group) -> None:
    """No command of the group may come for weeks, and then clear the wrong archive away."""
    with in_the_way(group.pointer), pytest.raises(CommandFailure):
        group.install("d-2")
    recover_interrupted(group.host)
    assert ("d-2", "d-2", []) == (group.installed, group.last_successful, group.journals)


@pytest.mark.parametrize("named_before", [False, True])
def test_a_crash_right_after_it_took_effect_changes_nothing_of_that(
    group: Group, *, named_before: bool
) -> None:
    """Before or after it was named, its records still wait to be published."""

    def die(kind: Moment, _path: bytes) -> None:
        if kind != Moment.PUBLISH:
            return
        if named_before:
            group.pointer.write_text(str(group.root.deployment(GROUP, "d-2").path))
        os.kill(os.getpid(), signal.SIGKILL)

    request = group.request("d-2")
    process = multiprocessing.get_context("fork").Process(
        target=install, args=(request,), kwargs={"observer": die}
    )
    process.start()
    process.join()
    assert (-signal.SIGKILL, "d-2") == (process.exitcode, group.installed)
    assert not recover_group(GROUP, group.root)
    assert ("d-2", "d-2", []) == (group.installed, group.last_successful, group.journals)


def test_an_install_that_is_undone_leaves_the_last_successful_one_as_it_was(group: Group) -> None:
    """Here it is broken off right before it takes effect."""

    def break_off(_step: str) -> None:
        raise OSError(5, "broken off")

    with pytest.raises(CommandFailure) as raised:
        group.install("d-2", on_step=break_off)
    assert "install-failed" == raised.value.error_id
    assert ("d-1", "d-1", []) == (group.installed, group.last_successful, group.journals)


def test_a_deployment_whose_directory_has_gone_is_not_named(group: Group) -> None:
    """There are no scripts in it to run."""
    with in_the_way(group.pointer), pytest.raises(CommandFailure):
        group.install("d-2")
    directory = group.root.deployment(GROUP, "d-2").path
    os.rename(directory, directory.with_name("elsewhere"))
    assert not recover_group(GROUP, group.root)
    assert ("d-1", []) == (group.last_successful, group.journals)


@pytest.mark.parametrize(("step", "error_id"), [(COMMIT, "install-not-completed"), (RUN, "worker-lost")])
def test_a_lost_install_that_took_effect_is_not_reported_as_one_that_could_not_be_undone(
    group: Group, step: str, error_id: str
) -> None:
    """Whoever reads that looks for the previous revision, and it is gone. Unless it was an earlier Install."""
    with in_the_way(group.pointer):
        with pytest.raises(CommandFailure):
            group.install("d-2")
        job = JobStore(group.host.settings.state_directory).accept(
            HostCommand(
                identifier="hc-1", host_identifier="host", deployment_execution_id="x", name="Install"
            )
        )
        job.note_worker(this_process())
        job.note_deployment(
            DeploymentFacts(
                deployment_id="d-2",
                deployment_group_id=GROUP,
                deployment_group_name="blue",
                application_name="shop",
            )
        )
        job.note_step(step)
        restore(job, group.host)
    state = job.read()
    job.let_go()
    assert state is not None
    assert state.result is not None
    assert error_id == state.result.error_id
    assert f"but {group.pointer} can't be written" in state.result.message
