"""Which events a revision has scripts for, remembered: quick, and never wrong."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from agent.deployments import DeploymentDirectory
from agent.worker.runs.event_index import appspec_of, has_remembered_events, remembered_events
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

INDEX = ".appspec-events"
APPSPEC = """\
version: 0.0
os: linux
hooks:
  BeforeInstall: [{location: a.sh}]
  AfterInstall: [{location: a.sh}]
"""


@pytest.fixture
def revision(tmp_path: Path) -> DeploymentDirectory:
    """A revision with an AppSpec, remembered to have scripts for two events."""
    directory = DeploymentDirectory(path=tmp_path / "d-1")
    directory.archive.mkdir(parents=True)
    appspec = directory.archive / "appspec.yml"
    appspec.write_text(APPSPEC)
    wait_until(lambda: remembered_when_read(directory), "it is remembered")
    return directory


def remembered_when_read(directory: DeploymentDirectory) -> Collection[str] | None:
    """What is remembered after one more reading."""
    appspec_of(directory, None)
    return remembered_events(directory)


def test_what_is_remembered_is_known_without_reading_the_appspec(revision: DeploymentDirectory) -> None:
    """Most events have no scripts, and knowing that must not cost a YAML parser."""
    assert {"BeforeInstall", "AfterInstall"} == set(remembered_events(revision) or ())


@pytest.mark.parametrize("link", ["root", "root/d-1/deployment-archive"], ids=["root", "archive"])
def test_a_revision_that_lies_behind_a_link_is_read_and_remembered(tmp_path: Path, link: str) -> None:
    """Somebody has moved the deployment root, or one large archive, to another disk."""
    directory = DeploymentDirectory(path=tmp_path / "root" / "d-1")
    directory.archive.mkdir(parents=True)
    (directory.archive / "appspec.yml").write_text(APPSPEC)
    (tmp_path / link).rename(tmp_path / "moved")
    (tmp_path / link).symlink_to(tmp_path / "moved")
    remembered = wait_until(lambda: remembered_when_read(directory), "it is remembered")
    assert {"BeforeInstall", "AfterInstall"} == set(remembered)


def test_nothing_is_known_of_a_revision_that_nobody_has_read(tmp_path: Path) -> None:
    """Or that another agent has downloaded."""
    assert remembered_events(DeploymentDirectory(path=tmp_path)) is None


def rewritten(revision: DeploymentDirectory) -> None:
    (revision.archive / "appspec.yml").write_text("version: 0.0\nos: linux\nhooks: {}\n")


def rewritten_to_the_same_size_and_time(revision: DeploymentDirectory) -> None:
    appspec = revision.archive / "appspec.yml"
    before = appspec.stat()
    appspec.write_text("version: 0.0\nos: LINUX\n")
    os.utime(appspec, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(revision: DeploymentDirectory) -> None:
    beside = revision.archive / "new"
    beside.write_text("version: 0.0\nos: linux\n")
    beside.replace(revision.archive / "appspec.yml")


def removed(revision: DeploymentDirectory) -> None:
    (revision.archive / "appspec.yml").unlink()


def outranked(revision: DeploymentDirectory) -> None:
    (revision.archive / "appspec.yaml").write_text("version: 0.0\nos: linux\n")


def unpacked_again(revision: DeploymentDirectory) -> None:
    revision.archive.rename(revision.path / "old")
    revision.archive.mkdir()
    (revision.archive / "appspec.yml").write_text("version: 0.0\nos: linux\n")


def cut_off(revision: DeploymentDirectory) -> None:
    index = revision.path / INDEX
    index.write_bytes(index.read_bytes()[:-5])


def of_another_shape(revision: DeploymentDirectory) -> None:
    (revision.path / INDEX).write_text(json.dumps(["BeforeInstall"]))


@pytest.mark.parametrize(
    "change",
    [
        rewritten,
        rewritten_to_the_same_size_and_time,
        replaced,
        removed,
        outranked,
        unpacked_again,
        cut_off,
        of_another_shape,
    ],
)
def test_after_any_change_nothing_is_known_any_more(
    revision: DeploymentDirectory, change: Callable[[DeploymentDirectory], None]
) -> None:
    """A script that somebody adds on the host at 3 a.m. must run."""
    change(revision)
    assert remembered_events(revision) is None


def test_a_worker_that_has_read_the_appspec_reads_it_again_once_it_has_changed(
    revision: DeploymentDirectory,
) -> None:
    """It carries one event after the other, and a script of one may write the hooks of the next."""
    assert {"BeforeInstall", "AfterInstall"} == set(appspec_of(revision, None).hooks)
    appspec = revision.archive / "appspec.yml"
    before = appspec.stat()
    appspec.write_text(APPSPEC.replace("BeforeInstall", "AaaaaaInstall"))
    os.utime(appspec, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert {"AaaaaaInstall", "AfterInstall"} == set(appspec_of(revision, None).hooks)


def test_what_was_read_within_the_clock_tick_of_a_change_is_not_relied_on(tmp_path: Path) -> None:
    """The next change may look the same: kernels count the times of files in steps of milliseconds."""
    directory = DeploymentDirectory(path=tmp_path / "d-1")
    directory.archive.mkdir(parents=True)
    (directory.archive / "appspec.yml").write_text(APPSPEC)
    appspec_of(directory, None)
    assert has_remembered_events(directory)
    index = directory.path / INDEX
    remembered = json.loads(index.read_text())
    remembered["at"] = remembered["state"][0] / 1e9 + 0.05
    index.write_text(json.dumps(remembered))
    assert remembered_events(directory) is None


def test_what_cannot_be_remembered_is_simply_not_known(revision: DeploymentDirectory) -> None:
    """A full disk must not fail an event that has nothing to do."""
    (revision.path / INDEX).unlink()
    (revision.path / INDEX).mkdir()
    appspec_of(revision, None)
    assert remembered_events(revision) is None


@pytest.fixture
def coarse_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that counts whole seconds, as an old one that was never made anew."""
    image, mount = tmp_path / "image", tmp_path / "disk"
    image.write_bytes(b"")
    os.truncate(image, 4 * 2**20)
    mount.mkdir()
    try:
        subprocess.run(["mkfs.ext4", "-q", "-I", "128", image], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", image, mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no such file system can be made here: {error}")
    yield mount
    subprocess.run(["umount", mount], check=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts file systems")
def test_what_is_changed_within_the_second_in_which_it_was_read_is_read_again(coarse_disk: Path) -> None:
    """A hook edits the AppSpec in its place; its time is the same as before."""
    directory = DeploymentDirectory(path=coarse_disk / "d-1")
    directory.archive.mkdir(parents=True)
    wait_until(lambda: time.time() % 1 < 0.1, "a second begins")
    appspec = directory.archive / "appspec.yml"
    appspec.write_text(APPSPEC)
    wait_until(lambda: remembered_when_read(directory), "it is remembered")
    appspec.write_text(APPSPEC.replace("AfterInstall", "ValidateIt__"))
    assert remembered_events(directory) is None
    assert "AfterInstall" not in appspec_of(directory, None).hooks
