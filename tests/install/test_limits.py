"""Names, paths and files at the edge of what the system takes."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import CommandFailure
from agent.install import install
from agent.protocol import FileExistsBehavior
from tests.install.children import in_child
from tests.install.host import FILES, Host
from tests.install.trees import MTIME_NS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ODD_NAMES = {
    "not UTF-8": b"caf\xe9-\xff",
    "newline": b"two\nlines",
    "carriage return": b"end\r",
    "space": b" around ",
    "percent": b"100%25%",
    "leading dot": b".hidden",
    "like ours": b".install-0-1.new",
    "backslash": b"back\\slash",
    "longest": b"n" * 255,
    "longest, not UTF-8": b"\xfe" * 255,
}
SPARSE_BYTES = 8 * 1024 * 1024


@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
@pytest.mark.parametrize("as_directory", [False, True], ids=["file", "directory"])
def test_every_name_comes_changes_and_goes(host: Host, name: bytes, as_directory: bool) -> None:  # noqa: FBT001
    """Whoever makes such a file does not know that some program can't handle it."""
    path = f"app/{os.fsdecode(name)}" + ("/leaf" if as_directory else "")
    for content in ("one", "two"):
        host.install({path: content})
        assert content == host.tree()[path]
        assert 1 == host.install({path: content}).unchanged

    host.install({"app/other": "x"})

    assert {"app/": None, "app/other": "x"} == host.tree()
    assert [] == host.leftovers()


@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
def test_every_name_is_put_back(host: Host, name: bytes) -> None:
    """An undo that stumbles over a name leaves half a revision."""
    path = f"app/{os.fsdecode(name)}"
    request = host.request({path: "two", f"{path}-d"[:200] + "/leaf": "new"})
    step = 0
    while True:
        step += 1
        host.install({path: "one"})
        before = host.everything()
        count = 0

        def observe(*_: object, step: int = step) -> None:
            nonlocal count
            count += 1
            if count == step:
                raise OSError(5, "a made-up error")

        try:
            install(request, observer=observe)
        except CommandFailure as failure:
            if failure.error_id != "install-failed":
                break
        assert before == host.everything()
    assert step > 5


def path_of_length(top: Path, length: int) -> str:
    """An absolute path of so many bytes, whose last component is one letter."""
    path = os.fspath(top)
    while length - len(path) > 2 + 255:
        path += "/" + "d" * min(255, length - len(path) - 2 - 2)
    rest = length - len(path) - 2
    path += ("/" + "e" * (rest - 1) if rest > 1 else "") + "/f"
    assert length == len(path)
    return path


@pytest.mark.parametrize("length", [1000, 3900, 4080, 4094, 4095])
def test_a_destination_may_be_as_long_as_the_system_allows(host: Host, length: int) -> None:
    """The system takes 4,095 bytes; hidden names beside the file must not make it less."""
    path = path_of_length(host.dest, length)
    appspec = f"files: [{{source: f, destination: '{os.path.dirname(path)}'}}]"
    for content in ("one", "two"):
        host.install({"f": content}, appspec)
        with open(path) as stream:
            assert content == stream.read()

    host.install({}, "")

    assert not host.dest.exists()


def test_a_destination_that_is_too_long_is_refused_before_anything_changes(host: Host) -> None:
    """The message names it; a language error would not."""
    host.install({"app/a": "a"})
    before = host.everything()
    directory = os.path.dirname(path_of_length(host.dest, 4096))

    with pytest.raises(CommandFailure) as caught:
        host.install({"app/a": "b", "f": "f"}, f"{FILES[:-1]}, {{source: f, destination: '{directory}'}}]")

    assert directory[:100] in caught.value.message
    assert "too long" in caught.value.message
    assert before == host.everything()


def test_paths_in_the_archive_may_be_longer_than_their_destinations(host: Host) -> None:
    """The archive lies deep below the deployment root, where the operator has no say."""
    names = ["d" * 250] * 15
    request = host.request({"app/": None})
    descriptor = os.open(request.archive / "app", os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=descriptor)
        inner = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    rest = 4095 - len(os.fspath(host.dest / "app")) - 15 * 251 - 1
    leaf = "l" * min(rest, 255)
    with open(os.open(leaf, os.O_WRONLY | os.O_CREAT, dir_fd=descriptor), "w") as stream:
        stream.write("leaf")
        os.fchmod(stream.fileno(), 0o644)
    os.close(descriptor)

    install(request)

    assert "leaf" == host.tree()["/".join(["app", *names, leaf])]


def test_directories_nested_absurdly_deep_are_refused(host: Host) -> None:
    """Not with a language error in the middle of the night."""
    with pytest.raises(CommandFailure, match="more than 200 deep"):
        host.install({"app/" + "d/" * 250 + "x": "x"})


def test_directories_nested_two_hundred_deep_are_installed(host: Host) -> None:
    """What any application has is far from the limit."""
    name = "d/" * 200 + "x"
    host.install({"app/" + name: "x"}, durable=False)
    assert "x" == host.tree()["app/" + name]
    with pytest.raises(CommandFailure, match="is more than 200 directories deep"):
        host.install({"app/x": "x"}, f"files: [{{source: app, destination: '@DEST@/{'d/' * 200}'}}]")


HOLES: dict[str, list[tuple[int, bytes]]] = {
    "data at both ends": [(0, b"head"), (SPARSE_BYTES - 4, b"tail")],
    "data in the middle": [(SPARSE_BYTES // 2, b"middle" * 1000)],
    "nothing but a hole": [],
    "small": [(500_000, b"end")],
}


@pytest.mark.parametrize("pieces", HOLES.values(), ids=HOLES)
def test_a_file_with_holes_keeps_them(host: Host, pieces: list[tuple[int, bytes]]) -> None:
    """A disk image or a database of 100 GB may have 1 GB in it, and the disk room for 2."""
    request = host.request({"app/image": ""})
    source = request.archive / "app/image"
    with source.open("r+b") as stream:
        for offset, data in pieces:
            stream.seek(offset)
            stream.write(data)
        stream.truncate(max(stream.tell(), SPARSE_BYTES if len(pieces) != 1 or pieces[0][0] > 10**6 else 0))
    os.utime(source, ns=(MTIME_NS, MTIME_NS))

    install(request)

    copy = host.dest / "app/image"
    assert source.read_bytes() == copy.read_bytes()
    assert copy.stat().st_blocks <= source.stat().st_blocks
    assert 1 == install(request).unchanged


def test_hard_links_in_a_bundle_stay_one_file(host: Host) -> None:
    """Two names of a large file must not take twice the room, in whatever directories they are."""
    tree = {"app/a": "shared", "app/sub/deep/b": {"same_as": "app/a"}, "app/z": {"same_as": "app/a"}}
    for content in ("shared", "shared", "changed"):
        host.install({**tree, "app/a": content})

        files = [(host.dest / name).stat() for name in tree]
        assert 1 == len({status.st_ino for status in files})
        assert {3} == {status.st_nlink for status in files}
        assert {content} == {(host.dest / name).read_text() for name in tree}

    host.install({"app/a": "changed", "app/z": "not linked any more"})

    assert [1, 1] == [(host.dest / name).stat().st_nlink for name in ("app/a", "app/z")]
    assert "changed" == (host.dest / "app/a").read_text()


def test_names_of_one_file_that_get_different_modes_become_two_files(host: Host) -> None:
    """A mode belongs to the file, not to the name."""
    appspec = f"{FILES}\npermissions: [{{object: '@DEST@/app/b', mode: 600}}]"

    host.install({"app/a": "shared", "app/b": {"same_as": "app/a"}}, appspec)

    assert {"app/": None, "app/a": "shared", "app/b": {"content": "shared", "mode": 0o600}} == host.tree()


def test_destination_parents_that_are_links_stay(host: Host) -> None:
    """Hosts move /var/www to a larger disk, and leave a link behind."""
    host.write({"real/": None, "app": {"link": "real"}, "over/there": {"link": "../app"}})
    appspec = "files: [{source: app, destination: '@DEST@/over/there/inner'}]"
    for content in ("one", "two"):
        host.install({"app/a": content, "app/sub/b": content}, appspec)

    assert ("two", "two") == (host.tree()["real/inner/a"], host.tree()["real/inner/sub/b"])
    host.install({}, "")
    expected = {"app": {"link": "real"}, "over/": None, "over/there": {"link": "../app"}, "real/": None}
    assert expected == host.tree()


def ordinarily(host: Host, body: Callable[[], Any]) -> Any:
    """What the body returns when no superuser runs it; the host belongs to that user."""

    def unprivileged() -> Any:
        if os.geteuid() == 0:
            for directory, _names, files in os.walk(host.base):
                for path in [directory, *(os.path.join(directory, name) for name in files)]:
                    os.chown(path, 65534, 65534, follow_symlinks=False)
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        return body()

    return in_child(unprivileged)


@pytest.mark.parametrize("mode", [0o444, 0o000], ids=["0444", "0000"])
@pytest.mark.parametrize("user", ["ordinary", "present"])
def test_files_without_write_permission_are_replaced_and_removed(host: Host, mode: int, user: str) -> None:
    """It is the directory that has to be writable, for any user."""

    def body() -> None:
        appspec = f"{FILES}\npermissions: [{{object: '@DEST@/app', type: [file], mode: '{mode:o}'}}]"
        host.install({"app/a": "one", "app/b": "same", "app/old": "o"}, appspec)
        host.install({"app/a": "two", "app/b": "same"}, appspec)
        seen = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (host.dest / "app").iterdir()}
        assert {"a": mode, "b": mode} == seen
        (host.dest / "app/a").chmod(0o644)
        assert "two" == (host.dest / "app/a").read_text()
        (host.dest / "app/a").chmod(mode)
        os.utime(host.dest / "app/b")  # so that its content has to be looked at
        host.install({"app/a": "three", "app/b": "same"})
        assert {"app/": None, "app/a": "three", "app/b": "same"} == host.tree()
        host.install({}, "")
        assert not host.dest.exists()

    ordinarily(host, body) if user == "ordinary" else body()


def test_somebody_elses_file_without_permissions_is_overwritten_when_that_is_asked_for(host: Host) -> None:
    """Its content need not be readable to be replaced."""

    def body() -> None:
        host.write({"app/a": {"content": "theirs", "mode": 0}})
        host.install({"app/a": "ours!!"}, behavior=FileExistsBehavior.OVERWRITE)
        assert {"app/": None, "app/a": "ours!!"} == host.tree()

    ordinarily(host, body)


def test_a_directory_that_an_ordinary_user_may_not_write_is_named(host: Host) -> None:
    """An agent that does not run as root fails for this reason more than for any other."""

    def body() -> tuple[str, bool]:
        host.install({"app/a": "one"})
        host.write({"theirs/a": "x"})
        (host.dest / "theirs").chmod(0o555)
        before = host.everything()
        appspec = f"{FILES[:-1]}, {{source: new, destination: '@DEST@/theirs'}}]"
        with pytest.raises(CommandFailure) as caught:
            host.install({"app/a": "two", "new/b": "b"}, appspec)
        same = before == host.everything() and [] == host.leftovers()
        (host.dest / "theirs").chmod(0o755)
        return caught.value.message, same

    message, same = ordinarily(host, body)

    assert f"{host.dest}/theirs" in message
    assert "ermission denied" in message
    assert same


def test_a_directory_that_an_ordinary_user_may_not_enter_is_named(host: Host) -> None:
    """The same while planning: what can't be looked at can't be planned for."""

    def body() -> tuple[str, bool]:
        host.write({"theirs/a": "x"})
        (host.dest / "theirs").chmod(0o000)
        with pytest.raises(CommandFailure) as caught:
            host.install({"app/b": "b"}, "files: [{source: app, destination: '@DEST@/theirs'}]")
        (host.dest / "theirs").chmod(0o755)
        return caught.value.message, [] == host.leftovers()

    message, same = ordinarily(host, body)

    assert f"{host.dest}/theirs" in message
    assert "ermission denied" in message
    assert same


def test_what_can_not_be_looked_at_is_not_taken_for_gone(host: Host) -> None:
    """A file server that does not answer would cost nothing but the knowledge of what lies there, for ever."""

    def body() -> tuple[str, bool]:
        host.install({"app/sub/a": "1"}, durable=False)
        (host.dest / "app").chmod(0o000)
        elsewhere = "files: [{source: app, destination: '@DEST@/elsewhere'}]"
        with pytest.raises(CommandFailure) as caught:
            host.install({"app/b": "2"}, elsewhere, durable=False)
        (host.dest / "app").chmod(0o755)
        host.install({"app/b": "2"}, elsewhere, durable=False)
        return caught.value.message, host.tree() == {"elsewhere/": None, "elsewhere/b": "2"}

    message, same = ordinarily(host, body)

    assert f"because {host.dest}/app/sub can't be looked at" in message
    assert same
