"""Files so large that they are not read when they are copied: whose they are later on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from agent.install.model.moments import Moment
from tests.install.observers import at_step

if TYPE_CHECKING:
    from tests.install.host import Host


LARGE = "B" * 1_300_000


def test_a_large_file_that_a_hook_has_given_away_goes_with_its_revision(host: Host) -> None:
    """`chmod` and `chown` change no content; else each old jar would stay for ever."""
    host.install({"app/old.jar": LARGE, "app/other.jar": LARGE})
    (host.dest / "app/old.jar").chmod(0o600)

    summary = host.install({"app/new.jar": LARGE})

    assert (2, ()) == (summary.removed, summary.left_behind)
    assert ["app/", "app/new.jar"] == sorted(host.tree())


def test_all_names_of_a_large_file_go_with_its_revision(host: Host) -> None:
    """The end of the first name changes the file that the second one names."""
    host.install(
        {"app/a": LARGE, "app/b": {"same_as": "app/a"}, "app/c": {"same_as": "app/a"}, "app/keep": "k"}
    )

    summary = host.install({"app/keep": "k"})

    assert (3, ()) == (summary.removed, summary.left_behind)
    assert ["app/", "app/keep"] == sorted(host.tree())


@pytest.mark.parametrize("change", ["edited", "replaced", "longer"])
def test_a_large_file_with_another_content_stays(host: Host, change: str) -> None:
    """Somebody has put it there."""
    host.install({"app/a": LARGE, "app/keep": "k"})
    path = host.dest / "app/a"
    was = path.stat()
    if change == "edited":
        with path.open("r+") as stream:
            stream.write("changed")
    elif change == "replaced":
        path.unlink()
        (host.dest / "another inode").write_text("")
        path.write_text("C" * len(LARGE))
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    else:
        with path.open("a") as stream:
            stream.write("more")
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))

    summary = host.install({"app/keep": "k"})

    assert (0, (str(path),)) == (summary.removed, summary.left_behind)
    assert path.exists()


def test_a_file_that_is_kept_with_its_directory_is_told_where_it_is_now(host: Host) -> None:
    """The directory has given way to a file; a hidden name that is gone would help nobody."""
    host.install({"app/place/a": LARGE, "app/place/b": "b"})
    edit = at_step(Moment.COMMIT, lambda: edit_hidden(host))

    summary = host.install({"app/place": "a file"}, observer=edit)

    assert "a file" == (host.dest / "app/place").read_text()
    (directory,) = (host.dest / "app").glob("place.kept-*")
    assert {str(host.dest / "app/place"), str(directory / "a")} == set(summary.left_behind)
    assert ["a"] == os.listdir(directory)


def edit_hidden(host: Host) -> None:
    """Somebody who has the file open writes into it, when its directory has given way already."""
    (path,) = (host.dest / "app").glob(".install-*/a")
    path.write_text("C" * len(LARGE))
