"""The process `hook-session`, which opens a user's session, has the script run in it, and closes it again.

It stands between worker and script, since limits, umask, groups, keys and namespaces of a session are those
of the process that opened it, and that has to be root to the end. It is forked from the worker and keeps
nothing of it. While PAM is busy it can be ended like any process; once there is a script, it only waits for its
end: whoever ends the script ends the session, too.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from agent.lifecycle.cgroups import Membership, own_memberships, return_to
from agent.lifecycle.context import SESSION_KEEPER
from agent.lifecycle.pam import PamRefused, PamSession, log_as_agent
from agent.processes import show_as

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable, Mapping

MAX_MESSAGE = 2**16

_MAX_SHOWN = 4096  # characters of a text in a message, so that each goes through whole
_BROKEN = 70  # EX_SOFTWARE
_DESCRIPTORS = 2**12  # more than a worker has, where /proc does not tell which


class Report(Enum):
    """What the worker is told; the value of `is` in a message."""

    REFUSED = "refused"
    """There is no session: `refusal`, as `pam.Refusal`."""
    NOT_STARTED = "not-started"
    """The script can't be started: `error`, a number of errno; 0 = its process could not get ready."""
    STARTED = "started"
    """The script is about to run: `pid`, `path` (the variable PATH, if it is not too long), whether it `left_group`."""
    ENDED = "ended"
    """The script has ended: `code`, as subprocess has it."""
    BROKEN = "broken"
    """Something has gone wrong here: `error`, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPlan:
    """What is to be done.

    Attributes:
        worker: pid of the process that wants it.
        service: of PAM.
        user: whose session.
        uid: of the user.
        gid: of the user.
        groups: of the user, which PAM may add to.
        environment: what PAM's modules find in theirs.
        start: starts the script in the session, given what that brings along, and what its process is to call
            before it becomes the script, with its PATH.
        announce: tells others of this process; called before anything else.
        closing_s: how long modules may take to close the session: the script's work is done.
    """

    worker: int
    service: str
    user: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    environment: Mapping[str, str]
    start: Callable[[Mapping[str, str], Callable[[str | None], None]], subprocess.Popen[bytes]]
    announce: Callable[[], None]
    closing_s: float


def keep_session(
    library: ctypes.CDLL, connection: socket.socket, plan: SessionPlan, *, stdout: int, stderr: int
) -> NoReturn:
    """Carry the plan out; to be called in a process just forked, which ends with the session.

    Args:
        library: libpam.
        connection: to the worker, which is told of each step.
        plan: what is to be done.
        stdout: where the script prints.
        stderr: where it prints its errors.
    """
    code = _BROKEN
    try:
        # First: what the worker has open, such as its lock on the record, is closed after that.
        plan.announce()
        connection = _leave_worker(connection, stdout, stderr)
        _Keeper(library, connection, plan).run()
        code = 0
    finally:
        os._exit(code)


class _Keeper:
    def __init__(self, library: ctypes.CDLL, connection: socket.socket, plan: SessionPlan) -> None:
        self._connection = connection
        self._plan = plan
        self._session = PamSession(library, service=plan.service, user=plan.user)

    def run(self) -> None:
        try:
            self._run()
        except Exception as error:  # noqa: BLE001 - nobody else would ever hear of it
            self._tell(Report.BROKEN, error=f"{type(error).__name__}: {error}"[:_MAX_SHOWN])

    def _run(self) -> None:
        memberships = own_memberships()
        os.environ.clear()
        os.environ.update(self._plan.environment)
        os.setgroups(self._plan.groups)
        try:
            variables = self._session.open()
        except PamRefused as refused:
            self._tell(Report.REFUSED, refusal=asdict(refused.refusal))
            return
        if os.geteuid() != 0:
            self._tell(Report.BROKEN, error=f"a module of PAM made it a process of user {os.geteuid()}")
            return
        _hear_of_children()
        self._print_what_modules_said()
        if os.getppid() == self._plan.worker:  # or there is nobody for a script that would start now
            script = self._start(variables, memberships)
            if script is not None:
                self._wait(script)
        self._close()

    def _start(
        self, variables: Mapping[str, str], memberships: frozenset[Membership]
    ) -> subprocess.Popen[bytes] | None:
        def become_user(path: str | None) -> None:
            # The script alone: without anybody in its group, logind takes the session for over.
            has_left = not return_to(memberships)
            # Not by way of Popen, which does it before. The groups are this process's, and PAM may have added some.
            os.setresgid(self._plan.gid, self._plan.gid, self._plan.gid)
            os.setresuid(self._plan.uid, self._plan.uid, self._plan.uid)
            # By the script's own process: whatever happens to this one from then on, the worker knows of it.
            # If that does not hear of it any more, there must be no script.
            shown = path if path and len(path) <= _MAX_SHOWN else None
            self._send(Report.STARTED, pid=os.getpid(), path=shown, left_group=has_left)

        try:
            return self._plan.start(variables, become_user)
        except OSError as error:
            self._tell(Report.NOT_STARTED, error=error.errno or 0)
        except subprocess.SubprocessError:  # all that Popen tells of an exception in the new process
            self._tell(Report.NOT_STARTED, error=0)
        return None

    def _wait(self, script: subprocess.Popen[bytes]) -> None:
        # Not SIG_IGN, which what modules start would inherit, and could then not be ended.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, _stay)
        try:
            # Not by way of Popen, which takes 0 for an exit status that a module has taken.
            script.returncode = os.waitstatus_to_exitcode(os.waitpid(script.pid, 0)[1])
        except ChildProcessError:
            self._tell(Report.BROKEN, error="something in its process took the exit status of the script")
            return
        # The script's output ends with it, whatever the modules are up to from here on.
        _silence()
        self._tell(Report.ENDED, code=script.returncode)

    def _close(self) -> None:
        # A module that hangs must not keep this process for ever, should the worker have gone; else that is quicker.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        signal.setitimer(signal.ITIMER_REAL, 2 * self._plan.closing_s)
        self._session.close()

    def _print_what_modules_said(self) -> None:
        with contextlib.suppress(OSError):
            for is_error, line in self._session.said:
                os.write(2 if is_error else 1, f"{line}\n".encode())

    def _tell(self, report: Report, **facts: Any) -> None:
        with contextlib.suppress(OSError):  # a worker that was killed does not hear it
            self._send(report, **facts)

    def _send(self, report: Report, **facts: Any) -> None:
        # Not in ASCII, where one character may take twelve bytes: it would not go through whole.
        text = json.dumps({"is": report.value, **facts}, ensure_ascii=False)
        self._connection.send(text.encode("utf-8", "surrogatepass"))


def _leave_worker(connection: socket.socket, stdout: int, stderr: int) -> socket.socket:
    """Keep nothing of the worker but the connection: no lock, socket, handler or session."""
    gc.disable()  # a collection would copy every page that we share with the worker
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        # What is ignored stays so: it is to be ignored by the script.
        if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGCHLD:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    kept = connection.detach()
    for descriptor in _open_descriptors():
        if descriptor not in (0, 1, 2, kept):
            with contextlib.suppress(OSError):
                os.close(descriptor)
    show_as("hook session")
    log_as_agent()
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_bytes(SESSION_KEEPER.encode())
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=kept)


def _hear_of_children() -> None:
    """Whatever modules have done to the signals: the script's end is told of, and it gets none blocked."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _stay(_number: int, _frame: object) -> None:
    """The session has to be closed first, which comes of the script's end."""


def _silence() -> None:
    empty = os.open(os.devnull, os.O_RDWR)
    for standard in (1, 2):
        os.dup2(empty, standard)


def _open_descriptors() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return list(range(_DESCRIPTORS))
