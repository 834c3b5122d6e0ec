"""What the polls have brought so far: when the next one may come, and what others see of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agent.daemon.commands_of_others import CommandsOfOthers
from agent.daemon.published_status import SHOWN_CHARACTERS
from agent.endpoint import Setbacks, SharedThrottle
from agent.errors import EndpointUnavailable, Throttled

if TYPE_CHECKING:
    from agent.daemon.published_status import PublishedStatus
    from agent.deployments import History
    from agent.errors import EndpointError, IdentityError
    from agent.logs import Log
    from agent.protocol import HostCommand
    from agent.settings import Settings


class PollResults:
    """Told the result of each poll, it knows how long to wait for the next one, in seconds.

    The log gets a line per change of state, not per attempt; the figures are in the status file.
    """

    def __init__(self, settings: Settings, history: History, status: PublishedStatus, log: Log) -> None:
        self._interval_s = settings.wait_between_runs
        self._throttle = SharedThrottle(settings.state_directory)
        self._setbacks = Setbacks()
        self._others = CommandsOfOthers(history)
        self._status = status
        self._log = log
        self._is_trouble_said = False

    def pause_s(self) -> float:
        """For how long the service wants no requests at all."""
        return self._throttle.wait_s()

    def succeeded(self, outcome: str) -> bool:
        """The poll was answered, with a `command` or `empty`; returns whether polls had been failing."""
        self._setbacks.clear()
        if self._status.now.failures:
            self._throttle.clear()
        if self._is_trouble_said:
            self._is_trouble_said = False
            self._log.info("poll_recovered", after_failures=self._status.now.failures)
        self._log.debug("polled", result=outcome)
        now = time.time()
        self._status.tell(
            last_poll_at=now,
            last_poll_result=outcome,
            last_error_id="",
            last_success_at=now,
            failures=0,
            next_poll_at=now + self._interval_s,
        )
        had_trouble = bool(self._status.trouble)
        self._status.trouble = ""
        return had_trouble

    def failed(self, error: EndpointError | IdentityError, spent_s: float) -> float:
        """The poll met this error, after so many seconds; returns how long to wait.

        Where that is short, it is repeated, and has not counted as failed yet.
        """
        if isinstance(error, Throttled):
            self._throttle.extend()
            self._setbacks.throttled()
            wait_s = self._throttle.wait_s()
        else:
            if isinstance(error, EndpointUnavailable):
                pause_s = self._setbacks.pause_before_repetition(spent_s)
                if pause_s is not None:
                    self._log.debug("poll_repeated", error=error.message, error_id=error.error_id)
                    return pause_s
            wait_s = self._setbacks.fail(spent_s)
        if error.trouble != self._status.trouble:
            self._is_trouble_said = True
            self._log.warning(
                "poll_failed",
                error=error.message,
                error_id=error.error_id,
                failures=self._status.now.failures + 1,
                retry_in_s=round(wait_s, 1),
            )
        self._note_failure(error, wait_s)
        return wait_s

    def brought_command_of_another(self, command: HostCommand) -> float:
        """The poll brought another host's command, about which nothing is done; returns how long to wait."""
        wait_s = max(self._setbacks.meet_command_of_another(), self._interval_s)
        error, is_new = self._others.note(command, self._status.now.host_identifier, self._log)
        self._is_trouble_said |= is_new
        self._note_failure(error, wait_s)
        return wait_s

    def _note_failure(self, error: EndpointError | IdentityError, wait_s: float) -> None:
        self._status.trouble = error.trouble
        now = time.time()
        self._status.tell(
            last_poll_at=now,
            last_poll_result=error.message[:SHOWN_CHARACTERS],
            last_error_id=error.error_id,
            failures=self._status.now.failures + 1,
            next_poll_at=now + wait_s,
        )
