"""What the system refuses in the middle: to users who are not root, and to processes that are killed."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import pwd
import signal
import stat
import struct
import sys
import termios
import time
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from agent.processes import start_ticks
from tests.install.children import in_child
from tests.install.host import FILES, Host, failure_of
from tests.install.observers import at_step, failing_at
from tests.install.trees import MTIME_NS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.install.model.moments import Observer

T = TypeVar("T")

CHANGES_OF_DESCRIPTORS = {"os.chmod", "os.chown", "os.removexattr", "os.setxattr", "os.utime"}
ACLS = FILES + "\npermissions: [{object: '@DEST@/app', mode: 750, acls: ['u:nobody:r']}]"

NOBODY = pwd.getpwnam("nobody")
UNREADABLE = FILES + "\npermissions: [{object: '@DEST@/app', mode: '0200', type: [file]}]"


def as_ordinary_user(place: Path, body: Callable[[Host], T]) -> T:
    """What the body returns for a host in an empty directory of a user who is not root."""
    home = place / "home"
    home.mkdir()
    if os.geteuid() == 0:
        os.chown(home, NOBODY.pw_uid, NOBODY.pw_gid)
    # Modules that are loaded when they are needed must be there before: that user may not read them.
    Host(place / "warm").install({"app/a": "a"}, UNREADABLE)
    failure_of(lambda: Host(place / "warm up").install({"app/a": "a"}, observer=failing_at(Moment.COMMIT)))

    def demoted() -> T:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY.pw_gid)
            os.setuid(NOBODY.pw_uid)
        return body(Host(home))

    return in_child(demoted)


@pytest.mark.parametrize("step", [Moment.MANIFEST, Moment.COMMIT])
def test_an_undo_gives_a_file_its_mode_back_that_can_not_be_read_any_more(place: Path, step: Moment) -> None:
    """An agent that does not run as root may have taken its own right to read; nobody could repair that by waiting."""

    def body(host: Host) -> tuple[str, bool, list[str]]:
        host.install({"app/a": "a", "app/b": "b"})
        before = host.everything()
        failure = failure_of(
            lambda: host.install({"app/a": "a", "app/b": "b"}, UNREADABLE, observer=failing_at(step))
        )
        return failure.error_id if failure else "", before == host.everything(), host.leftovers()

    assert ("install-failed", True, []) == as_ordinary_user(place, body)


def test_an_unreadable_file_is_replaced_by_the_next_revision(place: Path) -> None:
    """What can't be compared can still be written anew."""

    def body(host: Host) -> tuple[int, int]:
        for mode in ("0200", "0244"):
            host.install({"app/a": "a"}, UNREADABLE.replace("0200", mode))
        return stat.S_IMODE((host.dest / "app/a").stat().st_mode), len(host.leftovers())

    assert (0o244, 0) == as_ordinary_user(place, body)


def test_hidden_names_that_can_not_be_listed_are_not_forgotten(place: Path) -> None:
    """Old files that nobody knows of fill the disk for years."""

    def body(host: Host) -> tuple[tuple[str, ...], bool, list[str], list[str]]:
        host.install({"app/a": "1", "app/sub/b": "1"})
        directory = host.dest / "app/sub"
        new = {"app/a": "2", "app/sub/b": {"content": "2"}, "app/sub/c": {"same_as": "app/sub/b"}}
        close = at_step(Moment.PUBLISH, lambda: directory.chmod(0o300))
        summary = host.install(new, observer=close)
        is_known = any(name.endswith("journal-committed") for name in host.records())
        host.recover()
        directory.chmod(0o755)
        before = host.leftovers()
        host.recover()
        return summary.left_behind, is_known, before, host.leftovers()

    kept, is_known, before, after = as_ordinary_user(place, body)

    assert (str(place / "home/dest/app/sub"),) == kept
    assert is_known
    assert 2 == len(before), "the journal, and the old file"
    assert [] == after


def test_hidden_names_that_need_not_be_listed_are_removed_where_that_is_forbidden(place: Path) -> None:
    """What we know the names of, we need not look for."""

    def body(host: Host) -> tuple[tuple[str, ...], list[str]]:
        host.install({"app/a": "1", "app/sub/b": "1"})
        directory = host.dest / "app/sub"
        close = at_step(Moment.PUBLISH, lambda: directory.chmod(0o300))
        summary = host.install({"app/a": "2", "app/sub/b": "2"}, observer=close)
        directory.chmod(0o755)
        return summary.left_behind, host.leftovers()

    assert ((), []) == as_ordinary_user(place, body)


RECORDS = {Moment.INSTALL_JSON, Moment.CLEANUP_FILE, Moment.MANIFEST}
MANY = {f"app/directory-{number % 60}/file-{number}": "old" for number in range(1800)}
MANY_NEW = dict.fromkeys(MANY, "new")


def killed_while_it_works(shared: mmap.mmap) -> Observer:
    """The second process is killed in the middle of its part."""
    parent = os.getpid()

    def observe(kind: Moment, _path: bytes) -> None:
        if os.getpid() != parent:
            shared[0] += 1
            if shared[0] == 200:
                os.kill(os.getpid(), signal.SIGKILL)
        elif kind == Moment.COPY:
            wait_until(lambda: shared[0] == 200)

    return observe


def killed_while_it_answers(shared: mmap.mmap) -> Observer:
    """The second process is killed when half of what it has to say is in the pipe."""
    parent = os.getpid()

    def observe(kind: Moment, _path: bytes) -> None:
        if kind != Moment.COPY or shared[1]:
            return
        if os.getpid() != parent:
            wait_until(lambda: shared[0] == 1)  # the other process has its part
            return
        shared[0] = 1
        wait_until(lambda: is_answer_waiting() or shared[1] == 1)
        with open(f"/proc/self/task/{parent}/children") as children:
            # The first that lives: one that had only to look has ended by itself.
            os.kill(next(filter(start_ticks, map(int, children.read().split()))), signal.SIGKILL)
        shared[1] = 1

    return observe


def is_answer_waiting() -> bool:
    """Whether there is a pipe with more in it than a list of numbers: the answer, of which the rest does not fit."""
    sizes = []
    for name in os.listdir("/proc/self/fd"):
        answer = b""
        try:
            if stat.S_ISFIFO(os.fstat(int(name)).st_mode):
                answer = fcntl.ioctl(int(name), termios.FIONREAD, bytes(4))
        except OSError:
            continue  # that was the descriptor of the listing
        if answer:
            sizes.append(struct.unpack("i", answer)[0])
    return max(sizes, default=0) > 40_000


def wait_until(is_so: Callable[[], bool]) -> None:
    """Afterwards it is, or the test fails."""
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        os.sched_yield()


@pytest.mark.parametrize("killer", [killed_while_it_works, killed_while_it_answers])
def test_when_the_second_process_is_killed_everything_is_put_back(
    host: Host, killer: Callable[[mmap.mmap], Observer]
) -> None:
    """The kernel takes the largest process when memory is short; the message has to say that, not show a stack."""
    host.install(MANY)
    before = host.everything()
    request = host.request(MANY_NEW, processes=2)
    shared = mmap.mmap(-1, 2)

    def body() -> tuple[str, str]:
        failure = failure_of(lambda: install(request, observer=killer(shared)))
        assert failure is not None
        return failure.error_id, failure.message

    error_id, message = in_child(body)

    assert "install-failed" == error_id
    assert "the second process of this Install was killed" in message
    assert before == host.everything()
    assert [] == host.leftovers()


def test_an_error_of_a_call_on_an_open_file_names_a_path(host: Host) -> None:
    """The system names a number then, and "5: Input/output error" helps nobody at night."""
    failures = failures_of_calls_on_descriptors(host)

    messages = [message for step, message in failures if step not in RECORDS]
    assert len(messages) > 10
    assert [] == [message for message in messages if f"{host.base}/" not in message]


def test_an_error_of_a_call_on_an_open_record_names_a_path(host: Host) -> None:
    """It is another disk than that of the destinations, and the operator looks at the wrong one."""
    failures = failures_of_calls_on_descriptors(host)

    messages = [message for step, message in failures if step in RECORDS]
    assert len(messages) > 2
    assert [] == [message for message in messages if f"{host.instructions}" not in message]


def failures_of_calls_on_descriptors(host: Host) -> list[tuple[Moment, str]]:
    """Let each change of an open file or directory fail in turn; the step of the Install, and what it has said."""
    first = host.request({"app/a": "1", "app/same": "s", "app/sub/b": "b", "app/sub/c": "c"})
    changed = {"content": "s", "mode": 0o600, "mtime_ns": MTIME_NS + 10**9}
    second = host.request(
        {"app/a": "2", "app/same": changed, "app/sub/b": "b", "app/sub/c": "C", "app/new/n": "n"}, ACLS
    )

    def body() -> list[tuple[Moment, str]]:
        fault = DescriptorFault()
        failures: list[tuple[Moment, str]] = []
        while True:
            install(first)
            fault.arm(len(failures) + 1)
            failure = failure_of(lambda: install(second, observer=lambda kind, _path: fault.note(kind)))
            if not fault.disarm():
                return failures
            assert failure is not None
            assert "a made-up error" in failure.message
            failures.append((fault.step, failure.message))

    return in_child(body)


class DescriptorFault:
    """Lets a change of an open file or directory fail. It can't be taken back, so it is for forked processes only."""

    def __init__(self) -> None:
        self.step = Moment.JOURNAL
        self._number = self._count = 0
        sys.addaudithook(self._hook)

    def arm(self, number: int) -> None:
        """From now on count anew, and let that one fail."""
        self._number, self._count = number, 0

    def note(self, kind: Moment) -> None:
        """The Install has come to a step of this kind."""
        if self._count < self._number:
            self.step = kind

    def disarm(self) -> bool:
        """From now on nothing fails. Whether something has."""
        has_failed = self._count >= self._number
        self._number = 0
        return has_failed

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES_OF_DESCRIPTORS and isinstance(arguments[0], int):
            self._count += 1
            if self._count == self._number:
                raise OSError(errno.EIO, "a made-up error", arguments[0])
