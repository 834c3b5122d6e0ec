"""Bundles that want to get out of their directory, or to fill the host."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from agent.bundle import ArchiveLimits
from agent.errors import CommandFailure
from agent.protocol import BundleType
from tests.bundle.packing import (
    Member,
    directory,
    file,
    hard_link,
    symlink,
    tar_bytes,
    tgz_bytes,
    tree_of,
    zip_bytes,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bundle.conftest import Deployment
    from tests.bundle.packing import Pack

TAR, TGZ, ZIP = BundleType.TAR, BundleType.TGZ, BundleType.ZIP


def refusal(
    deployment: Deployment, content: bytes, kind: BundleType, limits: ArchiveLimits | None = None
) -> CommandFailure:
    """The failure of unpacking this, after which nothing of it may be left."""
    with pytest.raises(CommandFailure) as failure:
        deployment.unpack(content, kind, limits)
    assert ["bundle.tar"] == deployment.left()
    return failure.value


@pytest.mark.parametrize("pack", [tar_bytes, tgz_bytes, zip_bytes])
@pytest.mark.parametrize(
    ("members", "named"),
    [
        ((file("ok"), file("../escaped")), "../escaped"),
        ((file("ok"), file("app/../../escaped")), "app/../../escaped"),
        ((file("ok"), file("a/..")), "a/.."),
        ((file("ok"), file("/tmp/absolute")), "/tmp/absolute"),
        ((symlink("hole", ".."), file("hole/through")), "hole/"),
        ((directory("d"), symlink("d/up", "../.."), file("d/up/through")), "d/up/"),
        ((symlink("hole", "/"), directory("hole/tmp/made")), "hole/"),
        ((symlink("hole", "."), symlink("hole/again", "x")), "hole/"),
    ],
)
def test_a_member_that_leaves_the_archive_is_refused_by_name(
    deployment: Deployment, pack: Pack, members: tuple[Member, ...], named: str
) -> None:
    """A bundle is built by many hands; none of them may write to the host but through the AppSpec."""
    kind = ZIP if pack is zip_bytes else TAR
    failure = refusal(deployment, pack(*members), kind)

    assert "archive-entry-outside" == failure.error_id
    assert repr(named) in failure.message


def test_a_windows_name_with_backslashes_cannot_leave_either(deployment: Deployment) -> None:
    """The separators are translated first and checked then."""
    assert (
        "archive-entry-outside" == refusal(deployment, zip_bytes(file("..\\..\\x"), system=0), ZIP).error_id
    )


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "hole/secret"])
def test_a_hard_link_to_something_outside_is_refused(
    deployment: Deployment, tmp_path: Path, target: str
) -> None:
    """It would make a copy of any file of the host, or a way to change it."""
    (tmp_path / "test-secret").mkdir()
    (tmp_path / "test-secret" / "secret").write_text("secret")
    content = tar_bytes(symlink("hole", str(tmp_path / "test-secret")), hard_link("stolen", target))

    assert "archive-entry-outside" == refusal(deployment, content, TAR).error_id


def test_a_hard_link_to_a_symbolic_link_does_not_reach_its_target(
    deployment: Deployment, tmp_path: Path
) -> None:
    """Linux would otherwise hand out the file at the link's end."""
    secret = tmp_path / "test-secret"
    secret.write_text("secret")
    archive = deployment.unpack(
        tar_bytes(symlink("l", str(secret)), hard_link("h", "l"), file("h", b"new")), TAR
    )

    assert "secret" == secret.read_text()
    assert b"new" == (archive / "h").read_bytes()
    assert 1 == secret.stat().st_nlink


def test_a_hard_link_to_a_member_that_is_not_there_is_refused(deployment: Deployment) -> None:
    """The message names both, since one of them is missing in the build."""
    failure = refusal(deployment, tar_bytes(file("b"), hard_link("a", "gone/x")), TAR)

    assert "archive-link-target-missing" == failure.error_id
    assert "'a'" in failure.message
    assert "'gone/x'" in failure.message


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_refused(deployment: Deployment, kind: bytes) -> None:
    """Root would create them, and a reader of a pipe would wait for ever."""
    assert (
        "archive-entry-unsupported"
        == refusal(deployment, tar_bytes(Member(name="x", type=kind)), TAR).error_id
    )
    assert (
        "archive-entry-unsupported"
        == refusal(deployment, zip_bytes(Member(name="x", type=kind)), ZIP).error_id
    )


@pytest.mark.parametrize("target", ["", "a\0b"])
def test_a_symbolic_link_without_target_is_refused(deployment: Deployment, target: str) -> None:
    """No file system can hold one."""
    content = tar_bytes(symlink("l", target), pax=True)
    if target:
        content = tar_bytes(symlink("l", "a" * 150), pax=True).replace(b"a" * 150, b"a\0" + b"a" * 148)

    assert "archive-entry-unsupported" == refusal(deployment, content, TAR).error_id


def test_a_file_in_the_place_of_a_directory_is_refused(deployment: Deployment) -> None:
    """There is no saying which of the two was meant."""
    for members in ((file("a"), file("a/b")), (file("a/b"), file("a")), (file("a/b"), symlink("a", "x"))):
        assert "archive-members-conflict" == refusal(deployment, tar_bytes(*members), TAR).error_id


def test_very_deep_names_are_refused(deployment: Deployment) -> None:
    """Trees that nobody can remove any more would stay for ever."""
    for pack, kind in ((tar_bytes, TAR), (zip_bytes, ZIP)):
        assert (
            "archive-entry-unsupported" == refusal(deployment, pack(file("d/" * 1500 + "f")), kind).error_id
        )


@pytest.mark.parametrize(("pack", "kind"), [(tar_bytes, TAR), (tgz_bytes, TGZ), (zip_bytes, ZIP)])
def test_no_more_is_unpacked_than_the_host_allows(
    deployment: Deployment, pack: Pack, kind: BundleType
) -> None:
    """archive_max_extraction_size protects the disk from a bundle of zeros."""
    content = pack(file("a", bytes(600)), file("b", bytes(600)))

    deployment.unpack(content, kind, ArchiveLimits(max_extraction_size_bytes=1200))
    (deployment.archive / "a").unlink()
    with pytest.raises(CommandFailure, match="is 1199 bytes") as failure:
        deployment.unpack(content, kind, ArchiveLimits(max_extraction_size_bytes=1199))

    assert "archive-too-large" == failure.value.error_id


def test_zeros_after_the_end_count_too(deployment: Deployment) -> None:
    """A gigabyte of them fits into a megabyte, and must not keep a processor busy."""
    content = gzip.compress(tar_bytes(file("a")) + bytes(20_000_000))

    failure = refusal(deployment, content, TGZ, ArchiveLimits(max_extraction_size_bytes=10_000_000))

    assert "archive-too-large" == failure.error_id


def test_a_zip_that_says_less_than_it_holds_is_refused(deployment: Deployment) -> None:
    """The limit is checked against the directory, so what the directory says must be true."""
    content = bytearray(zip_bytes(file("a", bytes(100_000))))
    at = content.rindex(b"PK\1\2")
    struct.pack_into("<L", content, at + 24, 10)

    assert "bundle-corrupt" == refusal(deployment, bytes(content), ZIP).error_id


def test_a_zip_whose_members_overlap_is_refused(deployment: Deployment) -> None:
    """That is how 10 MB become 281 TB."""
    content = zip_bytes(file("a", os.urandom(5000)))
    at = content.rindex(b"PK\1\2")
    end = content.rindex(b"PK\5\6")
    record = content[at:end]
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 3, 3, 3 * len(record), at, 0)

    failure = refusal(deployment, content[:at] + record * 3 + tail, ZIP)

    assert "overlap" in failure.message


@pytest.mark.parametrize(("pack", "kind"), [(tar_bytes, TAR), (zip_bytes, ZIP)])
def test_symbolic_links_are_refused_where_the_host_says_so(
    deployment: Deployment, pack: Pack, kind: BundleType
) -> None:
    """reject_symlinks_in_bundle."""
    failure = refusal(deployment, pack(symlink("l", "x")), kind, ArchiveLimits(reject_symlinks=True))

    assert "archive-symlink-refused" == failure.error_id


@pytest.mark.parametrize("mode", [0o4755, 0o2755])
def test_setuid_and_setgid_files_are_refused_where_the_host_says_so(
    deployment: Deployment, mode: int
) -> None:
    """reject_unsafe_permissions_in_bundle; a directory with setgid only shares its group."""
    limits = ArchiveLimits(reject_unsafe_permissions=True)

    assert (
        "archive-unsafe-permissions"
        == refusal(deployment, tar_bytes(file("x", mode=mode)), TAR, limits).error_id
    )
    assert ["d"] == list(tree_of(deployment.unpack(tar_bytes(directory("d", 0o2775)), TAR, limits)))


def test_a_bundle_larger_than_the_disk_is_refused_before_unpacking(deployment: Deployment) -> None:
    """Everybody else on the host still needs the room, and the report must say how much it would be."""
    content = bytearray(zip_bytes(file("a", b"x")))
    struct.pack_into("<L", content, content.rindex(b"PK\1\2") + 24, 0xFFFFFFFE)
    free = os.statvfs(deployment.directory)
    if free.f_bavail * free.f_frsize > 0xFFFFFFFE:
        extra = struct.pack("<HHQ", 1, 8, 1 << 60)
        at = content.rindex(b"PK\1\2")
        struct.pack_into("<L", content, at + 24, 0xFFFFFFFF)
        struct.pack_into("<H", content, at + 30, len(extra))
        content[at + 47 : at + 47] = extra
        end = content.rindex(b"PK\5\6")
        struct.pack_into("<L", content, end + 12, end - at)

    failure = refusal(deployment, bytes(content), ZIP)

    assert "bundle-disk-full" == failure.error_id
    assert "bytes are free" in failure.message


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
@pytest.mark.parametrize(
    ("limit", "reason", "free"),
    [
        ("size=1m", "the disk became full", "1048576 bytes and"),
        (
            "size=64m,nr_inodes=12",
            "its space or its inodes ran out",
            "bytes and 11 inodes are free. Free some more of what",
        ),
    ],
)
def test_a_disk_that_becomes_full_is_called_full(tmp_path: Path, limit: str, reason: str, free: str) -> None:
    """With the figures, and with nothing left behind that would keep it full. `df -h` shows nothing of inodes."""
    small = tmp_path / "test-small"
    small.mkdir()
    (tmp_path / "test-bundle").write_bytes(tgz_bytes(*(file(f"f{n}", bytes(100_000)) for n in range(20))))
    program = (
        "import os, sys; from pathlib import Path\n"
        "from agent.bundle.unpack import unpack_bundle; from agent.bundle import ArchiveLimits\n"
        "from agent.errors import CommandFailure; from agent.protocol import BundleType\n"
        "try: unpack_bundle(Path(sys.argv[1]), BundleType.TGZ, Path(sys.argv[2]) / 'archive', ArchiveLimits(), ())\n"
        "except CommandFailure as failure: print(failure.error_id, os.listdir(sys.argv[2]), failure.message)"
    )
    mount = 'mount -t tmpfs -o "$5" none "$1" && exec "$2" -c "$3" "$4" "$1"'
    arguments: list[str | Path] = [small, sys.executable, program, tmp_path / "test-bundle", limit]

    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, "sh", *arguments],
        check=True,
        capture_output=True,
        text=True,
    )

    assert done.stdout.startswith("bundle-disk-full [] There is not enough room")
    assert reason in done.stdout
    assert free in done.stdout
