"""The user puts a file in the place of one that root is about to read: one that never ends, or is larger than memory."""

from __future__ import annotations

import os
import resource
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.install import install
from agent.install.records.manifest import Record, is_as_left
from agent.listings import content_digest
from agent.protocol import FileExistsBehavior
from tests.install.children import ended, in_child, start
from tests.security.install.attacker import SECURITY, USER, become, racing, step_of
from tests.security.install.surroundings import FIRST, SECOND, WWW, SharedHost, assert_installed, check_round

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = SECURITY

_MEMORY_BYTES = 1 << 30
_SPARSE_BYTES = 1 << 40
_PATIENCE_S = 20
ROUNDS = 300


def make_sparse(path: Path) -> None:
    """It takes no room."""
    with path.open("wb") as stream:
        stream.truncate(_SPARSE_BYTES)


def within_bounds(body: Callable[[], Any]) -> Any:
    """What the body returns in a process that has little memory, and little time."""

    def bounded() -> Any:
        # Beside what the tests before this one have mapped.
        mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + _MEMORY_BYTES, mapped + _MEMORY_BYTES))
        signal.alarm(_PATIENCE_S)
        return body()

    return in_child(bounded)


def test_no_more_is_read_of_a_recorded_file_than_it_has_had(tmp_path: Path) -> None:
    """It had the recorded size when it was looked at. To read all of it would take days."""
    path = tmp_path / "file"
    path.write_text("text")
    status = path.stat()
    record = Record(False, 1, 4, 0, 0, content_digest(b"text"), False)
    assert is_as_left(os.fsencode(path), status, record)
    make_sparse(path)

    assert not within_bounds(lambda: is_as_left(os.fsencode(path), status, record))


def test_no_more_is_read_of_a_file_that_may_be_kept_than_the_revision_has(host: SharedHost) -> None:
    """The user exchanges it after it was looked at, and before it is opened."""
    host.write({"a.conf": FIRST["app/a.conf"]}, host.www)
    sparse = host.home / "sparse"
    make_sparse(sparse)
    request = host.request(FIRST, WWW, durable=False, processes=1, behavior=FileExistsBehavior.OVERWRITE)

    def exchange(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and arguments[0] == b"a.conf" and sparse.exists():
            sparse.replace(host.www / "a.conf")

    def run() -> None:
        sys.addaudithook(exchange)
        install(request)

    within_bounds(run)

    assert_installed(FIRST, host.www)
    assert not sparse.exists()


def feed(path: Path) -> None:
    """Write into a pipe for ever."""
    become(USER)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    while True:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            while True:
                os.write(descriptor, bytes(65_536))
        except BrokenPipeError:
            os.close(descriptor)


def pipe(path: Path) -> Iterator[None]:
    """A pipe of the user's that never ends."""
    os.mkfifo(path)
    os.chown(path, USER, USER)
    feeder = start(lambda: feed(path))
    yield
    os.kill(feeder, signal.SIGKILL)
    ended(feeder)


def sparse(path: Path) -> Iterator[None]:
    """A file of the user's that is larger than memory."""
    make_sparse(path)
    os.chown(path, USER, USER)
    yield


@contextmanager
def soon() -> Iterator[None]:
    """What is done meanwhile must not take long."""

    def fail(*_arguments: object) -> None:
        raise AssertionError("it does not end")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(_PATIENCE_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", [pipe, sparse])
def test_a_file_is_exchanged_for_one_that_does_not_end(
    host: SharedHost, racer: Path, kind: Callable[[Path], Iterator[None]]
) -> None:
    """Whatever is at that name when it is opened, the Install goes on, or fails."""
    turns = [(revision, host.request(revision, WWW, durable=False)) for revision in (FIRST, SECOND)]
    with (
        contextmanager(kind)(host.home / "bait"),
        racing(racer, host.www, "swap", "b.conf", "../bait") as user,
    ):
        for number in range(ROUNDS):
            if not (host.www / "b.conf").exists():
                host.write({"b.conf": FIRST["app/b.conf"]}, host.www)
            revision, request = turns[number % 2]
            with soon():
                check_round(host, user, request, revision, step_of(number))
