"""What is no file, link or directory stands where an Install, an undo or a clean-up works: pipes, sockets, devices."""

from __future__ import annotations

import os
import signal
import socket
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from agent.protocol import FileExistsBehavior
from tests.install.children import ended, start
from tests.install.host import failure_of
from tests.install.observers import at_step, both, failing_at, killed_at
from tests.security.install.attacker import SECURITY, USER, as_user, racing, step_of
from tests.security.install.surroundings import FIRST, GIVEN_AWAY, SECOND, WWW, SharedHost, raced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = SECURITY

ROUNDS = 100
PATIENCE_S = 20


@contextmanager
def in_time() -> Iterator[None]:
    """Whoever opens a pipe that nobody writes to waits for ever; here, that fails."""

    def fail(_signal: int, _frame: object) -> None:
        raise TimeoutError("somebody waits at a pipe")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(PATIENCE_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> None:
    """Whoever opens it waits until somebody opens its other end."""
    as_user(lambda: os.mkfifo(path, 0o666))


def listening(path: Path) -> None:
    """Nobody can open it."""

    def bind() -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))

    as_user(bind)


def device(path: Path) -> None:
    """One of root's, that lies in a directory of the user's; whoever opens it may rewind a tape."""
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))


KINDS = [pipe, listening, device]
MOMENTS = [Moment.JOURNAL, Moment.SWITCH, Moment.ADJUST, Moment.COMMIT]


def revision(number: int) -> dict[str, object]:
    """One file is the same, one changes, one gets another mode, one goes."""
    described: dict[str, object] = {"app/same": "s", "app/changed": str(number)}
    described["app/adjusted"] = {"content": "a", "mode": 0o644 if number == 1 else 0o640}
    if number == 1:
        described["app/gone"] = "g"
    return described


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("name", ["same", "changed", "adjusted", "gone"])
@pytest.mark.parametrize("moment", [None, *MOMENTS])
@pytest.mark.parametrize("end", ["success", "failure", "crash"])
def test_nobody_waits_for_it_and_it_gets_nothing(
    host: SharedHost, make: Callable[[Path], None], name: str, moment: Moment | None, end: str
) -> None:
    """It is replaced or left, like any other file of somebody's; and is not opened."""
    install(host.request(revision(1), WWW, durable=False))
    special, request = host.home / "special", host.request(revision(2), WWW, durable=False)
    make(special)
    was = special.lstat()

    def bring() -> None:
        with suppress(OSError):
            os.rename(special, host.www / name)

    def user_brings() -> None:
        as_user(bring)

    with in_time():
        if moment is None:
            user_brings()
        observer = at_step(moment, user_brings) if moment else (lambda _moment, _path: None)
        if end == "crash":
            killing = both(observer, killed_at(Moment.COMMIT))
            ended(start(lambda: failure_of(lambda: install(request, observer=killing))))
        elif end == "failure":
            failure_of(lambda: install(request, observer=both(observer, failing_at(Moment.COMMIT))))
        else:
            failure_of(lambda: install(request, observer=observer))
        host.recover()

    for path in [special, *host.www.iterdir()]:
        with suppress(FileNotFoundError):
            status = path.lstat()
            if status.st_ino == was.st_ino and not stat.S_ISREG(status.st_mode):
                assert (status.st_mode, status.st_uid, status.st_gid) == (was.st_mode, was.st_uid, was.st_gid)
    assert [] == [left for left in host.leftovers() if "journal" in left or ".install-" in left]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("behavior", FileExistsBehavior)
def test_where_nothing_was_installed_yet_it_is_like_any_file_of_others(
    host: SharedHost, make: Callable[[Path], None], behavior: FileExistsBehavior
) -> None:
    """A conflict, replaced, or left."""
    make(host.www / "a.conf")
    os.chown(host.www / "a.conf", USER, USER)
    kind = stat.S_IFMT((host.www / "a.conf").lstat().st_mode)
    request = host.request({"app/a.conf": "a"}, WWW, behavior=behavior, durable=False)
    with in_time():
        failure = failure_of(lambda: install(request))

    assert (failure is not None) == (behavior is FileExistsBehavior.DISALLOW)
    now = stat.S_IFMT((host.www / "a.conf").lstat().st_mode)
    assert now == (stat.S_IFREG if behavior is FileExistsBehavior.OVERWRITE else kind)


@pytest.mark.parametrize("name", ["a.conf", "b.conf", "gone.conf", "sub"])
def test_a_pipe_is_exchanged_for_what_is_there_all_the_time(host: SharedHost, racer: Path, name: str) -> None:
    """The same at any moment, of an Install and of what follows a failure."""
    requests = [host.request(tree, GIVEN_AWAY, durable=False) for tree in (FIRST, SECOND)]
    with racing(racer, host.www, "swap", name, "pipe") as user:
        for number in range(ROUNDS):
            failure_of(lambda: install(requests[0]))
            (host.www / "pipe").unlink(missing_ok=True)
            os.mkfifo(host.www / "pipe")
            os.chown(host.www / "pipe", USER, USER)
            fails = failing_at(Moment.COMMIT) if number % 3 == 0 else None
            with in_time():
                raced(host, user, requests[1], step_of(number), fails)
                host.recover()
            host.assert_nothing_else_has_changed()
            host.start_anew()
