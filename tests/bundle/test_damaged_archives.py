"""Bundles that are broken, or not what they are said to be."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import CommandFailure
from agent.protocol import BundleType
from tests.bundle.packing import file, symlink, tar_bytes, tgz_bytes, zip_bytes

if TYPE_CHECKING:
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
        (b"\x28\xb5\x2f\xfdxxx", TAR, "zstd-compressed"),
    ],
)
def test_a_file_of_another_kind_is_called_by_its_name(
    deployment: Deployment, content: bytes, kind: BundleType, seen: str
) -> None:
    """The revision was registered with the wrong type; only the bytes tell the right one."""
    failure = refusal(deployment, content, kind)

    assert "bundle-type-wrong" == failure.error_id
    assert seen in failure.message


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
