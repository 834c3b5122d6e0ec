"""Revisions that are on this host already: a file, a directory, an earlier archive."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.archive_index import ArchiveIndex
from agent.bundle import ArchiveLimits, BundleSources, FetchedBundle, make_deployment_archive, reuse_archive
from agent.bundle.failures import corrupt
from agent.bundle.tree_copy import copy_tree
from agent.bundle.unpack import unchanged
from agent.errors import CommandFailure
from agent.protocol import BundleType
from agent.specification import LocalRevision
from tests.bundle.conftest import APPSPEC_NAMES
from tests.bundle.packing import MTIME, file, tgz_bytes, tree_of

if TYPE_CHECKING:
    from agent.identity.credentials import Credentials
    from tests.bundle.conftest import Deployment


def no_credentials() -> Credentials:
    raise AssertionError("nothing is asked for over the network")


def deploy(deployment: Deployment, location: Path, bundle_type: BundleType) -> FetchedBundle:
    return make_deployment_archive(
        LocalRevision(location=location, bundle_type=bundle_type),
        bundle=deployment.bundle,
        archive=deployment.archive,
        sources=BundleSources(s3_endpoint="", region="", credentials=no_credentials),
        limits=ArchiveLimits(),
        appspec_names=APPSPEC_NAMES,
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with one of everything."""
    root = tmp_path / "test-source"
    (root / "app" / "empty").mkdir(parents=True)
    (root / "appspec.yml").write_text("version: 0.0\nos: linux\n")
    (root / "app" / "run.sh").write_bytes(b"#!/bin/sh\n")
    (root / "app" / "run.sh").chmod(0o4755)
    (root / "app" / "same").hardlink_to(root / "app" / "run.sh")
    (root / "app" / "large").write_bytes(os.urandom(400_000))
    (root / ".hidden").write_bytes(b"")
    (root / "app" / "link").symlink_to("run.sh")
    (root / "app" / "up").symlink_to("../app")
    (root / "app" / "gr\udcfc").write_bytes(b"latin-1")
    (root / "app" / "ro").mkdir()
    (root / "app" / "ro" / "x").write_bytes(b"x")
    (root / "app" / "ro").chmod(0o2555)
    for path in ("app/run.sh", "app/empty", "app/link"):
        os.utime(root / path, (MTIME, MTIME), follow_symlinks=False)
    return root


def test_a_local_bundle_is_linked_and_unpacked(deployment: Deployment, tmp_path: Path) -> None:
    """Nothing is copied twice; `bundle.tar` is a link as it has always been."""
    location = tmp_path / "test-bundle.tgz"
    location.write_bytes(tgz_bytes(file("appspec.yml"), file("x")))

    fetched = deploy(deployment, location, BundleType.TGZ)

    assert FetchedBundle(bundle_type=BundleType.TGZ, size_bytes=location.stat().st_size) == fetched
    assert location == deployment.bundle.readlink()
    assert ["appspec.yml", "x"] == list(tree_of(deployment.archive))


def test_a_local_directory_is_copied_with_modes_times_and_links(deployment: Deployment, source: Path) -> None:
    """What a developer tries locally must be what a bundle of it would have been."""
    fetched = deploy(deployment, source, BundleType.DIRECTORY)

    archive = deployment.archive
    assert tree_of(source) == tree_of(archive)
    assert MTIME == (archive / "app/run.sh").stat().st_mtime
    assert MTIME == (archive / "app/empty").stat().st_mtime
    assert MTIME == (archive / "app/link").lstat().st_mtime
    assert (archive / "app/run.sh").stat().st_ino == (archive / "app/same").stat().st_ino
    assert [".archive-index", "deployment-archive"] == deployment.left()
    assert (
        sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
        > fetched.size_bytes
        > 400_000
    )


@pytest.mark.parametrize("way", ["directory", "earlier archive"])
def test_what_was_copied_is_known_afterwards(deployment: Deployment, source: Path, way: str) -> None:
    """Otherwise Install could not tell a source that a script has emptied from one that never held anything."""
    if way == "directory":
        deploy(deployment, source, BundleType.DIRECTORY)
    else:
        reuse_archive(source, deployment.archive, APPSPEC_NAMES)

    archive = os.fsencode(deployment.archive)
    index = ArchiveIndex(deployment.archive)
    assert {os.fsencode(path.relative_to(source)) for path in source.rglob("*")} == set(index.paths())
    assert 9 == index.files_below(archive)
    assert 7 == index.files_below(archive + b"/app")
    assert 0 == index.files_below(archive + b"/app/empty")
    assert index.lists_all(archive + b"/app", os.stat(archive + b"/app"))
    (deployment.archive / "app" / "link").unlink()
    assert not index.lists_all(archive + b"/app", os.stat(archive + b"/app"))


def test_a_directory_is_never_changed_by_its_deployment(deployment: Deployment, source: Path) -> None:
    """Reflinks and links must not connect the two."""
    deploy(deployment, source, BundleType.DIRECTORY)

    (deployment.archive / "app" / "large").write_bytes(b"changed")

    assert 400_000 == (source / "app" / "large").stat().st_size


@pytest.mark.parametrize(
    ("name", "bundle_type", "error_id"),
    [
        ("test-source", BundleType.ZIP, "bundle-local-wrong-kind"),
        ("test-source/appspec.yml", BundleType.DIRECTORY, "bundle-local-wrong-kind"),
        ("test-gone", BundleType.TAR, "bundle-local-missing"),
        ("test-gone", BundleType.DIRECTORY, "bundle-local-missing"),
    ],
)
def test_a_wrong_location_is_refused_before_anything_is_made(
    deployment: Deployment, source: Path, name: str, bundle_type: BundleType, error_id: str
) -> None:
    """A typing error on the command line; the message has the path."""
    with pytest.raises(CommandFailure, match=name) as failure:
        deploy(deployment, source.parent / name, bundle_type)

    assert error_id == failure.value.error_id
    assert [] == deployment.left()


def test_a_directory_that_holds_the_deployment_root_is_refused(deployment: Deployment) -> None:
    """It would be copied into itself without end."""
    with pytest.raises(CommandFailure) as failure:
        deploy(deployment, deployment.directory.parent, BundleType.DIRECTORY)

    assert "bundle-local-overlap" == failure.value.error_id
    assert [] == deployment.left()


def test_a_socket_in_a_directory_is_named(
    deployment: Deployment, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Editors and servers leave them behind."""
    monkeypatch.chdir(source / "app")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("left.sock")

    with pytest.raises(CommandFailure, match=r"app/left\.sock") as failure:
        deploy(deployment, source, BundleType.DIRECTORY)

    assert "archive-entry-unsupported" == failure.value.error_id
    assert [] == deployment.left()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_cannot_be_read_is_named(deployment: Deployment, source: Path) -> None:
    """And nothing half copied stays."""
    (source / "app" / "large").chmod(0)

    with pytest.raises(CommandFailure, match="large") as failure:
        deploy(deployment, source, BundleType.DIRECTORY)

    assert "archive-write-failed" == failure.value.error_id
    assert [] == deployment.left()


def test_an_earlier_archive_is_used_again(deployment: Deployment, source: Path) -> None:
    """A restart must not depend on the bundle still being in its bucket."""
    reuse_archive(source, deployment.archive, APPSPEC_NAMES)

    assert tree_of(source) == tree_of(deployment.archive)
    assert (deployment.archive / "app/run.sh").stat().st_ino != (source / "app/run.sh").stat().st_ino


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_an_earlier_archive_keeps_its_owners_and_a_local_directory_does_not(
    deployment: Deployment, source: Path
) -> None:
    """An archive's owners came with its bundle; those of a checkout are whoever's it happens to be."""
    for path in (source / "app", source / "app" / "large"):
        os.chown(path, 1234, 4321)
    os.chown(source / "app" / "link", 1234, 4321, follow_symlinks=False)

    reuse_archive(source, deployment.archive, APPSPEC_NAMES)
    owners = {name: (deployment.archive / name).lstat().st_uid for name in ("app", "app/large", "app/link")}
    assert {"app": 1234, "app/large": 1234, "app/link": 1234} == owners

    deploy(deployment, source, BundleType.DIRECTORY)
    assert 0 == (deployment.archive / "app/large").stat().st_uid


def test_an_archive_without_appspec_is_not_used_again(
    deployment: Deployment, tmp_path: Path, source: Path
) -> None:
    """What an older clean-up or a person left of it would be installed as the whole."""
    (source / "appspec.yml").unlink()
    link = tmp_path / "test-link"
    link.symlink_to(source)
    for earlier in (source, tmp_path / "test-gone", link):
        with pytest.raises(CommandFailure) as failure:
            reuse_archive(earlier, deployment.archive, APPSPEC_NAMES)
        assert "archive-reuse-incomplete" == failure.value.error_id
        assert [] == deployment.left()


@pytest.mark.parametrize("name", ["app/run.sh", "app/link", "app/gr\udcfc", ".hidden", "app/empty"])
def test_an_archive_that_lacks_what_it_once_held_is_not_used_again(
    deployment: Deployment, tmp_path: Path, source: Path, name: str
) -> None:
    """A script has removed it, or a cleaner: less than the revision would be installed, and reported as all of it."""
    earlier = tmp_path / "test-earlier" / "deployment-archive"
    earlier.parent.mkdir()
    reuse_archive(source, earlier, APPSPEC_NAMES)
    reuse_archive(earlier, deployment.archive, APPSPEC_NAMES)
    place = earlier / name
    if place.is_dir():
        place.rmdir()
    else:
        place.unlink()

    with pytest.raises(CommandFailure, match="has been removed since") as failure:
        reuse_archive(earlier, deployment.archive, APPSPEC_NAMES)

    assert "archive-reuse-incomplete" == failure.value.error_id
    assert [".archive-index", "deployment-archive"] == deployment.left()


def test_a_copy_that_fails_leaves_nothing(
    deployment: Deployment, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The download that follows starts from an empty place."""
    monkeypatch.chdir(source)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")

    with pytest.raises(CommandFailure):
        reuse_archive(source, deployment.archive, APPSPEC_NAMES)

    assert [] == deployment.left()


def test_a_copy_can_go_to_another_file_system(source: Path) -> None:
    """The deployment root is often a volume of its own; the kernel then can't always copy by itself."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == source.stat().st_dev:
        pytest.skip("there is no second file system")
    with tempfile.TemporaryDirectory(dir=memory) as target:
        copy_tree(source, Path(target), keeps_owners=False)

        assert tree_of(source) == tree_of(Path(target))
        (Path(target) / "app" / "ro").chmod(0o755)


@pytest.mark.parametrize("written", [b"more", b""])
def test_a_bundle_that_is_written_to_while_it_is_unpacked_is_refused(
    deployment: Deployment, written: bytes
) -> None:
    """A build that is not over yet: what was read is of two files, even where it can be unpacked."""
    deployment.bundle.write_bytes(b"the first build")

    def unpack_meanwhile() -> None:
        with deployment.bundle.open("rb") as stream, unchanged(stream.fileno(), deployment.bundle):
            deployment.bundle.write_bytes(written)
            raise corrupt(deployment.bundle, "it is cut off")

    with pytest.raises(CommandFailure) as failure:
        unpack_meanwhile()

    assert "bundle-local-changed" == failure.value.error_id
    assert f"has {len(written)} now" in failure.value.message


def test_a_bundle_that_nobody_writes_to_fails_for_its_own_reason(deployment: Deployment) -> None:
    """What is wrong with it must not be hidden."""
    deployment.bundle.write_bytes(b"the build")
    with (
        deployment.bundle.open("rb") as stream,
        pytest.raises(CommandFailure, match="it is cut off"),
        unchanged(stream.fileno(), deployment.bundle),
    ):
        raise corrupt(deployment.bundle, "it is cut off")


def test_a_file_that_is_written_to_all_the_time_is_not_copied_half(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's copy takes what is there, of a build that is not over yet as well."""
    source = tmp_path / "test-source"
    source.mkdir()
    written = source / "growing"
    written.write_bytes(b"x" * 200_000)
    copy, is_building = os.copy_file_range, True

    def copy_meanwhile(reader: int, writer: int, count: int) -> int:
        if is_building:
            with written.open("ab") as stream:
                stream.write(b"more")
        return copy(reader, writer, count)

    monkeypatch.setattr(os, "copy_file_range", copy_meanwhile)
    with pytest.raises(CommandFailure, match="'growing' in the directory was written to") as failure:
        deploy(deployment, source, BundleType.DIRECTORY)
    assert "bundle-local-changed" == failure.value.error_id
    assert [] == deployment.left()

    is_building = False
    deploy(deployment, source, BundleType.DIRECTORY)
    assert written.read_bytes() == (deployment.archive / "growing").read_bytes()
