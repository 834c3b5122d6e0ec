"""The worker's side of the process that records what scripts print (see `recorder_process`)."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.lifecycle.outcome import Silence
from agent.lifecycle.recorder_process import MAX_MESSAGE, Request, record
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agent.lifecycle.script_log import ScriptLog

log = get_logger()

# How much of what comes after the last script still goes to the logs: what an application says
# while it starts. What it prints all its life belongs elsewhere, and must not fill the disk from a
# place where nobody looks.
LATE_OUTPUT_S = 900.0
LATE_OUTPUT_BYTES = 16 * 2**20

_STUCK_ANSWER_S = 1.0  # once one has been stuck: on a dead disk the next one is, too


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputState:
    """What has become of the current script's output.

    Attributes:
        is_open: somebody may still write to it.
        silent_s: how long ago the last of it came, now or when `mark_silence` was called.
        trouble: why some of it is missing in the logs; None = it is all there.
    """

    is_open: bool
    silent_s: float | Silence
    trouble: str | None = None


class Recorder:
    """Records the output of the scripts of one event at a time; goes on alone when this process is killed.

    A recorder that has itself been killed is replaced by a new one, and the script notices nothing.

    Args:
        script_log: where the output goes.
        answer_s: how long to wait for an answer, beyond what was asked for. A recorder that takes longer is
            stuck, as on a dead disk, and is replaced.
        late_s: see LATE_OUTPUT_S.
        late_bytes: see LATE_OUTPUT_BYTES.

    Raises:
        OSError: the host cannot fork, or no descriptor is left.
    """

    def __init__(
        self,
        script_log: ScriptLog,
        *,
        answer_s: float = 5.0,
        late_s: float = LATE_OUTPUT_S,
        late_bytes: int = LATE_OUTPUT_BYTES,
    ) -> None:
        self._answer_s = self._patience_s = answer_s
        self._late_s = late_s
        self._late_bytes = late_bytes
        self._forget(script_log)
        self._start()

    def _forget(self, script_log: ScriptLog) -> None:
        self._log = script_log
        self._streams: tuple[int, ...] = ()
        self._trouble: str | None = None
        self._is_lost = False
        self._was_replaced = False
        self._is_silence_known = True

    def begin(self, script_log: ScriptLog) -> bool:
        """Record another event, whose output goes there, after one at whose end `is_at_rest`.

        False = it has gone, or does not answer: somebody has stopped it, and would keep the scripts from printing.
        """
        self._forget(script_log)
        try:
            self._send_once(Request.EVENT, script_log.describe())
        except ConnectionError:
            return False
        return bool(self._answer(0))

    def is_at_rest(self) -> bool:
        """Whether nobody can print anything any more that it would log."""
        return not self._was_replaced and self._ask(Request.REST, b"", 0) == b"1"

    def fileno(self) -> int:
        """A descriptor that becomes readable when the process has gone."""
        return self._connection.fileno()

    def note(self, text: str) -> None:
        """Log a line of our own, such as `Script - start.sh`."""
        self._send(Request.NOTE, text.encode("utf-8", "surrogateescape")[: MAX_MESSAGE - 1])

    @contextlib.contextmanager
    def following(self, readers: Sequence[int]) -> Iterator[None]:
        """What comes from these streams is logged, to its end; meanwhile they must stay open here, too."""
        self._streams = tuple(readers)
        self._is_silence_known = True
        try:
            self._send(Request.STREAMS, b"")
            yield
        finally:
            self._streams = ()

    def mark_silence(self) -> None:
        """The states of this script from now on tell how long it has printed nothing by now."""
        self._send(Request.MARK, str(time.monotonic()).encode())

    def settle(self, *, within_s: float) -> OutputState:
        """Afterwards all that the script has printed is logged.

        Args:
            within_s: how long to wait for everybody who may still print something.
        """
        answer = self._ask(Request.SETTLE, str(within_s).encode(), within_s)
        if answer is None:
            return OutputState(is_open=False, silent_s=Silence.UNKNOWN)
        facts = json.loads(answer)
        if facts["silent_s"] is None:
            facts["silent_s"] = Silence.ENTIRE if self._is_silence_known else Silence.UNKNOWN
        state = OutputState(**facts)
        if state.trouble and state.trouble != self._trouble:
            self._trouble = state.trouble
            log.warning("script_log_not_written", error=state.trouble)
        return state

    def tail(self) -> str:
        """The end of all that was logged, without times, as it goes into a report."""
        return (self._ask(Request.TAIL, b"", 0) or b"").decode()

    def failure_tail(self) -> str:
        """The end of all that was logged, as it goes into the report of a failed event.

        It begins with the first error of the last script where that would be cut off.
        """
        return (self._ask(Request.FAILURE_TAIL, b"", 0) or b"").decode()

    def last_words(self) -> str:
        """The end of what the last script printed, as `standard error: …`; empty when it printed nothing."""
        return (self._ask(Request.LAST_WORDS, b"", 0) or b"").decode().removeprefix(" ")

    def missing_output(self) -> str:
        """Why the logs may lack some of the output, as part of a sentence; empty = they have all of it."""
        if self._trouble:
            return f"it could not all be written ({self._trouble})"
        if self._was_replaced:
            return "the process that records it was killed meanwhile, and what it had read may be lost"
        return ""

    def revive(self) -> bool:
        """Replace a recorder that has gone; False where that is not possible now, as without a free process."""
        gone = self._connection
        self._was_replaced = True
        self._is_silence_known = False
        self._log.note_interruption()
        try:
            self._start()
            gone.close()
            if self._streams:
                self._send_once(Request.STREAMS, b"")
        except OSError as error:
            if not self._is_lost:
                self._is_lost = True
                log.warning("hook_output_not_recorded", error=str(error))
            return False
        self._is_lost = False
        log.warning("hook_output_recorder_replaced", pid=self.pid)
        return True

    def close(self) -> None:
        """Leave the recorder to itself; it ends with the last stream."""
        self._connection.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            record(theirs, self._log, late_s=self._late_s, late_bytes=self._late_bytes)
        theirs.close()
        self._connection, self.pid = ours, pid

    def _ask(self, request: Request, content: bytes, wait_s: float) -> bytes | None:
        """The answer; None where there is nobody to give one."""
        for _ in range(2):
            self._send(request, content)
            if answer := self._answer(wait_s):
                return answer
            if answer is None:
                self.revive()
        return None

    def _answer(self, wait_s: float) -> bytes | None:
        """What the recorder answers; empty when it has gone, None when it was stuck, and so had to be killed."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        if not poll.poll((wait_s + self._patience_s) * 1000):
            log.warning("hook_output_recorder_stuck", pid=self.pid)
            self._patience_s = min(_STUCK_ANSWER_S, self._answer_s)
            os.kill(self.pid, signal.SIGKILL)
            return None
        with contextlib.suppress(ConnectionError):
            if answer := self._connection.recv(MAX_MESSAGE):
                self._patience_s = self._answer_s
                return answer
        return b""

    def _send(self, request: Request, content: bytes) -> None:
        try:
            self._send_once(request, content)
        except ConnectionError:
            if self.revive() and request is not Request.STREAMS:
                with contextlib.suppress(ConnectionError):
                    self._send_once(request, content)

    def _send_once(self, request: Request, content: bytes) -> None:
        descriptors = self._streams if request is Request.STREAMS else ()
        if descriptors:
            socket.send_fds(self._connection, [request.value + content], descriptors)
        else:
            self._connection.send(request.value + content)
