"""Bundles that are broken, or not what they are said to be."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.bundle.zip_directory import ZipDirectory
from agent.errors import CommandFailure
from agent.protocol import BundleType
from tests.bundle.packing import file, symlink, tar_bytes, tgz_bytes, zip_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bundle.conftest import Deployment

TAR, TGZ, ZIP = BundleType.TAR, BundleType.TGZ, BundleType.ZIP
PACKS = {TAR: tar_bytes, TGZ: tgz_bytes, ZIP: zip_bytes}
GOOD = (file("app/a.txt", os.urandom(5000)), file("app/b.txt", b"b" * 5000), symlink("l", "app/a.txt"))


def refusal(deployment: Deployment, content: bytes, kind: BundleType) -> CommandFailure:
    with pytest.raises(CommandFailure) as failure:
        deployment.unpack(content, kind)
    assert ["bundle.tar"] == deployment.left()
    return failure.value


@pytest.mark.parametrize("kind", list(PACKS))
def test_an_empty_file_is_no_bundle(deployment: Deployment, kind: BundleType) -> None:
    """An upload that went wrong; the message must not be about tar headers."""
    failure = refusal(deployment, b"", kind)

    assert "bundle-corrupt" == failure.error_id
    assert "it is empty" in failure.message
    assert str(deployment.bundle) in failure.message


@pytest.mark.parametrize("kind", list(PACKS))
@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9])
def test_a_bundle_that_was_cut_off_is_refused_whole(
    deployment: Deployment, kind: BundleType, share: float
) -> None:
    """Half a revision must never be installed."""
    content = PACKS[kind](*GOOD).rstrip(b"\0") if kind is TAR else PACKS[kind](*GOOD)

    failure = refusal(deployment, content[: int(len(content) * share)], kind)

    assert "bundle-corrupt" == failure.error_id


@pytest.mark.parametrize("cut", [1, 4, 8])
def test_a_tgz_without_its_last_bytes_is_refused(deployment: Deployment, cut: int) -> None:
    """Its checksum stands there, so nothing is known to be right without them."""
    assert "bundle-corrupt" == refusal(deployment, tgz_bytes(*GOOD)[:-cut], TGZ).error_id


@pytest.mark.parametrize(
    ("content", "kind", "seen"),
    [
        (zip_bytes(*GOOD), TAR, "a zip"),
        (zip_bytes(*GOOD), TGZ, "a zip"),
        (tar_bytes(*GOOD), ZIP, "a tar"),
        (tgz_bytes(*GOOD), ZIP, "a tar, compressed"),
        (b'<?xml version="1.0"?><Error/>', TGZ, "an error page"),
        (b"<!DOCTYPE html><p>Sign in", ZIP, "an HTML page"),
        (b"LZIP" + bytes(600), TAR, "compressed with lzip"),
        (b"\n<HTML><title>404", TGZ, "an HTML page"),
        (b"Not Found", TAR, "it begins with 'Not Found', maybe an error message"),
        (b"Access denied\n" * 100, ZIP, "it begins with 'Access denied"),
        (b"\x7fELF" + os.urandom(600), TGZ, "a program"),
        (b"\xff\x00" * 600, TAR, r"it begins with '\xff\x00"),
    ],
)
def test_a_file_of_another_kind_is_called_by_its_name(
    deployment: Deployment, content: bytes, kind: BundleType, seen: str
) -> None:
    """The revision was registered with the wrong type; only the bytes tell the right one."""
    failure = refusal(deployment, content, kind)

    assert "bundle-type-wrong" == failure.error_id
    assert seen in failure.message


def places(content: bytes) -> list[int]:
    """Where the members of a tar begin, and where its end mark does."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = archive.getmembers()
    return [*(member.offset for member in members), members[-1].offset_data]


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["tar", "tgz"])
def test_a_tar_that_was_cut_off_between_two_members_is_refused(
    deployment: Deployment, compress: Callable[[bytes], bytes]
) -> None:
    """Only the zeros at its end tell a whole one from one whose last files are missing."""
    content = tar_bytes(*GOOD)
    for place in places(content)[1:]:
        failure = refusal(deployment, compress(content[:place]), TAR)

        assert "bundle-corrupt" == failure.error_id
        assert f"byte {place}, after its member" in failure.message


def test_a_tar_may_end_with_one_block_of_zeros_or_hold_nothing(deployment: Deployment) -> None:
    """Some programs write no more of them; and an empty tar is one."""
    content = tar_bytes(*GOOD)
    end = places(content)[-1]

    assert os.listdir(deployment.unpack(content[: end + 512], TAR))
    assert [] == os.listdir(deployment.unpack(tar_bytes(), TAR))


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        (100, "it ends at (unpacked) byte 100, within a header before its first member"),
        (512 + 1234, "byte 1746, after 1234 of the 5000 bytes of its member 'app/a.txt'"),
        (512 + 5120 + 7, "byte 5639, within a header after its member 'app/a.txt'"),
    ],
)
def test_a_truncated_tar_says_where_and_in_the_middle_of_what(
    deployment: Deployment, cut: int, words: str
) -> None:
    """The place tells an upload that broke off from a build that ran out of disk."""
    assert words in refusal(deployment, tar_bytes(*GOOD)[:cut], TAR).message


def test_a_truncated_tgz_says_where_and_in_the_middle_of_what(deployment: Deployment) -> None:
    """Both the byte in the file, which can be compared with its size elsewhere, and the member."""
    content = tgz_bytes(*GOOD)[:3000]

    message = refusal(deployment, content, TGZ).message

    assert "it is cut off: it ends at byte 3000, in the middle of its compressed data, after" in message
    assert "of its member 'app/a.txt'" in message


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        (3000, "ends at byte 3000, within its member 'app/a.txt'"),
        (5060, "ends at byte 5060, after its member 'app/a.txt'"),
        (5090, "ends at byte 5090, within its member 'app/b.txt'"),
    ],
)
def test_a_truncated_zip_says_where_and_in_the_middle_of_what(
    deployment: Deployment, cut: int, words: str
) -> None:
    """Its directory is at its end, so only what stands in front of the members can tell."""
    content = zip_bytes(*GOOD)
    assert 5044 == content.index(b"PK\3\4", 4)  # where the second member begins

    assert words in refusal(deployment, content[:cut], ZIP).message


def test_a_file_of_unknown_bytes_is_shown(deployment: Deployment) -> None:
    """Whoever uploaded it may know what it is."""
    for kind in (TAR, TGZ, ZIP):
        assert r"begins with '\x00\x01\xff" in refusal(deployment, b"\0\1\xff" * 300, kind).message


def test_a_zip_that_was_cut_off_within_a_zip_is_not_taken_for_that(deployment: Deployment) -> None:
    """A member that is stored and a zip itself ends with a directory of its own."""
    inner = zip_bytes(file("appspec.yml"), file("x"))
    content = zip_bytes(file("first", b"1"), file("inner.zip", inner), method=zipfile.ZIP_STORED)
    cut = content.index(inner) + len(inner)

    failure = refusal(deployment, content[:cut], ZIP)

    assert "bundle-corrupt" == failure.error_id
    assert "ends with another one" in failure.message


@pytest.mark.parametrize("said", [1, 2, 4])
def test_a_zip_whose_directory_holds_another_number_of_members_is_refused(
    deployment: Deployment, said: int
) -> None:
    """Members that nobody counts would be missing on disk, without a word."""
    content = bytearray(zip_bytes(*GOOD))
    struct.pack_into("<2H", content, content.rindex(b"PK\5\6") + 8, said, said)

    assert "bundle-corrupt" == refusal(deployment, bytes(content), ZIP).error_id


def test_a_zip_of_more_members_than_its_count_can_say_is_unpacked_whole(deployment: Deployment) -> None:
    """Old programs without zip64 write what is left of the number, and unzip has always taken that."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(300):
            archive.writestr(f"f{number}", b"")
    content = out.getvalue()
    directory = content[content.index(b"PK\1\2") : content.rindex(b"PK\5\6")]
    many = 0x10000 // 300 + 1
    start = len(content) - len(directory) - 22
    count = many * 300 % 0x10000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, many * len(directory), start, 0)
    deployment.bundle.write_bytes(content[:start] + directory * many + end)
    with deployment.bundle.open("rb") as stream:
        found = ZipDirectory(stream.fileno(), deployment.bundle)
        found.totals()

        assert many * 300 == found.member_count == sum(1 for _ in found)


def test_a_part_of_a_split_zip_is_called_one(deployment: Deployment) -> None:
    """`zip -s`; the other parts are somewhere else."""
    content = bytearray(zip_bytes(*GOOD))
    struct.pack_into("<H", content, content.rindex(b"PK\5\6") + 4, 1)

    assert "several parts" in refusal(deployment, bytes(content), ZIP).message


def test_a_tar_with_a_broken_header_says_where(deployment: Deployment) -> None:
    """The offset tells a transfer that broke from a build that did."""
    content = bytearray(tar_bytes(*GOOD))
    content[512 + 5120 + 10] ^= 1

    failure = refusal(deployment, bytes(content), TAR)

    assert "bundle-corrupt" == failure.error_id
    assert "byte 5632" in failure.message


def test_a_zip_with_wrong_content_says_in_which_member(deployment: Deployment) -> None:
    """The checksum of each member is verified."""
    content = bytearray(zip_bytes(*GOOD))
    content[60] ^= 1

    failure = refusal(deployment, bytes(content), ZIP)

    assert "bundle-corrupt" == failure.error_id
    assert "'app/a.txt'" in failure.message


def test_an_encrypted_zip_is_called_encrypted(deployment: Deployment) -> None:
    """There is nowhere to take a password from."""
    content = bytearray(zip_bytes(file("a")))
    at = content.rindex(b"PK\1\2")
    struct.pack_into("<H", content, at + 8, 1)

    assert "bundle-encrypted" == refusal(deployment, bytes(content), ZIP).error_id


def test_something_after_compressed_data_is_refused(deployment: Deployment) -> None:
    """Two uploads in one file, or a page that a proxy added."""
    assert "bundle-corrupt" == refusal(deployment, tgz_bytes(*GOOD) + b"<html>", TGZ).error_id


@pytest.mark.parametrize("kind", list(PACKS))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 1_000_000), st.integers(0, 255)), min_size=1, max_size=8))
def test_damage_anywhere_is_survived(
    deployment: Deployment, kind: BundleType, changes: list[tuple[int, int]]
) -> None:
    """Whatever the bytes are: either it unpacks, or this one kind of failure comes; never a traceback."""
    content = bytearray(PACKS[kind](file("a", b"abc" * 400), symlink("l", "a"), file("d/b", b"")))
    for at, value in changes:
        content[at % len(content)] = value
    try:
        deployment.unpack(bytes(content), kind)
    except CommandFailure as failure:
        assert failure.message  # noqa: PT017 - both outcomes are right
