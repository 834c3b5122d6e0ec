"""Processes of our own: bodies that run in a fork, and changes that are watched, stopped or killed there."""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from agent.install.posix import batched

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_readers: dict[int, int] = {}

_CHANGING = frozenset(
    [
        "os.chmod",
        "os.chown",
        "os.link",
        "os.mkdir",
        "os.remove",
        "os.removexattr",
        "os.rename",
        "os.rmdir",
        "os.setxattr",
        "os.symlink",
        "os.truncate",
        "os.utime",
    ]
)


def in_child(body: Callable[[], T]) -> T:
    """What the body returns in a forked process. What it raises fails the test, with its traceback."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _run_and_report(body, writing)
    os.close(writing)
    with open(reading, "rb") as stream:
        report = stream.read()
    status = os.waitpid(child, 0)[1]
    assert status == 0, f"the child ended with {status}"
    failed, result = pickle.loads(report)  # noqa: S301 - from our own child
    assert not failed, f"in the child:\n{result}"
    returned: T = result
    return returned


def start(body: Callable[[], object]) -> int:
    """Process id of a fork that runs the body, and nothing else."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            sys.dont_write_bytecode = True
            body()
        except BaseException:  # noqa: BLE001 - nothing may escape into the forked test session
            os.write(2, traceback.format_exc().encode())
            os._exit(1)
        os._exit(0)
    os.close(writing)
    _readers[child] = reading
    return child


def ended(child: int) -> bool:
    """Wait for the end of this process. Whether SIGKILL was its cause; anything else but success fails."""
    status = os.waitpid(child, 0)[1]
    # What it had forked dies with it, but a moment later: then nobody can write to the pipe any more.
    reading = _readers.pop(child)
    os.read(reading, 1)
    os.close(reading)
    if os.WIFSIGNALED(status):
        assert signal.SIGKILL == os.WTERMSIG(status)
        return True
    assert status == 0, f"the child ended with {status}"
    return False


def killed_after(seconds: float, body: Callable[[], object]) -> bool:
    """Run the body in a fork that is killed after this time, wherever it is then. Whether it was."""
    child = start(body)
    pidfd = os.pidfd_open(child)
    try:
        if not select.select([pidfd], [], [], seconds)[0]:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
    return ended(child)


def killed_before(number: int, body: Callable[[Callable[..., None]], object]) -> bool:
    """Run the body in a fork that is killed just before its change with this number. Whether there was one.

    The body gets a function whose calls count as changes, too.
    """

    def watched() -> None:
        process, count = os.getpid(), 0

        def count_change(*_: object) -> None:
            nonlocal count
            count += 1
            if count == number:
                os.kill(process, signal.SIGKILL)

        before_each_change(count_change)
        body(count_change)

    return ended(start(watched))


def before_each_change(call: Callable[[str], None]) -> None:
    """From now on `call` runs before whatever this process changes in the file system, save writing to open files.

    What it raises stops the change. This can't be taken back, so it is for forked processes only. What the compiled
    library changes in one call, Python changes in the same steps, one by one: of these it can be told.
    """
    setattr(batched, "library", no_library)  # noqa: B010 - of another type

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGING or (event == "open" and _is_for_writing(arguments)):
            call(event)

    sys.addaudithook(hook)


def no_library() -> None:
    """What there is on a host without a C compiler."""
    return


def _is_for_writing(arguments: tuple[Any, ...]) -> bool:
    path, _mode, flags = arguments
    return isinstance(path, str | bytes | os.PathLike) and bool(
        flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    )


def _run_and_report(body: Callable[[], object], writing: int) -> NoReturn:
    sys.dont_write_bytecode = True
    try:
        report = (False, body())
    except BaseException:  # noqa: BLE001 - it goes to the parent as text
        report = (True, traceback.format_exc())
    with open(writing, "wb") as stream:
        stream.write(pickle.dumps(report))
    os._exit(0)


def own_children() -> set[int]:
    """Processes that this one has started, and that it has not waited for."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    return {int(pid) for pid in listed.split()}
