"""Revisions can be told apart by what lies on the disk."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from chaos.faults import S3Fault
from chaos.revision import content_of, digest_of, make_bundle, read_tree
from chaos.s3_answers import Answer, harmed
from chaos.schedule import BundleType, Script

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("bundle_type", BundleType)
def test_a_destination_with_files_of_two_revisions_is_neither(
    tmp_path: Path, bundle_type: BundleType
) -> None:
    """A mixed tree is what an Install that was cut off leaves."""
    bundle = make_bundle(2, Script.SLOW, bundle_type, destination=tmp_path / "app", marks=tmp_path / "marks")
    if bundle_type is BundleType.ZIP:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            archive.extractall(tmp_path)  # noqa: S202 - of our own making
    else:
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


def test_a_tar_that_has_lost_its_beginning_still_has_its_appspec(tmp_path: Path) -> None:
    """Only then can an agent that takes the rest for the whole succeed with half of the files."""
    bundle = make_bundle(
        1, Script.PLAIN, BundleType.TAR, destination=tmp_path / "app", marks=tmp_path / "marks"
    )
    chance = random.Random(1)
    real = Answer(status=200, headers={}, body=bundle)
    cuts = {harmed(S3Fault.BODY_RESET, real, chance).sent or 0 for _ in range(40)}
    halves = [bundle[cut:] for cut in cuts if bundle[cut + 257 : cut + 262] == b"ustar"]
    assert halves
    for half in halves:
        with tarfile.open(fileobj=io.BytesIO(half)) as archive:
            assert "appspec.yml" in archive.getnames()
