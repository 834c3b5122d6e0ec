"""Revisions can be told apart by what lies on the disk."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

from chaos.revision import content_of, digest_of, make_bundle, read_tree
from chaos.schedule import Script

if TYPE_CHECKING:
    from pathlib import Path


def test_a_destination_with_files_of_two_revisions_is_neither(tmp_path: Path) -> None:
    """A mixed tree is what an Install that was cut off leaves."""
    bundle = make_bundle(2, Script.SLOW, destination=tmp_path / "app", marks=tmp_path / "marks")
    with tarfile.open(fileobj=io.BytesIO(bundle)) as archive:
        archive.extractall(tmp_path, filter="data")
    assert digest_of(content_of(2)) == digest_of(read_tree(tmp_path / "app"))
    (tmp_path / "app" / "revision").write_text("1\n")
    assert digest_of(read_tree(tmp_path / "app")) not in {digest_of(content_of(n)) for n in (1, 2, 3)}


def test_revisions_keep_change_add_and_drop_files() -> None:
    """Each of these takes another path through Install and its undoing."""
    old, new = content_of(1), content_of(2)
    assert old.keys() - new.keys()
    assert new.keys() - old.keys()
    shared = old.keys() & new.keys()
    assert {True, False} == {old[name] == new[name] for name in shared}
