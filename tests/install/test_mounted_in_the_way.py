"""Something is mounted in a directory that an Install has made, and that goes: what is mounted there stays as it is."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from agent.install.posix.trees import NotOurs, remove_tree
from tests.install.mounts import needs_mounts, with_mounts

if TYPE_CHECKING:
    from pathlib import Path


@needs_mounts
@pytest.mark.parametrize("levels", [1, 130])
def test_what_is_mounted_in_a_tree_is_not_removed_with_it(tmp_path: Path, levels: int) -> None:
    """A script has mounted the application's data there; that they can't go is found out too late then."""
    tree = tmp_path / "tree"
    inner = tree.joinpath(*["d"] * levels)

    def remove() -> list[str]:
        (inner / "data").mkdir()
        (inner / "data/kept").write_text("precious")
        (tree / "file").touch()
        above = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(NotOurs):
            remove_tree(above, b"tree", lambda _descriptor: True)
        return sorted(name for _place, _directories, names in os.walk(tree) for name in names)

    assert with_mounts({inner: ""}, remove) == ["kept"]


@needs_mounts
def test_a_file_that_another_one_is_mounted_over_is_not_removed_with_it(tmp_path: Path) -> None:
    """The same, as containers do it with a single file."""
    tree, data = tmp_path / "tree", tmp_path / "data"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/file").touch()
    (tree / "other").touch()
    data.write_text("precious")

    def remove() -> list[str]:
        subprocess.run(["mount", "--bind", data, tree / "sub/file"], check=True)
        above = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(NotOurs):
            remove_tree(above, b"tree", lambda _descriptor: True)
        return sorted(name for _place, _directories, names in os.walk(tree) for name in names)

    assert with_mounts({tmp_path / "unused": ""}, remove) == ["file"]
    assert data.read_text() == "precious"
