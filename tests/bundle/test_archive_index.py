"""The index of an archive, by which Install knows what has not changed."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agent.archive_index import DIRECTORY, LINK, ArchiveIndex, digest_in, identity_of, index_of
from agent.errors import CommandFailure
from agent.listings import content_digest
from agent.protocol import BundleType
from tests.bundle.conftest import Deployment
from tests.bundle.packing import directory, file, hard_link, symlink, tar_bytes, tgz_bytes, zip_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bundle.packing import Member, Pack

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


# What is in a directory


def listed(archive: Path, name: str) -> dict[bytes, bytes] | None:
    """What the index says is in this directory of the archive; None when that has to be looked at."""
    path = os.fsencode(archive / name if name else archive)
    index = ArchiveIndex(archive)
    return index.of(path) if index.lists_all(path, os.lstat(path)) else None


def kinds_in(directory: str | Path) -> dict[bytes, bytes]:
    """Name → LINK, DIRECTORY or nothing, of all that is there."""
    kinds = {}
    for entry in os.scandir(os.fsencode(directory)):
        kind = DIRECTORY if entry.is_dir(follow_symlinks=False) else b""
        kinds[entry.name] = LINK if entry.is_symlink() else kind
    return kinds


def wrong_lists(archive: Path) -> list[str]:
    """The directories of which the index says something else than what is there."""
    wrong = []
    for place, _directories, _names in os.walk(archive):
        entries = listed(archive, os.path.relpath(place, archive).removeprefix("."))
        if entries is None:
            continue
        told = {name: kind if kind in {LINK, DIRECTORY} else b"" for name, kind in entries.items()}
        if told != kinds_in(place):
            wrong.append(place)
    return wrong


def test_a_directory_of_the_bundle_need_not_be_listed(deployment: Deployment) -> None:
    """Listing ten thousand directories takes longer than reading one file that tells what is in them."""
    archive = deployment.unpack(tar_bytes(*MEMBERS, directory("app/hollow")), BundleType.TAR)

    assert {b"a b%20c", b"large", b"empty", b"link", b"hollow"} == set(listed(archive, "app") or {})
    assert {} == listed(archive, "app/hollow")
    assert [] == wrong_lists(archive)


def test_a_directory_that_the_bundle_does_not_name_is_listed(deployment: Deployment) -> None:
    """Nothing tells when it was finished; its files are known all the same."""
    archive = deployment.unpack(zip_bytes(file("appspec.yml", b"x"), file("app/a", b"a")), BundleType.ZIP)

    assert listed(archive, "app") is None
    assert content_digest(b"a") == digest_of(archive, "app/a")


def test_a_wrapper_directory_is_not_in_the_lists_either(deployment: Deployment) -> None:
    """Its directories lie one level higher than in the bundle."""
    members = (directory("w"), file("w/appspec.yml", b"x"), directory("w/sub"), file("w/sub/y", b"y"))
    archive = deployment.unpack(tgz_bytes(*members), BundleType.TGZ)

    assert {b"y"} == set(listed(archive, "sub") or {})
    assert [] == wrong_lists(archive)


def add_and_remove(app: Path) -> None:
    """Something was there for a moment."""
    (app / "new").write_text("n")
    (app / "new").unlink()


def add_untold(app: Path) -> None:
    """Something is there that the directory's time doesn't tell."""
    was = app.stat()
    (app / "new").write_text("n")
    os.utime(app, ns=(was.st_atime_ns, was.st_mtime_ns))


def replace_by_link(app: Path) -> None:
    """A link has the name of a file."""
    (app / "empty").unlink()
    (app / "empty").symlink_to("large")


CHANGES: dict[str, Callable[[Path], object]] = {
    "added": lambda app: (app / "new").write_text("n"),
    "added and removed": add_and_remove,
    "removed": lambda app: (app / "empty").unlink(),
    "renamed": lambda app: (app / "empty").rename(app / "full"),
    "replaced by a link": replace_by_link,
    "replaced by rename": lambda app: (
        (app / "new").write_text("n"),
        (app / "new").rename(app / "empty"),
    ),
    "directory added": lambda app: (app / "new").mkdir(),
    "time given back": add_untold,
    "copied": lambda app: (app.rename(app.parent / "x"), shutil.copytree(app.parent / "x", app)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_directory_that_a_hook_has_changed_is_listed(
    deployment: Deployment, change: Callable[[Path], object]
) -> None:
    """At once after unpacking, and however the times look afterwards: what a hook adds has to be installed."""
    archive = deployment.unpack(tar_bytes(*MEMBERS), BundleType.TAR)
    assert listed(archive, "app") is not None
    change(archive / "app")

    assert listed(archive, "app") is None


def test_an_index_from_a_whole_second_hides_no_file(deployment: Deployment) -> None:
    """Some tools cut times to seconds. What they leave doubtful has to be listed, and must not be forgotten."""
    archive = deployment.unpack(tar_bytes(*MEMBERS), BundleType.TAR)
    os.utime(index_of(archive), (1_000_000_000, 1_000_000_000))

    assert [] == wrong_lists(archive)


def test_a_hard_link_to_a_link_is_not_taken_for_a_file(deployment: Deployment) -> None:
    """`tar` writes the second name of a link so. Opened as a file, it would fail the Install."""
    members = (directory("app"), symlink("app/one", "target"), hard_link("app/two", "app/one"))
    archive = deployment.unpack(tar_bytes(file("appspec.yml", b"x"), *members), BundleType.TAR)
    assert (archive / "app/two").is_symlink()

    assert [] == wrong_lists(archive)


PLACES = ["", "d/", "d/e f/", "%41/"]
LEAVES = ["a", "b", "a b", "ü", "\udcff", "g\nh"]
KINDS: dict[str, Callable[[str, str], Member]] = {
    "file": lambda name, other: file(name, other.encode("utf-8", "surrogateescape")),
    "link": symlink,
    "hard link": hard_link,
}


@st.composite
def bundles(draw: st.DrawFn) -> list[Member]:
    """Members that may come twice, each time as something else, and hard links to earlier ones."""
    members = [directory(place.rstrip("/")) for place in draw(st.lists(st.sampled_from(PLACES[1:])))]
    there: list[str] = []
    for _ in range(draw(st.integers(0, 10))):
        name = draw(st.sampled_from(PLACES)) + draw(st.sampled_from(LEAVES))
        kind = draw(st.sampled_from([*KINDS][: 3 if there else 2]))
        other = draw(st.sampled_from(there if kind == "hard link" else LEAVES))
        members.append(KINDS[kind](name, other))
        if kind != "hard link":
            there.append(name)
    return members


@settings(
    max_examples=300,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(members=bundles())
def test_whatever_a_bundle_holds_its_lists_are_right(tmp_path: Path, members: list[Member]) -> None:
    """Members that come twice, in any order, links in place of files: a wrong list costs a file, or a deployment."""
    with tempfile.TemporaryDirectory(dir=tmp_path, prefix="test-") as place:
        deployment = Deployment(Path(place))
        try:
            archive = deployment.unpack(tar_bytes(file("appspec.yml", b"x"), *members), BundleType.TAR)
        except CommandFailure:
            return  # refused as a whole

        assert [] == wrong_lists(archive)
        for path in archive.rglob("*"):
            if stat.S_ISREG(path.lstat().st_mode):
                known = digest_of(archive, str(path.relative_to(archive)))
                assert known in {None, content_digest(path.read_bytes())}


# Damage


def test_an_index_that_is_cut_anywhere_is_no_index(deployment: Deployment) -> None:
    """The host may have died while it was written; half a list would look like a whole one."""
    archive = deployment.unpack(tar_bytes(*MEMBERS), BundleType.TAR)
    whole = index_of(archive).read_bytes()
    for length in range(len(whole)):
        index_of(archive).write_bytes(whole[:length])

        assert listed(archive, "app") is None, length
        assert digest_of(archive, "appspec.yml") is None, length


@pytest.mark.parametrize("value", [b"\n", b" ", b"0", b"d"])
def test_an_index_with_a_wrong_byte_tells_nothing_wrong(deployment: Deployment, value: bytes) -> None:
    """Disks do that."""
    archive = deployment.unpack(tar_bytes(*MEMBERS), BundleType.TAR)
    whole = index_of(archive).read_bytes()
    for position in range(len(whole)):
        index_of(archive).write_bytes(whole[:position] + value + whole[position + 1 :])

        assert [] == wrong_lists(archive), position
        assert digest_of(archive, "appspec.yml") in {None, content_digest(MEMBERS[0].content)}


# The digest of all names


def names_digest(deployment: Deployment, *members: Member, pack: Pack = tar_bytes) -> bytes:
    """What tells the names of these members apart from others."""
    kind = BundleType.TAR if pack is tar_bytes else BundleType.ZIP
    return ArchiveIndex(deployment.unpack(pack(*members), kind)).names_digest


def test_the_same_in_another_bundle_has_the_same_digest(deployment: Deployment) -> None:
    """A revision that is built again, packed in another order and by another program; or with other contents."""
    first = names_digest(deployment, *MEMBERS)

    again = names_digest(deployment, MEMBERS[0], MEMBERS[1], *reversed(MEMBERS[2:]))

    assert first == again != b""
    assert first == names_digest(deployment, *MEMBERS, pack=zip_bytes)


def test_another_content_has_the_same_digest(deployment: Deployment) -> None:
    """Contents are compared one by one."""
    some = [names_digest(deployment, MEMBERS[0], file("app/a", content)) for content in (b"", b"a", b"b")]

    assert len(set(some)) == 1


DIFFERENT = {
    "name": (MEMBERS[0], MEMBERS[1], file("app/b", b"a")),
    "place": (MEMBERS[0], MEMBERS[1], file("a", b"a")),
    "link": (MEMBERS[0], MEMBERS[1], symlink("app/a", "a")),
    "directory": (MEMBERS[0], MEMBERS[1], directory("app/a")),
    "hollow directory": (MEMBERS[0], MEMBERS[1], file("app/a", b"a"), directory("app/h")),
    "more": (MEMBERS[0], MEMBERS[1], file("app/a", b"a"), file("app/aa", b"a")),
    "nothing": (MEMBERS[0], MEMBERS[1]),
}


def test_whatever_is_different_has_another_digest(deployment: Deployment) -> None:
    """Install would leave out what only one of them has."""
    plain = (MEMBERS[0], MEMBERS[1], file("app/a", b"a"))

    digests = [names_digest(deployment, *members) for members in (plain, *DIFFERENT.values())]

    assert len(digests) == len(set(digests))
    assert b"" not in digests


def test_an_archive_without_an_index_has_no_digest(deployment: Deployment) -> None:
    """So that no two of them are taken for the same."""
    archive = deployment.unpack(tar_bytes(*MEMBERS), BundleType.TAR)
    index_of(archive).unlink()

    assert b"" == ArchiveIndex(archive).names_digest
