"""What becomes of a command that was delivered: carried out, reported again, refused, or left alone."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from agent.daemon.refusals import Refusals

if TYPE_CHECKING:
    from agent.daemon.published_status import PublishedStatus
    from agent.daemon.running_workers import RunningWorkers
    from agent.deployments import History, Job, JobStore
    from agent.logs import Log
    from agent.protocol import HostCommand

_REMEMBERED = 256  # commands of which we know that they were taken, whatever happens to records and history


class Intake:
    """Makes a record of each command, and has a worker started for it."""

    def __init__(
        self, store: JobStore, history: History, running: RunningWorkers, status: PublishedStatus, log: Log
    ) -> None:
        self._store = store
        self._history = history
        self._running = running
        self._status = status
        self._log = log
        self._refusals = Refusals(history, store.directory)
        self._taken: deque[str] = deque(maxlen=_REMEMBERED)

    def take(self, command: HostCommand) -> bool:
        """Start what has been delivered; False when there is nothing to start."""
        log = self._log.bind(host_command_identifier=command.identifier, command=command.name)
        try:
            if delivered := self._store.find(command.identifier):
                return self._take_again(delivered, log)
            job = self._record(command, log)
        except OSError as error:
            if command.identifier in self._taken:
                # Its true result has been reported; to refuse it now would contradict that.
                log.warning("command_ignored", reason="it was taken before", error=str(error))
                return False
            log.error("command_refused", error=str(error), error_id="record-impossible")
            self._running.refuse(command, error)
            self._refusals.note(command, error)
            self._status.tell(refused=self._refusals.shown())
            return True
        self._taken.append(command.identifier)
        self._running.carry(job)
        return True

    def try_again(self) -> None:
        """Make refused commands history that could not become it; to be called often."""
        if self._refusals.try_again():
            self._status.tell(refused={})

    def _take_again(self, job: Job, log: Log) -> bool:
        """A command of which there is a record: a finished one is reported again, any other is under way."""
        is_finished = self._running.report_again(job)
        if is_finished:
            log.info("command_redelivered")
        else:
            log.info("command_ignored", reason="it was delivered before and is being worked on")
        return is_finished

    def _record(self, command: HostCommand, log: Log) -> Job:
        """A record of this command; with its result, when it was carried out before.

        Raises:
            OSError: there can be none, and there is none.
        """
        finished = self._history.find(command.identifier)
        job = self._store.accept(command)
        try:
            if finished:
                job.note_result(finished.result)
        except OSError:
            # A record without its result would be carried out once more.
            self._store.discard(job)
            raise
        log.info("command_redelivered" if finished else "command_accepted")
        return job
