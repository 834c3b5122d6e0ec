"""Telling the endpoint that a hook is still running, and learning from its answer that nobody wants it any more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agent.errors import EndpointError, IdentityError, Throttled
from agent.logs import get_logger
from agent.protocol import CommandStatus
from agent.threads import ThreadTask

if TYPE_CHECKING:
    from agent.endpoint import HostCommandClient
    from agent.worker.context import WorkerContext

log = get_logger()


class HookUpdates:
    """Sends an update every now and then, for as long as somebody asks `is_cancelled`.

    Each one is sent by a thread of its own, which lives as long as that takes and over a connection
    of its own: an endpoint that does not answer must neither hold up the script's deadline nor its
    report. A thread that lived longer would meet every fork of the worker.
    """

    def __init__(self, identifier: str, context: WorkerContext) -> None:
        self._identifier = identifier
        self._context = context
        self._interval_s = context.settings.wait_between_updates
        self._client: HostCommandClient | None = None
        self._next_at = 0.0
        self._task: ThreadTask | None = None
        self._is_cancelled = False
        self._has_failed = False

    def is_cancelled(self) -> bool:
        """Whether the endpoint has said that the command is over. Never waits."""
        now = time.monotonic()
        if not self._next_at:
            self._next_at = now + self._interval_s
        elif now >= self._next_at and not self._is_cancelled:
            self._next_at = now + self._interval_s
            self._start_update()
        return self._is_cancelled

    def _start_update(self) -> None:
        """Begin one, unless the last one is still under way."""
        if self._task is not None:
            if not self._task.has_begun(0):
                self._note_failure("no thread could be had for it", None)
            elif not self._task.wait(0):
                return
        self._task = ThreadTask(self._update)
        self._task.start()

    def _update(self) -> None:
        throttle = self._context.throttle
        try:
            if throttle.wait_s() > 0:
                return
            if self._client is None:
                self._client = self._context.make_client()
            status = self._client.update(self._identifier)
        except Throttled as error:
            throttle.extend()
            self._note_failure(error.message, error.error_id)
        except (EndpointError, IdentityError) as error:
            self._note_failure(error.message, error.error_id)
        else:
            self._has_failed = False
            if status is CommandStatus.SUCCEEDED or status is CommandStatus.FAILED:
                log.info("command_stopped_by_endpoint", answer=status.value)
                self._is_cancelled = True

    def _note_failure(self, reason: str, error_id: str | None) -> None:
        """Say it once: the next update may be more lucky, and the script goes on in any case."""
        if not self._has_failed:
            log.warning("update_failed", error=reason, error_id=error_id)
        self._has_failed = True
