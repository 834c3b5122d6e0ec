"""Layout, pointers and retention."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.deployments import DeploymentRoot
from agent.deployments.group_files import GroupFiles
from agent.deployments.pointers import read_pointer, write_pointer
from agent.deployments.retention import KeptRevision, choose_expired, remove_expired
from agent.errors import CommandFailure


def test_the_layout_is_that_of_the_existing_agents() -> None:
    """A host changes agents between two deployments."""
    root = DeploymentRoot(path=Path("/root"))
    directory = root.deployment("g", "d-A")
    assert [
        "/root/g/d-A/bundle.tar",
        "/root/g/d-A/deployment-archive",
        "/root/g/d-A/logs/scripts.log",
        "/root/deployment-instructions/g_last_successful_install",
        "/root/deployment-instructions/g_most_recent_install",
        "/root/ongoing-deployment",
    ] == [
        str(path)
        for path in (
            directory.bundle,
            directory.archive,
            directory.scripts_log,
            root.last_successful("g"),
            root.most_recent("g"),
            root.ongoing("ongoing-deployment"),
        )
    ]


def test_a_pointer_names_the_directory_that_was_written(tmp_path: Path) -> None:
    """Also with a line end, as an editor leaves it."""
    root = DeploymentRoot(path=tmp_path)
    directory = root.deployment("g", "d-A")
    directory.path.mkdir(parents=True)
    write_pointer(root.last_successful("g"), directory)
    first = read_pointer(root.last_successful("g"), group=root.group("g"))
    root.last_successful("g").write_text(f"{directory.path}\n")
    second = read_pointer(root.last_successful("g"), group=root.group("g"))
    assert (directory, directory) == (first, second)


@pytest.mark.parametrize("target", ["", "/etc", "{group}", "{group}/../other/d-A", "{group}/d-gone", "d-A"])
def test_a_pointer_to_anything_else_is_none(tmp_path: Path, target: str) -> None:
    """It decides whose scripts run as root."""
    group = tmp_path / "g"
    for name in ("g/d-A", "other/d-A"):
        (tmp_path / name).mkdir(parents=True)
    pointer = tmp_path / "pointer"
    pointer.write_text(target.format(group=group))
    assert read_pointer(pointer, group=group) is None


def revision(number: int) -> KeptRevision:
    return KeptRevision(path=Path(f"/g/d-{number}"), modified_at=float(number))


@given(
    ages=st.lists(st.integers(0, 50), unique=True, max_size=20),
    max_revisions=st.integers(1, 10),
    protected=st.sets(st.integers(0, 50), max_size=2),
)
def test_retention_keeps_the_newest_and_never_touches_the_protected(
    ages: list[int], max_revisions: int, protected: set[int]
) -> None:
    """The scripts of the last successful revision stop the application, however old it is."""
    kept = {Path(f"/g/d-{number}") for number in protected & set(ages)}
    expired = choose_expired([revision(age) for age in ages], max_revisions=max_revisions, protected=kept)
    remaining = [age for age in ages if Path(f"/g/d-{age}") not in expired]
    assert not kept & set(expired)
    assert len(remaining) <= max(max_revisions, len(kept))
    unprotected = [age for age in remaining if Path(f"/g/d-{age}") not in kept]
    oldest_kept = min(unprotected, default=51)
    assert all(int(path.name[2:]) < oldest_kept for path in expired)


def test_a_download_makes_room_for_itself_and_spares_what_is_not_ours(tmp_path: Path) -> None:
    """max_revisions counts the one that is about to come; somebody's notes are not a revision."""
    for number, name in enumerate(("d-1", "d-2", "d-3", "notes")):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (number, number))
    removed = remove_expired(tmp_path, max_revisions=2, protected=[tmp_path / "d-4", tmp_path / "d-1"])
    assert (["d-2", "d-3"], ["d-1", "notes"]) == (
        [path.name for path in removed],
        sorted(os.listdir(tmp_path)),
    )


def test_a_group_that_is_not_there_has_nothing_to_remove(tmp_path: Path) -> None:
    """The first deployment of a host."""
    assert [] == remove_expired(tmp_path / "none", max_revisions=1, protected=[])


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="root only: mounts")
def test_a_revision_that_stays_is_not_said_to_have_been_removed(tmp_path: Path) -> None:
    """The log's `revisions_expired` would send people to look for the room that it has made."""
    busy = tmp_path / "d-1"
    busy.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", busy], check=True)
    try:
        assert [] == remove_expired(tmp_path, max_revisions=1, protected=[tmp_path / "d-2"])
    finally:
        subprocess.run(["umount", busy], check=True)


def test_records_that_can_not_be_looked_at_are_not_taken_for_no_interrupted_install(tmp_path: Path) -> None:
    """The next Install would come on top of half of the last one."""
    files = GroupFiles(directory=tmp_path / "instructions", group_id="g")
    assert not files.is_interrupted
    files.directory.symlink_to("instructions")
    with pytest.raises(
        CommandFailure, match="group g was interrupted, because .*/g-journal can't be looked at"
    ):
        assert files.is_interrupted
