"""I1: programs go on reading while Install replaces what they read."""

from __future__ import annotations

import mmap
import os
import signal
import stat
import time
from typing import TYPE_CHECKING, Any

import pytest

from agent.install import install
from tests.install.children import ended, in_child, start
from tests.install.host import FILES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.install import InstallRequest
    from tests.install.host import Host

REINSTALLS = 50
CONTENTS = {"a": b"a" * 150_001, "b": b"b" * 70_003}
NAMES = [f"file-{number}" for number in range(20)]

_READS, _STOP = 0, 8  # places in the shared memory


def revision(letter: str) -> dict[str, Any]:
    """Twenty files, a directory with one, two links and a file that stays."""
    content = CONTENTS[letter].decode()
    return {
        **{f"app/{name}": content for name in NAMES},
        "app/conf/settings": content,
        "app/constant": "constant",
        f"app/release-{letter}/file": content,
        "app/current": {"link": f"release-{letter}"},
        "app/link-to-file": {"link": NAMES[0] if letter == "a" else NAMES[1]},
        "app/becomes-link": content if letter == "a" else {"link": "file-1"},
    }


def appspec(letter: str) -> str:
    """One file gets another mode with each revision, and everything else stays the same."""
    mode = {"a": "640", "b": "604"}[letter]
    return f"{FILES}\npermissions: [{{object: '@DEST@/app/constant', mode: {mode}}}]"


def read(path: str, *, dir_fd: int | None = None) -> bytes:
    """The whole file, in pieces, as a program reads it."""
    descriptor = os.open(path, os.O_RDONLY, dir_fd=dir_fd)
    try:
        size = os.fstat(descriptor).st_size
        content = b""
        while piece := os.read(descriptor, 32 * 1024):
            content += piece
    finally:
        os.close(descriptor)
    assert size == len(content)
    return content


def letter_of(content: bytes) -> str:
    """Whose content this is; fails when it is nobody's."""
    for letter, expected in CONTENTS.items():
        if content == expected:
            return letter
    raise AssertionError(f"{len(content)} bytes that are of neither revision: {content[:20]!r}…")


def one_file(app: Path) -> Iterator[str]:
    """By its path."""
    while True:
        yield letter_of(read(f"{app}/file-0"))


def all_files(app: Path) -> Iterator[str]:
    """One after the other, by path."""
    while True:
        for name in [*NAMES, "conf/settings"]:
            yield letter_of(read(f"{app}/{name}"))


def through_a_directory_descriptor(app: Path) -> Iterator[str]:
    """A server that opened its directories once, when it started."""
    top, conf = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (app, app / "conf"))
    while True:
        yield letter_of(read("file-7", dir_fd=top))
        yield letter_of(read("settings", dir_fd=conf))


def a_link(app: Path) -> Iterator[str]:
    """It is there, and leads to what one of the revisions has."""
    while True:
        yield os.readlink(app / "current").removeprefix("release-")
        assert os.readlink(app / "link-to-file") in {"file-0", "file-1"}


def through_a_link(app: Path) -> Iterator[str]:
    """The link and the file behind it may be of two revisions, but both are there."""
    while True:
        yield letter_of(read(f"{app}/link-to-file"))


def a_file_that_becomes_a_link_and_back(app: Path) -> Iterator[str]:
    """Whatever it is, there is a whole file behind that name."""
    while True:
        yield letter_of(read(f"{app}/becomes-link"))


def a_mode(app: Path) -> Iterator[str]:
    """It is that of one of the revisions, and the content stays."""
    while True:
        assert read(f"{app}/constant") == b"constant"
        mode = stat.S_IMODE(os.stat(app / "constant").st_mode)
        yield {0o640: "a", 0o604: "b"}[mode]


def names_in_the_directory(app: Path) -> Iterator[str]:
    """A program that looks for its plug-ins must find all of them, whichever revision's."""
    while True:
        names = os.listdir(app)
        assert set(NAMES) - set(names) == set()
        yield "a" if "release-a" in names else "b"


LOOPS = [
    one_file,
    all_files,
    through_a_directory_descriptor,
    a_link,
    through_a_link,
    a_file_that_becomes_a_link_and_back,
    a_mode,
    names_in_the_directory,
]


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_a_reader_never_misses_a_file_and_never_sees_a_mixed_one(
    host: Host, loop: Callable[[Path], Iterator[str]]
) -> None:
    """A web server that finds half a page, or none, has an outage, however short."""
    shared = mmap.mmap(-1, 16)
    requests = [host.request(revision(letter), appspec(letter)) for letter in "ab"]
    install(requests[0])
    seen = in_child(lambda: read_during(loop(host.dest / "app"), shared, requests))

    assert {"a", "b"} == seen


def read_during(reading: Iterator[str], shared: mmap.mmap, requests: list[InstallRequest]) -> set[str]:
    """What is seen while another process reinstalls; at least one look for each Install."""
    writer = start(lambda: write(shared, requests))
    seen, count = set(), 0
    try:
        while not shared[_STOP]:
            seen.add(next(reading))
            count += 1
            shared[_READS:_STOP] = count.to_bytes(_STOP, "little")
    except BaseException:
        os.kill(writer, signal.SIGKILL)  # nobody may write here any longer
        os.waitpid(writer, 0)
        raise
    assert not ended(writer)
    assert count >= REINSTALLS
    return seen


def write(shared: mmap.mmap, requests: list[InstallRequest]) -> None:
    """Install the revisions by turns, and then tell the reader."""
    try:
        for number in range(REINSTALLS):
            install(requests[1 - number % 2])
            await_reads(shared, 3)
    finally:
        shared[_STOP] = 1


def await_reads(shared: mmap.mmap, number: int) -> None:
    """Afterwards the reader has looked so many times more."""
    deadline = time.monotonic() + 30
    wanted = int.from_bytes(shared[_READS:_STOP], "little") + number
    while int.from_bytes(shared[_READS:_STOP], "little") < wanted and time.monotonic() < deadline:
        os.sched_yield()
