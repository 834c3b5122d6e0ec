"""A script inside the session of its user: starting the process that keeps it, and what that reports."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

from agent.lifecycle.adoption import descendants_of
from agent.lifecycle.pam import Refusal
from agent.lifecycle.script_process import StatusTaken, exit_code_of
from agent.lifecycle.session import MAX_MESSAGE, Report, keep_session
from agent.lifecycle.session_failure import (
    explain_broken_session,
    explain_lost_session,
    explain_refusal,
)
from agent.logs import get_logger

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable

    from agent.appspec import HookScript
    from agent.errors import CommandFailure
    from agent.lifecycle.session import SessionPlan
    from agent.lifecycle.streams import ScriptStreams

log = get_logger()

_LOOK_AGAIN_S = 0.02
_DYING_S = 2.0


def fork_keeper(library: ctypes.CDLL, plan: SessionPlan, streams: ScriptStreams) -> tuple[socket.socket, int]:
    """The connection to the process that carries this plan out, and its pid."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            keeper = os.fork()
        except OSError:
            ours.close()
            raise
        if keeper == 0:
            keep_session(library, theirs, plan, stdout=streams.stdout, stderr=streams.stderr)
    return ours, keeper


class SessionScript:
    """A script that a `hook-session` runs, see `session`.

    Should that process be killed, the script goes on, becomes our child as all orphans do, and its result counts.

    Args:
        keeper: pid of that process.
        connection: to it.
        script: for messages.
        service: of PAM; the same.
        closing_s: how long modules may take to close the session, before they are left to themselves.
        explain: makes the failure of a script that can't be started from its errno.
    """

    def __init__(
        self,
        keeper: int,
        connection: socket.socket,
        *,
        script: HookScript,
        service: str,
        closing_s: float,
        explain: Callable[[int], CommandFailure],
    ) -> None:
        self._keeper = keeper
        self._connection = connection
        self._script = script
        self._service = service
        self._closing_s = closing_s
        self._explain = explain
        self._status: int | None = None
        self._script_pid: int | None = None
        self._code: int | None = None
        self._failure: CommandFailure | None = None
        self._is_closed = False
        self.path_variable: str | None = None
        connection.setblocking(False)

    @property
    def pid(self) -> int:
        """See `ScriptProcess`."""
        return self._keeper if self._status is None else self.script_pid

    @property
    def script_pid(self) -> int:
        """See `ScriptProcess`."""
        return self._keeper if self._script_pid is None else self._script_pid

    @property
    def has_started(self) -> bool:
        """See `ScriptProcess`."""
        return self._script_pid is not None

    @property
    def own(self) -> frozenset[int]:
        """See `ScriptProcess`."""
        return frozenset((self._keeper, self.script_pid))

    @property
    def keeper(self) -> int | None:
        """See `ScriptProcess`."""
        return self._keeper if self.has_started and self._status is None else None

    def poll(self) -> int | None:
        """See `ScriptProcess`."""
        self.reap()
        if self._code is not None:
            self.finish()
            return self._code
        if self._status is None:
            return None
        if self._script_pid is None and self._failure is None:
            self._hear_out()
        if self._script_pid is None:
            self.finish()
        if self._failure is not None:
            raise self._failure
        if self._script_pid is None:
            raise explain_lost_session(self._script, self._service, self._status)
        return self._poll_orphan(self._script_pid)

    def reap(self) -> None:
        """See `ScriptProcess`."""
        if self._status is None:
            try:
                self._status = exit_code_of(self._keeper)
            except StatusTaken:  # what it had to say may still be read
                self._status = 0
        # After that: what was said last is there by now.
        while not self._is_closed and (message := self._receive()):
            self._hear(message)

    def _hear_out(self) -> None:
        """Hear of a script whose process had been made when its keeper was killed, and is about to start it."""
        end = time.monotonic() + self._closing_s
        while self._script_pid is None and not self._is_closed and (left_s := end - time.monotonic()) > 0:
            poll = select.poll()
            poll.register(self._connection, select.POLLIN)
            poll.poll(left_s * 1000)
            self.reap()

    def finish(self) -> None:
        """See `ScriptProcess`."""
        if not self._has_keeper_ended(self._closing_s):
            # With whatever modules have started and wait for. What the script has left is not below it any more.
            for pid in (self._keeper, *descendants_of(self._keeper)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            # On a dead disk, say, nothing ends it; the script's result does not depend on it.
            self._has_keeper_ended(_DYING_S)
        if self.has_started and self._status != 0:
            log.warning("hook_session_not_closed", script=self._script.location, service=self._service)
        self._connection.close()
        self._is_closed = True

    def _has_keeper_ended(self, within_s: float) -> bool:
        end = time.monotonic() + within_s
        while self._status is None and time.monotonic() < end:
            poll = select.poll()
            if not self._is_closed:
                poll.register(self._connection, select.POLLIN)
            poll.poll(_LOOK_AGAIN_S * 1000)
            self.reap()
        return self._status is not None

    def _poll_orphan(self, pid: int) -> int | None:
        """The exit code of the script whose session has gone without a word about it."""
        try:
            self._code = exit_code_of(pid)
        except StatusTaken as taken:
            reason = "the process that keeps it was killed"
            raise explain_broken_session(self._script, self._service, reason) from taken
        if self._code is not None:
            self.finish()
        return self._code

    def _receive(self) -> dict[str, Any] | None:
        """What the keeper says next; None = nothing now, or nothing any more."""
        try:
            message = self._connection.recv(MAX_MESSAGE)
        except BlockingIOError:
            return None
        except OSError:
            message = b""
        if not message:
            self._is_closed = True
            return None
        facts: dict[str, Any] = json.loads(message)
        return facts

    def _hear(self, facts: dict[str, Any]) -> None:
        match Report(facts["is"]):
            case Report.REFUSED:
                said = tuple(facts["refusal"].pop("said"))
                refusal = Refusal(said=said, **facts["refusal"])
                self._failure = explain_refusal(self._script, self._service, refusal)
            case Report.NOT_STARTED:
                self._script_pid = None
                self._failure = self._explain(facts["error"])
            case Report.STARTED:
                self._script_pid = facts["pid"]
                self.path_variable = facts["path"]
                if facts["left_group"]:
                    log.warning("hook_session_left_service", script=self._script.location, pid=facts["pid"])
            case Report.ENDED:
                self._code = facts["code"]
            case Report.BROKEN:
                self._failure = explain_broken_session(self._script, self._service, facts["error"])
