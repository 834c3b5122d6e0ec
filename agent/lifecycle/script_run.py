"""One hook script, from its file to its outcome.

A script is over when its main process is. It has one deadline, from its start. At the deadline,
or when the deployment is stopped, everything that it has started is ended, too; a script that has
ended by itself is left alone with what it started, since that may be the application.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, NoReturn

from agent.errors import CommandFailure
from agent.lifecycle.exit_meaning import Exited
from agent.lifecycle.interpreter import describe_program
from agent.lifecycle.launch import ScriptStart, start_script
from agent.lifecycle.launch_failure import explain_launch_failure, explain_unopened
from agent.lifecycle.location import find_script, make_executable, may_read
from agent.lifecycle.oom import count_oom_kills
from agent.lifecycle.open_watch import OpenWatch
from agent.lifecycle.outcome import (
    cancel_failure,
    exit_failure,
    never_ran_failure,
    open_output_failure,
    place_of,
    timeout_failure,
)
from agent.lifecycle.script_end import ScriptEnd
from agent.lifecycle.script_failures import SessionBroken
from agent.lifecycle.script_file import read_script_file
from agent.lifecycle.script_waiting import wait_for_script
from agent.lifecycle.streams import ScriptStreams
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from agent.appspec import HookScript
    from agent.lifecycle.accounts import Account
    from agent.lifecycle.context import HookContext
    from agent.lifecycle.recorder_client import Recorder
    from agent.lifecycle.script_file import ScriptFile
    from agent.lifecycle.script_process import ScriptProcess

log = get_logger()


class ScriptRun:
    """One script about to run."""

    def __init__(
        self,
        script: HookScript,
        account: Account | None,
        context: HookContext,
        recorder: Recorder,
        *,
        adopter: int | None,
        script_pids: Collection[int],
    ) -> None:
        self._script = script
        self._account = account
        self._context = context
        self._recorder = recorder
        self._end = ScriptEnd(script, context, recorder, adopter=adopter, script_pids=script_pids)
        self._watch: OpenWatch | None = None
        self._oom_kills: int | None = None
        self.has_begun = False
        """What is logged from now on is the script's, or is about it."""

    def run(self, cancelled: Callable[[], bool]) -> int:
        """Afterwards the script has run and succeeded; its pid.

        Raises:
            CommandFailure: it has not.
        """
        path = find_script(self._script, self._context.archive, is_earlier=self._context.is_of_earlier)
        make_executable(path, self._script, self._account)
        self._recorder.note(f"Script - {self._script.location}")
        self.has_begun = True
        file = read_script_file(path)
        with (
            contextlib.closing(self._open_streams(path)) as streams,
            self._recorder.following(streams.readers),
            self._watching(file),
        ):
            try:
                self._oom_kills = count_oom_kills()
                process = start_script(self._start(file, streams))
                streams.close_writers()
                self._carry(process, streams, file, cancelled)
                return process.script_pid
            finally:
                self._context.on_ended()

    def _start(self, file: ScriptFile, streams: ScriptStreams) -> ScriptStart:
        return ScriptStart(
            file=file,
            script=self._script,
            account=self._account,
            streams=streams,
            environment=self._context.environment,
            patience=self._context.patience,
            on_started=self._context.on_started,
        )

    @contextlib.contextmanager
    def _watching(self, file: ScriptFile) -> Iterator[None]:
        """Notice whether a program that is to run the script comes to that."""
        if not self._script.sudo and not self._script.login:
            yield
            return
        with contextlib.closing(OpenWatch(file.path)) as self._watch:
            yield

    def _open_streams(self, path: Path) -> ScriptStreams:
        try:
            return ScriptStreams()
        except OSError as error:  # too many open files
            raise explain_launch_failure(error, path, self._script, self._account) from error

    def _carry(
        self,
        process: ScriptProcess,
        streams: ScriptStreams,
        file: ScriptFile,
        cancelled: Callable[[], bool],
    ) -> None:
        deadline = time.monotonic() + self._script.timeout_s
        try:
            code = self._wait(process, deadline, cancelled)
        except CommandFailure as failure:  # it could not be started
            if isinstance(failure, SessionBroken):
                self._end.end(process)  # nobody knows how far it came
            else:
                self._end.finish_output(streams)
            raise
        except BaseException:  # such as Ctrl-C, which does not reach the script's session
            self._end.end(process)
            raise
        if code is None:
            self._give_up(process, file, is_late=time.monotonic() >= deadline)
        holders = self._end.finish_output(streams)
        self._end.reap(process)
        exited = self._exited(code, process, file)
        if exited.was_opened is False:
            account = self._account if self._script.login or self._script.runas else None
            closed = explain_unopened(file.path, self._script, account)
            raise closed or never_ran_failure(self._script, exited)
        if code != 0:
            raise exit_failure(self._script, exited)
        if holders and self._context.fail_on_open_output:
            raise open_output_failure(self._script, holders)

    def _give_up(self, process: ScriptProcess, file: ScriptFile, *, is_late: bool) -> NoReturn:
        has_started = process.has_started
        ended = self._end.end(process)
        if is_late and not has_started:
            from agent.lifecycle.pam import choose_service  # noqa: PLC0415 - as in ScriptEnd.end
            from agent.lifecycle.session_failure import session_timeout_failure  # noqa: PLC0415 - as in ScriptEnd.end

            raise session_timeout_failure(self._script, choose_service())
        failure = (timeout_failure if is_late else cancel_failure)(self._script, ended)
        if has_started:
            failure.add(place_of(self._script, describe_program(file, self._script, self._account)))
        raise failure

    def _wait(self, process: ScriptProcess, deadline: float, cancelled: Callable[[], bool]) -> int | None:
        """The exit code of the script; None when it has to be ended."""

        def is_unwanted() -> bool:
            if cancelled():
                return True
            self._end.reap(process)
            return False

        return wait_for_script(process, self._recorder, deadline=deadline, is_unwanted=is_unwanted)

    def _exited(self, code: int, process: ScriptProcess, file: ScriptFile) -> Exited:
        before, now = self._oom_kills, count_oom_kills()
        return Exited(
            code=code,
            program=describe_program(file, self._script, self._account),
            path_variable=process.path_variable,
            file=file,
            is_readable=file.is_binary or may_read(file.path, self._account),
            was_opened=self._watch.was_opened() if self._watch else None,
            oom_kills=None if before is None or now is None else now - before,
        )
