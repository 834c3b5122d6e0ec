"""The index of an archive, by which Install knows what has not changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from agent.archive_index import ArchiveIndex, digest_in, identity_of, index_of
from agent.listings import content_digest
from agent.protocol import BundleType
from tests.bundle.packing import directory, file, hard_link, symlink, tar_bytes, tgz_bytes, zip_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bundle.conftest import Deployment
    from tests.bundle.packing import Pack

LARGE = os.urandom(300_000)
MEMBERS = (
    file("appspec.yml", b"version: 0.0\nos: linux\n"),
    directory("app"),
    file("app/a b%20c", b"odd name"),
    file("app/large", LARGE),
    file("app/empty", b""),
    symlink("app/link", "large"),
)


def digest_of(archive: Path, name: str) -> bytes | None:
    """What the index of the archive knows of this file."""
    path = os.fsencode(archive / name)
    entries = ArchiveIndex(archive).of(os.path.dirname(path))
    return digest_in(entries.get(os.path.basename(path)), identity_of(os.lstat(path)))


@pytest.mark.parametrize(
    ("pack", "kind"),
    [(tar_bytes, BundleType.TAR), (tgz_bytes, BundleType.TGZ), (zip_bytes, BundleType.ZIP)],
    ids=["tar", "tgz", "zip"],
)
def test_the_digest_of_each_file_is_known(deployment: Deployment, pack: Pack, kind: BundleType) -> None:
    """Whatever the bundle's format, Install need not read what has not changed."""
    archive = deployment.unpack(pack(*MEMBERS), kind)

    for member in MEMBERS:
        if member.name not in {"app", "app/link"}:
            assert content_digest(member.content) == digest_of(archive, member.name)
    assert digest_of(archive, "app/link") is None


def test_a_wrapper_directory_is_not_in_the_index_either(deployment: Deployment) -> None:
    """Its files lie one level higher than in the bundle."""
    members = (file("app-1.2/appspec.yml", b"x"), file("app-1.2/sub/x", b"y"))
    archive = deployment.unpack(tgz_bytes(*members), BundleType.TGZ)

    assert content_digest(b"x") == digest_of(archive, "appspec.yml")
    assert content_digest(b"y") == digest_of(archive, "sub/x")


def test_a_file_that_a_hook_has_edited_is_not_taken_for_what_was_unpacked(deployment: Deployment) -> None:
    """Even when it has the size and the time of before, as after `sed -i` and `touch -r`."""
    archive = deployment.unpack(tar_bytes(file("appspec.yml", b"one")), BundleType.TAR)
    before = os.stat(archive / "appspec.yml")
    (archive / "appspec.yml").write_bytes(b"two")
    os.utime(archive / "appspec.yml", ns=(before.st_atime_ns, before.st_mtime_ns))

    assert digest_of(archive, "appspec.yml") is None


def test_the_last_member_of_a_name_counts(deployment: Deployment) -> None:
    """As it does on the disk."""
    archive = deployment.unpack(
        tar_bytes(file("a", b"first"), file("a", b"last"), file("b", b"b"), hard_link("c", "b")),
        BundleType.TAR,
    )

    assert content_digest(b"last") == digest_of(archive, "a")
    assert digest_of(archive, "c") is None


def test_an_index_that_cannot_be_written_costs_nothing_but_time(deployment: Deployment) -> None:
    """It must not fail a deployment."""
    index_of(deployment.archive).mkdir()

    archive = deployment.unpack(tar_bytes(file("a", b"a")), BundleType.TAR)

    assert b"a" == (archive / "a").read_bytes()
    assert digest_of(archive, "a") is None


@pytest.mark.parametrize(
    "content", [b"", b"archive-index 9\nd \n1 2 3 4 5 a\n", b"archive-index 1\nd \n1 2", b"\xff" * 99]
)
def test_a_damaged_index_is_no_index(deployment: Deployment, content: bytes) -> None:
    """The host may have died while it was written."""
    archive = deployment.unpack(tar_bytes(file("a", b"a")), BundleType.TAR)
    index_of(archive).write_bytes(content)

    assert digest_of(archive, "a") is None
