"""What a good bundle becomes on disk."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import stat
import struct
import subprocess
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.bundle import ArchiveLimits
from agent.protocol import BundleType
from tests.bundle.packing import (
    MTIME,
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
    from collections.abc import Callable
    from pathlib import Path

    from tests.bundle.conftest import Deployment
    from tests.bundle.packing import Member, Pack

TAR, TGZ, ZIP = BundleType.TAR, BundleType.TGZ, BundleType.ZIP
APPSPEC = file("appspec.yml", b"version: 0.0\nos: linux\n")


@pytest.mark.parametrize(("pack", "kind"), [(tar_bytes, TAR), (tgz_bytes, TGZ), (zip_bytes, ZIP)])
def test_files_directories_and_links_arrive_with_modes_and_times(
    deployment: Deployment, pack: Pack, kind: BundleType
) -> None:
    """An application finds its files just as the build left them."""
    archive = deployment.unpack(
        pack(
            APPSPEC,
            directory("app", 0o750),
            file("app/run.sh", b"#!/bin/sh\n", 0o755),
            file("app/secret", b"", 0o600),
            symlink("app/current", "run.sh"),
            symlink("app/nowhere", "/does/not/exist"),
        ),
        kind,
    )

    assert {
        "appspec.yml": ("file", 0o644, b"version: 0.0\nos: linux\n"),
        "app": ("directory", 0o750, b""),
        "app/run.sh": ("file", 0o755, b"#!/bin/sh\n"),
        "app/secret": ("file", 0o600, b""),
        "app/current": ("link", 0o777, "run.sh"),
        "app/nowhere": ("link", 0o777, "/does/not/exist"),
    } == tree_of(archive)
    for name in ("app", "app/run.sh", "app/current"):
        assert MTIME == (archive / name).lstat().st_mtime
    assert 0o755 == archive.stat().st_mode & 0o7777


def test_an_archive_in_one_top_level_directory_loses_that_directory(deployment: Deployment) -> None:
    """Archives made by GitHub and by most build tools are wrapped; the AppSpec must be found."""
    archive = deployment.unpack(
        tgz_bytes(directory("app-1.2", 0o700), file("app-1.2/appspec.yaml"), file("app-1.2/sub/x")), TGZ
    )

    assert ["appspec.yaml", "sub", "sub/x"] == list(tree_of(archive))
    assert 0o755 == archive.stat().st_mode & 0o7777
    assert [".archive-index", "bundle.tar", "deployment-archive"] == deployment.left()


@pytest.mark.parametrize(
    "beside",
    [
        (file("__MACOSX/app/._appspec.yml"), file(".DS_Store")),
        (file("README"), file("other/x")),
        (file(".hidden/appspec.yml"),),
    ],
    ids=["of a Mac", "of the build", "hidden"],
)
def test_what_lies_beside_the_only_directory_with_an_appspec_is_left_out(
    deployment: Deployment, beside: tuple[Member, ...]
) -> None:
    """A Mac packs its own files beside the directory that somebody chose, and existing agents don't mind."""
    archive = deployment.unpack(tar_bytes(file("app/appspec.yml"), file("app/x"), *beside), TAR)

    assert ["appspec.yml", "x"] == list(tree_of(archive))
    assert [".archive-index", "bundle.tar", "deployment-archive"] == deployment.left()


@pytest.mark.parametrize(
    "members",
    [
        (file("top/x"),),
        (file("top/appspec.yml"), file("other/appspec.yaml")),
        (file("top/sub/appspec.yml"), file("top/x")),
        (file("top/appspec.yml"), file("appspec.yml")),
        (directory("real"), file("real/x"), symlink("appspec.yml", "real/x")),
    ],
    ids=["without AppSpec", "two AppSpecs", "two levels", "AppSpec at the top", "AppSpec is a link"],
)
def test_other_archives_stay_as_they_are(deployment: Deployment, members: tuple[Member, ...]) -> None:
    """Only a wrapper is taken off, never a directory that means something."""
    archive = deployment.unpack(tar_bytes(*members), TAR)

    assert {member.name for member in members} <= set(tree_of(archive))


def test_a_bundle_replaces_the_whole_archive_of_an_earlier_attempt(deployment: Deployment) -> None:
    """A deployment delivered again must not find files of its first attempt."""
    deployment.archive.mkdir()
    (deployment.archive / "stale").write_text("x")
    (deployment.directory / ".deployment-archive.new").mkdir()
    (deployment.directory / ".deployment-archive.new" / "half").write_text("x")

    deployment.unpack(tar_bytes(APPSPEC), TAR)

    assert ["appspec.yml"] == list(tree_of(deployment.archive))
    assert [".archive-index", "bundle.tar", "deployment-archive"] == deployment.left()


def test_hard_links_within_the_archive_stay_hard_links(deployment: Deployment) -> None:
    """Programs with many names (busybox, git) must not take their size many times."""
    archive = deployment.unpack(
        tar_bytes(file("a", b"1"), hard_link("sub/b", "./a"), hard_link("a", "a")), TAR
    )

    assert (archive / "a").stat().st_ino == (archive / "sub/b").stat().st_ino


def test_the_last_of_two_members_with_the_same_name_wins(deployment: Deployment) -> None:
    """As tar has always had it; and the earlier one's hard links and targets keep their content."""
    archive = deployment.unpack(
        tar_bytes(
            file("a", b"first"),
            hard_link("kept", "a"),
            file("./a", b"second"),
            symlink("l", "kept"),
            file("l", b"own"),
            file("d", b"x"),
            directory("d"),
            file("d/inside"),
        ),
        TAR,
    )

    contents = {name: content for name, (kind, _, content) in tree_of(archive).items() if kind == "file"}
    assert {"a": b"second", "kept": b"first", "l": b"own", "d/inside": b"content"} == contents


def test_members_named_with_dots_and_slashes_are_what_they_mean(deployment: Deployment) -> None:
    """`tar c .` writes such names."""
    archive = deployment.unpack(
        tar_bytes(
            directory("./", 0o700), file("./app/a"), file("app//b"), file("app/./c"), directory("./e/")
        ),
        TAR,
    )

    assert ["app", "app/a", "app/b", "app/c", "e"] == list(tree_of(archive))
    assert 0o755 == archive.stat().st_mode & 0o7777


@pytest.mark.parametrize("pax", [False, True], ids=["gnu", "pax"])
def test_long_and_odd_names_arrive_unchanged(deployment: Deployment, *, pax: bool) -> None:
    """Names are bytes to Linux; long ones need headers of their own in a tar."""
    long = "d" * 120 + "/" + "n" * 200
    names = [long, "spaces  and \n newlines", "grüße/日本", "back\\slash", " leading", "trailing "]
    members = [file(name, name.encode()) for name in names] + [symlink("l", "t/" * 150)]

    tree = tree_of(deployment.unpack(tar_bytes(*members, pax=pax), TAR))

    assert {name: name.encode() for name in names} == {name: tree[name][2] for name in names}
    assert "t/" * 150 == os.readlink(deployment.archive / "l")


def test_names_that_are_not_utf8_arrive_byte_for_byte(deployment: Deployment) -> None:
    """Old repositories hold Latin-1 names; they must neither fail nor change."""
    content = tar_bytes(file("gr\udcfc\udcdfe"))

    archive = deployment.unpack(content, TAR)

    assert [b"gr\xfc\xdfe"] == os.listdir(os.fsencode(archive))


def test_special_bits_of_a_tar_arrive_and_those_of_a_zip_do_not(deployment: Deployment) -> None:
    """`tar -p` keeps setuid, setgid and sticky; unzip takes them away. Bundles rely on either."""
    members = (file("suid", b"x", 0o4755), directory("shared", 0o2750), directory("tmp", 0o1777))

    tree = tree_of(deployment.unpack(tar_bytes(*members), TAR))
    assert [0o4755, 0o2750, 0o1777] == [tree[name][1] for name in ("suid", "shared", "tmp")]

    tree = tree_of(deployment.unpack(zip_bytes(*members), ZIP))
    assert [0o755, 0o750, 0o777] == [tree[name][1] for name in ("suid", "shared", "tmp")]


def test_a_directory_that_forbids_writing_is_still_filled(deployment: Deployment) -> None:
    """An ordinary user's agent must be able to unpack read-only trees, and to replace them."""
    members = (directory("ro", 0o555), file("ro/a", b"a", 0o400), directory("none", 0o000))

    archive = deployment.archive
    for _ in range(2):
        deployment.unpack(tar_bytes(*members), TAR)
        assert 0o555 == (archive / "ro").stat().st_mode & 0o7777
        assert 0o400 == (archive / "ro" / "a").stat().st_mode & 0o7777

    (archive / "none").chmod(0o700)
    (archive / "ro").chmod(0o700)


def test_the_umask_is_the_same_afterwards(deployment: Deployment) -> None:
    """Hook scripts of the same process must not run with an umask of 0."""
    before = os.umask(0o027)
    try:
        deployment.unpack(tar_bytes(file("a", b"", 0o666)), TAR)
        assert 0o027 == os.umask(0o027)
    finally:
        os.umask(before)
    assert 0o666 == (deployment.archive / "a").stat().st_mode & 0o777


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize(("ignore", "owner"), [(False, (1234, 4321)), (True, (0, 0))])
def test_root_keeps_the_owners_of_a_tar_unless_told_otherwise(
    deployment: Deployment, owner: tuple[int, int], *, ignore: bool
) -> None:
    """Bundles built as the application's user have always kept that owner."""
    content = tar_bytes(
        file("d/f", uid=1234, gid=4321),
        replace(directory("d"), uid=1234, gid=4321),
        file("suid", mode=0o4755, uid=1234),
    )

    archive = deployment.unpack(content, TAR, ArchiveLimits(ignore_ownership=ignore))

    assert owner == ((archive / "d/f").stat().st_uid, (archive / "d/f").stat().st_gid)
    assert owner == ((archive / "d").stat().st_uid, (archive / "d").stat().st_gid)
    assert 0o4755 == stat.S_IMODE((archive / "suid").stat().st_mode)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give directories away")
def test_a_setgid_deployment_root_does_not_change_groups(deployment: Deployment) -> None:
    """Files of root's group must not become readable to the group that administers the root."""
    os.chown(deployment.directory, 0, 4321)
    deployment.directory.chmod(0o2775)

    archive = deployment.unpack(tar_bytes(file("d/f")), TAR)

    assert [0, 0] == [(archive / name).stat().st_gid for name in ("d", "d/f")]


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_a_tar_may_be_compressed_in_any_usual_way(
    deployment: Deployment, compress: Callable[[bytes], bytes]
) -> None:
    """GNU tar recognises compressions by itself, so bundles registered as `tar` were always free to have one."""
    content = compress(tar_bytes(APPSPEC, file("a", os.urandom(1_200_000))))

    for kind in (TAR, TGZ):
        assert ["a", "appspec.yml"] == list(tree_of(deployment.unpack(content, kind)))


def test_gzip_in_several_parts_is_one_archive(deployment: Deployment) -> None:
    """Both pigz and `cat a.gz b.gz` write such files; tapes fill them up with zeros."""
    plain = tar_bytes(file("a", b"a" * 4000), file("b"))
    content = gzip.compress(plain[:3000]) + gzip.compress(plain[3000:]) + bytes(10240)

    assert ["a", "b"] == list(tree_of(deployment.unpack(content, TGZ)))


def test_large_files_arrive_whole_from_every_format(deployment: Deployment) -> None:
    """Everything above one read goes another way through the code."""
    content = os.urandom(2_500_000) + bytes(4_000_000)
    for pack, kind in ((tar_bytes, TAR), (tgz_bytes, TGZ), (zip_bytes, ZIP)):
        archive = deployment.unpack(pack(file("big", content), file("after")), kind)
        assert content == (archive / "big").read_bytes()
        assert b"content" == (archive / "after").read_bytes()


@pytest.mark.parametrize(
    "tool", ["tar -cf", "tar -czf", "tar -H pax -cf", "tar -H ustar -cf", "tar -H v7 -cf"]
)
def test_what_gnu_tar_writes_is_understood(deployment: Deployment, tmp_path: Path, tool: str) -> None:
    """The most common maker of bundles, in each of its formats."""
    source = tmp_path / "test-source"
    (source / "app" / "empty").mkdir(parents=True)
    (source / "app" / "x").write_bytes(b"x" * 1000)
    (source / "app" / "l").symlink_to("x")
    os.link(source / "app" / "x", source / "app" / "y")
    os.utime(source / "app" / "x", ns=(MTIME * 10**9, MTIME * 10**9))
    bundle = tmp_path / "test-bundle"
    subprocess.run([*tool.split(), bundle, "-C", source, "."], check=True)

    archive = deployment.unpack(bundle.read_bytes(), TAR)

    assert tree_of(source) == tree_of(archive)
    assert MTIME == (archive / "app/x").stat().st_mtime


def test_an_old_tar_may_begin_with_any_name(deployment: Deployment, tmp_path: Path) -> None:
    """Without a mark of its own, it must not be taken for a JSON text or a page."""
    (tmp_path / "test-source").mkdir()
    (tmp_path / "test-source" / "{app}").write_bytes(b"x")
    bundle = tmp_path / "test-bundle"
    subprocess.run(["tar", "-H", "v7", "-cf", bundle, "-C", tmp_path / "test-source", "{app}"], check=True)

    assert ["{app}"] == list(tree_of(deployment.unpack(bundle.read_bytes(), TAR)))


@pytest.mark.skipif(shutil.which("zip") is None, reason="the zip program is not installed")
def test_what_info_zip_writes_is_understood(deployment: Deployment, tmp_path: Path) -> None:
    """Its times are in an extra field, to the second and in UTC."""
    source = tmp_path / "test-source"
    (source / "app" / "empty").mkdir(parents=True)
    (source / "app" / "x").write_bytes(b"x" * 1000)
    (source / "app" / "l").symlink_to("x")
    (source / "app" / "grüße").write_bytes(b"")
    os.utime(source / "app" / "x", ns=((MTIME + 1) * 10**9, (MTIME + 1) * 10**9))
    subprocess.run(["zip", "-qry", tmp_path / "test-bundle.zip", "."], cwd=source, check=True)

    archive = deployment.unpack((tmp_path / "test-bundle.zip").read_bytes(), ZIP)

    assert tree_of(source) == tree_of(archive)
    assert MTIME + 1 == (archive / "app/x").stat().st_mtime


def test_backslashes_separate_directories_only_in_a_zip_from_windows(deployment: Deployment) -> None:
    """Old .NET programs write them; on Linux a backslash is a letter like any other."""
    assert ["app\\sub\\b"] == list(tree_of(deployment.unpack(zip_bytes(file("app\\sub\\b")), ZIP)))
    archive = deployment.unpack(zip_bytes(file("app\\sub\\b"), system=0), ZIP)
    assert ["app", "app/sub", "app/sub/b"] == list(tree_of(archive))


def test_names_of_an_old_pc_zip_become_utf8(deployment: Deployment) -> None:
    """Without the UTF-8 flag such a zip means code page 437, unless its bytes are UTF-8 after all."""
    pc = zip_bytes(file("gruXe.txt"), system=0).replace(b"gruXe.txt", b"gr\x81\xe1e.txt"[:5] + b".txt")
    assert [("grüße"[:5]) + ".txt"] == list(tree_of(deployment.unpack(pc, ZIP)))

    mac = zip_bytes(file("gXXe.txt"), system=0).replace(b"gXXe.txt", "gße.txt".encode())
    assert ["gße.txt"] == list(tree_of(deployment.unpack(mac, ZIP)))


def test_a_zip_without_unix_modes_gets_the_usual_ones(deployment: Deployment) -> None:
    """Zips from Windows know no modes; the files must be readable all the same."""
    content = zip_bytes(file("a", mode=0), directory("d", mode=0), system=0)

    tree = tree_of(deployment.unpack(content, ZIP))

    assert {"a": 0o644, "d": 0o755} == {name: mode for name, (_, mode, _) in tree.items()}


def test_zip64_and_a_program_in_front_are_understood(deployment: Deployment) -> None:
    """Large zips have 64-bit records; self-extracting ones begin with a program."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, archive.open("a", "w", force_zip64=True) as member:
        member.write(b"x" * 100)
    plain = out.getvalue()
    end = plain.rindex(b"PK\5\6")
    count, length, start = struct.unpack_from("<HLL", plain, end + 10)
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)

    for content in (plain, plain[:end] + record + locator + tail, b"#!/bin/sh\nexit 1\n" + plain):
        assert {"a": ("file", 0o600, b"x" * 100)} == tree_of(deployment.unpack(content, ZIP))
