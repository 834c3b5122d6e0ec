"""A script that was started, as whoever waits for it sees it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from agent.lifecycle.outcome import explain_lost_result

if TYPE_CHECKING:
    import subprocess

    from agent.appspec import HookScript

_UNKNOWN = 255  # never shown: `poll` raises instead


class ScriptProcess(Protocol):
    """What `ScriptRun` needs of a script that was started."""

    @property
    def pid(self) -> int:
        """Of the process whose end to wait for; may be another one later."""

    @property
    def script_pid(self) -> int:
        """Pid of the script, which leads a session; before there is one, of what is to start it."""

    @property
    def has_started(self) -> bool:
        """Whether the script itself runs, or has run."""

    @property
    def own(self) -> frozenset[int]:
        """Pids of processes that only this object waits for."""

    @property
    def keeper(self) -> int | None:
        """Pid of the process around a script that runs, which is not to be ended with it."""

    @property
    def path_variable(self) -> str | None:
        """PATH as the script got it; None = whoever is in between sets another one, or none is known."""

    def poll(self) -> int | None:
        """The script's exit code once it has ended; minus the number of the signal that ended it.

        Raises:
            CommandFailure: it can't be started, or what has become of it is not known.
        """

    def reap(self) -> None:
        """Take note of what has ended; never raises."""

    def finish(self) -> None:
        """Afterwards nothing of what is around the script is left, once the script has ended."""


class StatusTaken(Exception):
    """A child of ours has ended, and somebody else has its exit status; nobody can tell now what that was."""


def exit_code_of(child: int) -> int | None:
    """The exit code of this child once it has ended, minus the number of a signal; None = it runs.

    Not by way of Popen, which takes 0 for an exit status that can't be had.

    Raises:
        StatusTaken: it can't be had.
    """
    try:
        ended, status = os.waitpid(child, os.WNOHANG)
    except ChildProcessError as error:
        raise StatusTaken from error
    return os.waitstatus_to_exitcode(status) if ended else None


class DirectScript:
    """A script that is a child of this process."""

    keeper = None
    has_started = True

    def __init__(
        self, process: subprocess.Popen[bytes], script: HookScript, path_variable: str | None
    ) -> None:
        self._process = process
        self._script = script
        self._is_lost = False
        self.pid = self.script_pid = process.pid
        self.own = frozenset((process.pid,))
        self.path_variable = path_variable

    def poll(self) -> int | None:
        """See `ScriptProcess`."""
        self.reap()
        if self._is_lost:
            raise explain_lost_result(self._script)
        return self._process.returncode

    def reap(self) -> None:
        """See `ScriptProcess`."""
        if self._process.returncode is not None:
            return
        try:
            code = exit_code_of(self.pid)
        except StatusTaken:
            self._is_lost, code = True, _UNKNOWN
        if code is not None:
            self._process.returncode = code

    def finish(self) -> None:
        """Nothing is around it."""
