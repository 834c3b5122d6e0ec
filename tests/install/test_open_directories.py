"""A directory stays the one that it was when it was first reached, also for whoever only looks at it."""

from __future__ import annotations

import os
import pwd
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from agent.install.posix.open_directories import OpenDirectories, PlaceChanged
from tests.install.children import in_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOBODY = pwd.getpwnam("nobody").pw_uid


def _directory(place: Path) -> None:
    place.mkdir()


def _link(place: Path) -> None:
    place.symlink_to("moved")


def _file(place: Path) -> None:
    place.touch()


def _nothing(_place: Path) -> None:
    pass


@pytest.mark.parametrize("put", [_directory, _link, _file, _nothing])
def test_what_has_taken_the_place_of_a_directory_is_not_looked_at(
    tmp_path: Path, put: Callable[[Path], None]
) -> None:
    """Its owner would be taken for that of the directory. No descriptor need be open for that."""
    place = tmp_path / "place"
    place.mkdir()
    with closing(OpenDirectories()) as directories:
        real = os.fsencode(place)
        assert place.stat().st_ino == directories.status(real).st_ino
        place.rename(tmp_path / "moved")
        put(place)
        with pytest.raises(PlaceChanged):
            directories.status(real)


@pytest.mark.parametrize(("put", "error"), [(_link, NotADirectoryError), (_nothing, FileNotFoundError)])
def test_where_no_directory_was_the_error_names_the_path(
    tmp_path: Path, put: Callable[[Path], None], error: type[OSError]
) -> None:
    """A link is not followed, wherever it leads to."""
    put(tmp_path / "place")
    with closing(OpenDirectories()) as directories, pytest.raises(error) as raised:
        directories.status(os.fsencode(tmp_path / "place"))
    assert os.fsencode(tmp_path / "place") == raised.value.filename


def test_nothing_is_found_where_no_directory_was(tmp_path: Path) -> None:
    """A path without links on it has nothing at its end where anything but a directory is on the way."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "name").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("elsewhere")
    with closing(OpenDirectories()) as directories:
        for above in ("file", "link", "nothing", "file/below", "x" * 300):
            assert directories.find(os.fsencode(tmp_path / above), b"name") is None


@pytest.mark.parametrize("put", [_directory, _link, _file, _nothing])
def test_nothing_is_not_the_answer_where_a_directory_was(tmp_path: Path, put: Callable[[Path], None]) -> None:
    """What it held is somewhere, and whoever is told that there is nothing would put something into another place."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "name").touch()
    with closing(OpenDirectories()) as directories:
        directories.identity(os.fsencode(place))
        place.rename(tmp_path / "moved")
        put(place)
        for above in (place, place / "below"):
            with pytest.raises(PlaceChanged):
                directories.find(os.fsencode(above), b"name")


def test_that_a_directory_can_not_be_searched_is_not_taken_for_nothing(tmp_path: Path) -> None:
    """Something may be there all the same."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "above").mkdir()
    place.chmod(0)

    def look() -> None:
        if os.geteuid() == 0:
            os.setresuid(NOBODY, NOBODY, NOBODY)  # root may search everything
        with closing(OpenDirectories()) as directories, pytest.raises(PermissionError) as raised:
            directories.find(os.fsencode(place / "above"), b"name")
        assert os.fsencode(place / "above") in raised.value.filename

    for above in [tmp_path, tmp_path.parent, tmp_path.parent.parent]:
        above.chmod(0o755)
    try:
        in_child(look)
    finally:
        place.chmod(0o755)


def test_a_directory_that_has_another_name_for_now_is_found_by_it(tmp_path: Path) -> None:
    """As long as a new directory is hidden."""
    (tmp_path / "hidden").mkdir()
    with closing(OpenDirectories()) as directories:
        real = os.fsencode(tmp_path / "place")
        directories.name_is(real, b"hidden")
        assert (tmp_path / "hidden").stat().st_ino == directories.status(real).st_ino


@pytest.mark.parametrize("is_above_open", [True, False])
def test_a_directory_in_another_one_of_the_same_name_is_not_taken(
    tmp_path: Path,
    is_above_open: bool,  # noqa: FBT001 - as the case has it
) -> None:
    """Whoever owns the one above can exchange it, and what then has the same path is not the place that was found."""
    place = tmp_path / "above" / "place"
    place.mkdir(parents=True)
    (tmp_path / "other" / "place").mkdir(parents=True)
    with closing(OpenDirectories()) as directories:
        identity = directories.identity(os.fsencode(place))
        if not is_above_open:
            directories.close()
        (tmp_path / "above").rename(tmp_path / "moved")
        (tmp_path / "other").rename(tmp_path / "above")
        if is_above_open:
            assert (tmp_path / "moved" / "place").stat().st_ino == opened_inode(directories, place)
        else:
            with pytest.raises(PlaceChanged):
                directories.opened(os.fsencode(place))
        assert identity == directories.identity(os.fsencode(place))


def test_a_directory_that_a_link_above_leads_to_is_still_that_directory(tmp_path: Path) -> None:
    """What was moved is reached as long as its path leads to it: it is that very directory, and no other one."""
    place = tmp_path / "above" / "place"
    place.mkdir(parents=True)
    inode = place.stat().st_ino
    with closing(OpenDirectories()) as directories:
        directories.identity(os.fsencode(place))
        directories.close()
        (tmp_path / "above").rename(tmp_path / "moved")
        (tmp_path / "above").symlink_to("moved")
        assert inode == opened_inode(directories, place)


def opened_inode(directories: OpenDirectories, place: Path) -> int:
    """The inode of the directory that is opened for this path."""
    descriptor = directories.opened(os.fsencode(place))
    try:
        return os.fstat(descriptor).st_ino
    finally:
        os.close(descriptor)
