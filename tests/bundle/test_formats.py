"""Formats beyond the usual ones that tar and unzip take: sparse files, bzip2 in a zip, zstd."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from agent.bundle import ArchiveLimits
from agent.bundle.inflate import ZstdDecompressor
from agent.errors import CommandFailure
from agent.protocol import BundleType
from tests.bundle.packing import MTIME, directory, file, symlink, tar_bytes, tree_of, zip_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bundle.conftest import Deployment

TAR, TGZ, ZIP = BundleType.TAR, BundleType.TGZ, BundleType.ZIP
SPARSE_FORMS = ["--format=gnu", "--format=pax --sparse-version=0.0", "--format=pax --sparse-version=0.1", "--format=pax --sparse-version=1.0", "--format=oldgnu"]  # fmt: skip


def holed(path: Path, size: int, pieces: dict[int, bytes]) -> None:
    """A file with these bytes at these offsets, and holes elsewhere."""
    with path.open("wb") as stream:
        stream.truncate(size)
        for offset, piece in pieces.items():
            stream.seek(offset)
            stream.write(piece)
    os.utime(path, ns=(MTIME * 10**9, MTIME * 10**9))


def packed(tmp_path: Path, options: str, *names: str) -> bytes:
    bundle = tmp_path / "test-bundle"
    subprocess.run(
        ["tar", *options.split(), "-cf", bundle, "-C", tmp_path / "test-source", *(names or ["."])],
        check=True,
    )
    return bundle.read_bytes()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory to pack."""
    path = tmp_path / "test-source"
    path.mkdir()
    return path


@pytest.mark.parametrize("form", SPARSE_FORMS)
@pytest.mark.parametrize(
    "holes",
    [
        (1 << 20, {500_000: b"x"}),
        (1 << 20, {0: b"begin", (1 << 20) - 3: b"end"}),
        (3_000_000, {n * 20_000: os.urandom(5000) for n in range(120)}),
        (5_000_001, {}),
        (1 << 20, {0: os.urandom(300_000), 600_000: os.urandom(200_000)}),
    ],
    ids=["one byte", "both ends", "many pieces", "a hole", "large pieces"],
)
def test_sparse_files_arrive_with_content_and_holes(
    deployment: Deployment, tmp_path: Path, source: Path, form: str, holes: tuple[int, dict[int, bytes]]
) -> None:
    """Disk images and databases are packed so; in each of the four ways that tar has to write it down."""
    name = "a name that is longer than a hundred characters, " * 3 + "disk.img"
    size, pieces = holes
    holed(source / name, size, pieces)
    (source / name).chmod(0o640)
    (source / "z").write_bytes(b"after it")
    content = packed(tmp_path, f"--sparse {form}", name, "z")
    assert len(content) < size

    archive = deployment.unpack(content, TAR)

    assert tree_of(source) == tree_of(archive)
    found = (archive / name).stat()
    assert MTIME == found.st_mtime
    assert found.st_blocks <= (source / name).stat().st_blocks + 16


def test_a_sparse_file_larger_than_what_may_be_unpacked_is_refused(
    deployment: Deployment, tmp_path: Path, source: Path
) -> None:
    """Whatever reads the file meets its holes as zeros: a tar of 10 KB could keep a host busy for days."""
    holed(source / "disk.img", 1 << 40, {1 << 39: b"x"})
    content = packed(tmp_path, "--sparse")

    for limit in (1 << 30, (1 << 40) - 1):
        with pytest.raises(CommandFailure) as failure:
            deployment.unpack(content, TAR, ArchiveLimits(max_extraction_size_bytes=limit))
        assert "archive-too-large" == failure.value.error_id
        assert ["bundle.tar"] == deployment.left()


@pytest.mark.parametrize(
    ("at", "field"),
    [
        (386, b"77777777777\0"),  # the first piece lies behind the end
        (398, b"00000000001\0"),  # a piece is shorter than what follows
        (483, b"00000000000\0"),  # the file is empty
        (386, b"nonsense!!!\0"),
    ],
)
def test_a_sparse_file_whose_map_is_wrong_is_refused(
    deployment: Deployment, tmp_path: Path, source: Path, at: int, field: bytes
) -> None:
    """Pieces at the wrong place would be a file that looks right and is not."""
    holed(source / "f", 100_000, {50_000: os.urandom(5000)})
    content = packed(tmp_path, "--sparse --format=gnu", "f")

    with pytest.raises(CommandFailure) as failure:
        deployment.unpack(_at(content, at, field), TAR)

    assert "bundle-corrupt" == failure.value.error_id
    assert ["bundle.tar"] == deployment.left()


def _at(content: bytes, at: int, field: bytes) -> bytes:
    block = bytearray(content)
    block[at : at + len(field)] = field
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


def test_a_pax_map_that_never_ends_is_refused(deployment: Deployment) -> None:
    """A count of pieces is read from the archive, and must not fill the memory."""
    info = tarfile.TarInfo("f")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.realsize": "10",
        "GNU.sparse.name": "f",
    }
    data = (b"9" * 18 + b"\n").ljust(5120, b"0")
    info.size = len(data)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(data))

    with pytest.raises(CommandFailure) as failure:
        deployment.unpack(out.getvalue(), TAR)

    assert "bundle-corrupt" == failure.value.error_id


MEMBERS = (
    file("appspec.yml", b"version: 0.0\n"),
    file("a", os.urandom(300_000) + bytes(1_500_000)),
    file("small", b"x", 0o755),
    file("empty", b""),
    directory("d"),
    symlink("l", "small"),
)


def test_bzip2_in_a_zip_is_unpacked(deployment: Deployment) -> None:
    """`zip -Z bzip2`, which unzip has always taken."""
    by_deflate = tree_of(deployment.unpack(zip_bytes(*MEMBERS), ZIP))

    assert by_deflate == tree_of(deployment.unpack(zip_bytes(*MEMBERS, method=zipfile.ZIP_BZIP2), ZIP))


def test_bzip2_in_a_zip_is_verified(deployment: Deployment) -> None:
    """A flipped bit, and a size that is not true."""
    content = bytearray(zip_bytes(file("a", os.urandom(50_000)), method=zipfile.ZIP_BZIP2))
    for at in (2000, 40_000):
        damaged = bytearray(content)
        damaged[at] ^= 1
        with pytest.raises(CommandFailure) as failure:
            deployment.unpack(bytes(damaged), ZIP)
        assert "bundle-corrupt" == failure.value.error_id

    bomb = bytearray(zip_bytes(file("a", bytes(50_000_000)), method=zipfile.ZIP_BZIP2))
    struct.pack_into("<L", bomb, bomb.rindex(b"PK\1\2") + 24, 1000)
    with pytest.raises(CommandFailure) as failure:
        deployment.unpack(bytes(bomb), ZIP, ArchiveLimits(max_extraction_size_bytes=2000))
    assert "bundle-corrupt" == failure.value.error_id


def test_a_zip_method_that_is_not_supported_is_named(deployment: Deployment) -> None:
    """The message must say how to build the zip instead."""
    lzma = zip_bytes(file("a"), method=zipfile.ZIP_LZMA)
    deflate64 = bytearray(zip_bytes(file("a")))
    struct.pack_into("<H", deflate64, deflate64.rindex(b"PK\1\2") + 10, 9)

    for content, name in ((lzma, "lzma"), (bytes(deflate64), "deflate64")):
        with pytest.raises(CommandFailure, match=f"compressed with {name} ") as failure:
            deployment.unpack(content, ZIP)
        assert "archive-entry-unsupported" == failure.value.error_id


def zstd(content: bytes, *options: str) -> bytes:
    assert shutil.which("zstd"), "the zstd program is not installed"
    return subprocess.run(["zstd", "-q", *options], input=content, capture_output=True, check=True).stdout


@pytest.mark.parametrize("options", [(), ("-19", "--long=27"), ("--no-check",), ("--fast=3",)])
def test_a_tar_with_zstd_is_unpacked_whatever_type_it_was_registered_as(
    deployment: Deployment, options: tuple[str, ...]
) -> None:
    """`tar --zstd`, recognised by its content as the other compressions are."""
    plain = tree_of(deployment.unpack(tar_bytes(*MEMBERS), TAR))

    for kind in (TAR, TGZ):
        assert plain == tree_of(deployment.unpack(zstd(tar_bytes(*MEMBERS), *options), kind))


def test_zstd_in_several_frames_is_one_archive(deployment: Deployment) -> None:
    """Both pzstd and `cat a.zst b.zst` write such files, the former with notes in between."""
    tar = tar_bytes(*MEMBERS)
    note = struct.pack("<II", 0x184D2A53, 5) + b"notes"
    content = note + zstd(tar[:100_000]) + note + zstd(tar[100_000:]) + note

    assert tree_of(deployment.unpack(tar, TAR)) == tree_of(deployment.unpack(content, TAR))


@pytest.mark.parametrize("cut", [5, 1000, 250_000, -1])
def test_zstd_that_is_cut_off_or_damaged_is_refused(deployment: Deployment, cut: int) -> None:
    """Half a revision must never be installed."""
    whole = zstd(tar_bytes(*MEMBERS))
    damaged = bytearray(whole)
    damaged[cut] ^= 0x55

    for content in (whole[:cut], bytes(damaged), whole + b"<html>"):
        with pytest.raises(CommandFailure) as failure:
            deployment.unpack(content, TAR)
        assert "bundle-corrupt" == failure.value.error_id
        assert ["bundle.tar"] == deployment.left()


def test_a_bomb_of_zstd_is_stopped_at_the_limit(deployment: Deployment) -> None:
    """Zeros shrink to nothing; also those behind the end of the tar count."""
    content = zstd(tar_bytes(file("a")) + bytes(50_000_000))

    with pytest.raises(CommandFailure) as failure:
        deployment.unpack(content, TAR, ArchiveLimits(max_extraction_size_bytes=10_000_000))

    assert "archive-too-large" == failure.value.error_id
    assert 10 == len(ZstdDecompressor().decompress(zstd(bytes(50_000_000)), 10))


APPSPEC = b'version: 0.0\nos: linux\nfiles: [{source: /app, destination: "/srv/app"}]\n'


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("tar -S -czf BUNDLE .", TGZ),
        ("zip -qr -Z bzip2 BUNDLE .", ZIP),
        ("tar --zstd -cf BUNDLE .", TAR),
        ("tar -S --zstd -cf BUNDLE .", TAR),
        ("tar -cjf BUNDLE .", TAR),
        ("tar -cJf BUNDLE .", TAR),
    ],
)
def test_an_application_with_a_disk_image_is_unpacked_from_every_format(
    deployment: Deployment, tmp_path: Path, source: Path, command: str, kind: BundleType
) -> None:
    """What people build with the usual tools deployed with agents that called tar and unzip, and does here."""
    (source / "app").mkdir()
    holed(source / "app" / "disk.img", 1 << 20, {500_000: b"x"})
    (source / "appspec.yml").write_bytes(APPSPEC)
    bundle = tmp_path / "test-bundle.zip"
    subprocess.run(command.replace("BUNDLE", str(bundle)).split(), cwd=source, check=True)

    assert tree_of(source) == tree_of(deployment.unpack(bundle.read_bytes(), kind))
