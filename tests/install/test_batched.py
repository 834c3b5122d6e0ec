"""I10: the compiled library does what Python does, as far as it goes, and stops where it does not."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from array import array
from typing import TYPE_CHECKING

import pytest

from agent.install import install
from agent.install.compare.survey import UNCHANGED, UNKNOWN
from agent.install.posix import batched
from agent.install.records.manifest import file_fields
from agent.listings import content_digest
from tests.install.batched_pair import MOST, Pair
from tests.install.children import in_child
from tests.install.host import write_index

if TYPE_CHECKING:
    from pathlib import Path

    from agent.install.posix.batched import Library
    from tests.install.host import Host

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
OTHERS = "0" * 32


@needs_compiler
def test_where_there_is_a_compiler_there_is_the_library() -> None:
    """Otherwise nobody would notice that it is not used."""
    assert batched.library() is not None


def test_without_the_library_or_with_that_of_another_version_python_does_it_all(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batched, "__file__", str(place / "batched.py"))
    assert batched.library.__wrapped__() is None
    (place / "_batched.so").write_text("no library")
    assert batched.library.__wrapped__() is None
    monkeypatch.undo()
    monkeypatch.setattr(batched, "_VERSION", 999)
    assert batched.library.__wrapped__() is None


# Comparing


def test_files_that_are_as_they_were_left_are_told(compiled: Library, pair: Pair) -> None:
    names = ["a", "b c".replace(" ", "_"), "n" * 255, "\udcff", "-1"]
    entries, listed = pair.both(*names)

    assert pair.compared(compiled, entries, listed) == [UNCHANGED] * len(names)
    assert pair.compared(compiled, b"/ sub\n" + entries + b"/ zub\n", listed) == [UNCHANGED] * len(names)
    assert pair.compared(compiled, b"", b"") == []


@pytest.mark.parametrize(
    ("harm", "state"),
    [
        (lambda pair: (pair.real / "b").write_text("edited"), UNKNOWN),
        (lambda pair: (pair.real / "b").unlink(), UNKNOWN),
        (lambda pair: (pair.real / "b").chmod(0o600), UNKNOWN),
        (lambda pair: os.link(pair.real / "b", pair.real / "other name"), UNKNOWN),
        (lambda pair: (pair.source / "b").write_text("content of b"), UNKNOWN),
        (lambda pair: (pair.source / "b").chmod(0o600), UNKNOWN),
        (lambda pair: ((pair.real / "b").unlink(), (pair.real / "b").symlink_to("a")), UNKNOWN),
    ],
    ids=["edited", "gone", "mode", "link count", "written in the archive", "mode in the archive", "a link"],
)
def test_what_is_different_is_left_to_a_closer_look(
    compiled: Library, pair: Pair, harm: object, state: int
) -> None:
    entries, listed = pair.both("a", "b", "c")
    assert callable(harm)
    harm(pair)

    assert pair.compared(compiled, entries, listed) == [UNCHANGED, state, UNCHANGED]


def test_another_content_in_the_archive_tells_what_it_replaces(compiled: Library, pair: Pair) -> None:
    entries, listed = pair.both("a", "b")
    changed = entries.replace(content_digest(b"content of b"), OTHERS.encode())
    unknown = listed.replace(content_digest(b"content of b"), b"-")

    assert pair.compared(compiled, changed, listed) == [UNCHANGED, (pair.real / "b").stat().st_ino]
    assert pair.compared(compiled, entries, unknown) == [UNCHANGED, UNKNOWN]
    assert pair.compared(compiled, entries, listed.replace(b" - b\n", b" a b\n")) == [UNCHANGED, UNKNOWN]


@pytest.mark.parametrize(
    "lists",
    [
        lambda entries, listed: (entries + b"l link\n", listed),
        lambda entries, listed: (entries + b"- unknown\n", listed),
        lambda entries, listed: (entries, listed + b"l 1 2 3 4 target - z\n"),
        lambda entries, listed: (entries.replace(b" b\n", b" %41\n"), listed.replace(b" b\n", b" %41\n")),
        lambda entries, listed: (entries.replace(b" b\n", b" bb\n"), listed),
        lambda entries, listed: (entries, listed.replace(b" b\n", b" bb\n")),
        lambda entries, listed: (entries[:-1], listed),
        lambda entries, listed: (entries, listed[:-1]),
        lambda entries, listed: (entries, b""),
        lambda entries, listed: (b"", listed),
        lambda entries, listed: (b"nonsense\n", b"nonsense\n"),
        lambda entries, listed: (entries, b"f 1 2 3\n" + listed),
        lambda entries, listed: (entries, listed.replace(b"f ", b"f x", 1)),
        lambda entries, listed: (entries, listed.replace(b"f ", b"f 0", 1)),
        lambda entries, listed: (entries, _with_inode(listed, 2**64)),
        lambda entries, listed: (entries, _with_inode(listed, 2**65)),
        lambda entries, listed: (entries, listed.replace(b" -123456789 ", b" -9223372036854775808 ")),
        lambda entries, listed: (entries, listed.replace(b" -123456789 ", b" -0 ")),
        lambda entries, listed: (entries.replace(b" b\n", b" b\0\n"), listed.replace(b" b\n", b" b\0\n")),
        lambda entries, listed: (entries.replace(b" b\n", b" ./b\n"), listed.replace(b" b\n", b" ./b\n")),
        lambda entries, listed: (entries.replace(b" b\n", b" \n"), listed.replace(b" b\n", b" \n")),
    ],
)
def test_other_lists_are_left_to_python(compiled: Library, pair: Pair, lists: object) -> None:
    assert callable(lists)

    assert pair.compared(compiled, *lists(*pair.both("a", "b"))) is None


def _with_inode(listed: bytes, more: int) -> bytes:
    """The first file has a number that would be its own if only 64 bits of it were read."""
    kind, inode, rest = listed.split(b" ", 2)
    return b" ".join((kind, b"%d" % (int(inode) + more), rest))


def test_a_time_beyond_the_numbers_of_the_library_is_left_to_python(
    compiled: Library, pair: Pair, host: Host
) -> None:
    """Some file systems know the year 2500, of which the nanoseconds since 1970 don't fit into 64 bits."""
    far_ns = 16_725_225_600 * 10**9
    pair.put("a")
    os.utime(pair.real / "a", ns=(far_ns, far_ns))
    if (pair.real / "a").stat().st_mtime_ns != far_ns:
        pytest.skip("this file system does not know such times")
    os.utime(pair.source / "a", ns=(far_ns, far_ns))
    digest = content_digest(b"content of a")
    entries = pair.fields("a") + b" a\n"
    listed = file_fields((pair.real / "a").lstat(), digest, has_acl=False) + b" a\n"
    inodes = waiting(pair, "b")
    os.utime(pair.real / ".new-b", ns=(far_ns, far_ns))

    assert pair.compared(compiled, entries, listed) is None
    assert pair.copied(compiled, "a") == ([], 0)
    assert switched(compiled, pair, inodes, "b") == ([], True)

    for content in ("old", "new"):
        request = host.request({"app/a": content, "app/b": content, "app/c": content}, durable=False)
        for name in "ab":
            os.utime(request.archive / "app" / name, ns=(far_ns, far_ns))
        write_index(request.archive)
        install(request)
    assert b" %d " % far_ns in host.records()[f"{host.group_id}-manifest"]
    assert ["new"] * 3 == [(host.dest / "app" / name).read_text() for name in "abc"]


def test_a_directory_in_the_place_of_a_file_is_left_to_python(compiled: Library, pair: Pair) -> None:
    entries, listed = pair.both("a")
    (pair.real / "a").unlink()
    (pair.real / "a").mkdir()

    assert pair.compared(compiled, entries, listed) is None


# Copying


def test_plain_files_are_copied(compiled: Library, pair: Pair) -> None:
    for name, mode in (("a", 0o644), ("b", 0o755), ("empty", 0o600), ("\udcff", 0o640), ("full", 0o644)):
        (pair.source / name).write_bytes({"empty": b"", "full": b"x" * MOST}.get(name, os.fsencode(name)))
        (pair.source / name).chmod(mode)
        os.utime(pair.source / name, ns=(7, -11))
    names = sorted(path.name for path in pair.source.iterdir())

    made, error = pair.copied(compiled, *names)

    assert error == 0
    for name, copy in zip(names, made, strict=True):
        there, source = (pair.real / f".new-{name}").lstat(), (pair.source / name).lstat()
        assert copy == (there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns)
        assert (there.st_mode, there.st_mtime_ns) == (source.st_mode, -11)
        assert (pair.real / f".new-{name}").read_bytes() == (pair.source / name).read_bytes()


def _set_uid(path: Path) -> None:
    path.chmod(0o4755)


def _second_name(path: Path) -> None:
    os.link(path, path.with_name("z second name"))


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("a")


def _holes(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(100_000)


@pytest.mark.parametrize(
    "change", [_set_uid, _second_name, _link, _holes, lambda path: path.write_bytes(b"x" * (MOST + 1))]
)
def test_what_is_no_plain_file_is_left_to_python_with_all_that_follows(
    compiled: Library, pair: Pair, change: object
) -> None:
    for name in "abc":
        (pair.source / name).write_text(name)
    assert callable(change)
    change(pair.source / "b")

    made, error = pair.copied(compiled, "a", "b", "c")

    assert (1, 0) == (len(made), error)
    assert [".new-a"] == [path.name for path in pair.real.iterdir()]


def test_a_file_that_was_changed_since_it_was_unpacked_is_left_to_python(
    compiled: Library, pair: Pair
) -> None:
    (pair.source / "a").write_text("a")
    fields = [pair.fields("a")]
    (pair.source / "a").write_text("b")

    copied = compiled.copied(
        pair.source_fd, pair.real_fd, fields, [b"a"], None, most_bytes=MOST, is_root=False, gid=0
    )

    assert ([], 0) == copied
    assert [] == list(pair.real.iterdir())


def test_a_name_that_is_taken_is_an_error(compiled: Library, pair: Pair) -> None:
    for name in "ab":
        (pair.source / name).write_text(name)
    (pair.real / ".new-b").write_text("somebody's")

    made, error = pair.copied(compiled, "a", "b")

    assert (1, errno.EEXIST) == (len(made), error)
    assert (pair.real / ".new-b").read_text() == "somebody's"


def test_what_the_disk_does_not_take_is_an_error(compiled: Library, pair: Pair) -> None:
    for name in "ab":
        (pair.source / name).write_text(name * 100)

    def body() -> tuple[int, int]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))
        made, error = pair.copied(compiled, "a", "b")
        return len(made), error

    assert (0, errno.EFBIG) == in_child(body)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_gives_the_owners_of_the_archive(compiled: Library, pair: Pair) -> None:
    for name, owner in (("a", (0, 0)), ("b", (12, 34)), ("c", (0, 34))):
        (pair.source / name).write_text(name)
        os.chown(pair.source / name, *owner)

    made, _error = pair.copied(compiled, "a", "b", "c")

    owners = [
        (status.st_uid, status.st_gid) for status in ((pair.real / f".new-{name}").stat() for name in "abc")
    ]
    assert [(0, 0), (12, 34), (0, 34)] == owners
    assert [copy.ctime_ns for copy in made] == [
        (pair.real / f".new-{name}").stat().st_ctime_ns for name in "abc"
    ]


# Taking places


def waiting(pair: Pair, *names: str) -> array[int]:
    """New files wait for these names; the inodes of these, and of what they replace."""
    numbers = array("Q")
    for name in names:
        (pair.real / f".new-{name}").write_text(f"new {name}")
        path = pair.real / name
        numbers.extend(
            [(pair.real / f".new-{name}").stat().st_ino, path.stat().st_ino if path.exists() else 0]
        )
    return numbers


def switched(compiled: Library, pair: Pair, inodes: array[int], *names: str) -> batched.Switched:
    spelled = [os.fsencode(name) for name in names]
    return compiled.switched(pair.real_fd, [b".new-" + name for name in spelled], spelled, inodes)


def test_files_take_their_places_and_what_they_replace_gets_theirs(compiled: Library, pair: Pair) -> None:
    (pair.real / "a").write_text("old a")
    inodes = waiting(pair, "a", "b")

    made, is_unclear = switched(compiled, pair, inodes, "a", "b")

    assert (2, False) == (len(made), is_unclear)
    assert [inodes[0], inodes[2]] == [now.inode for now in made]
    contents = {path.name: path.read_text() for path in pair.real.iterdir()}
    assert contents == {"a": "new a", "b": "new b", ".new-a": "old a"}
    status = (pair.real / "a").stat()
    assert made[0] == (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def test_what_has_appeared_or_gone_is_left_as_it_is(compiled: Library, pair: Pair) -> None:
    (pair.real / "b").write_text("old b")
    inodes = waiting(pair, "a", "b", "c")
    (pair.real / "a").write_text("appeared")
    assert ([], False) == switched(compiled, pair, inodes, "a", "b", "c")
    assert (pair.real / "a").read_text() == "appeared"
    (pair.real / "a").unlink()
    (pair.real / "b").unlink()

    made, is_unclear = switched(compiled, pair, inodes, "a", "b", "c")

    assert (1, False) == (len(made), is_unclear)
    assert (pair.real / ".new-b").read_text() == "new b"


def test_something_else_under_the_hidden_name_is_told(compiled: Library, pair: Pair) -> None:
    inodes = waiting(pair, "a", "b")
    (pair.real / ".new-b").unlink()
    (pair.real / "keeps the inode").write_text("")
    (pair.real / ".new-b").write_text("somebody's")
    inodes[2] += 10**6

    made, is_unclear = switched(compiled, pair, inodes, "a", "b")

    assert (1, True) == (len(made), is_unclear)
