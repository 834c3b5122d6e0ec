"""Commands of one deployment group take turns, in the order in which they were accepted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agent.logs import get_logger

if TYPE_CHECKING:
    from agent.deployments import Job, JobStore

log = get_logger()

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.1
# Longer than it takes until the daemon, or one that is started again, cleans up after a dead worker.
_PATIENCE_S = 30.0


def wait_for_turn(job: Job, group_id: str, jobs: JobStore, *, patience_s: float = _PATIENCE_S) -> None:
    """Return when no command of this group that was accepted before this one is at work.

    A worker that died is at work until somebody has cleaned up after it: what undoes its Install must
    not meet the next one. So is one whose report has not been taken yet, and one of which nobody knows the group:
    the endpoint does not give its specification. When any of these takes more than `patience_s` seconds, half a
    minute, the group goes on all the same; whoever changes something holds the lock of the group meanwhile.

    Raises:
        OSError: the records can't be listed.
    """
    for earlier in jobs.earlier(job):
        try:
            _wait_until_over(earlier, group_id, patience_s)
        except OSError as error:
            # Whoever could do something about it can't read it either.
            log.warning("record_unusable", job=earlier.directory.name, error=str(error))


def _wait_until_over(earlier: Job, group_id: str, patience_s: float) -> None:
    patience_ends = None
    pause_s = _FIRST_PAUSE_S
    while True:
        is_alive, state = earlier.is_alive(), earlier.read()
        is_done = state is None or state.result is not None
        if is_done and not is_alive:
            return
        deployment = state.deployment if state else None
        if deployment is not None and deployment.deployment_group_id != group_id:
            return
        if is_alive and not is_done and deployment is not None:
            patience_ends = None
        elif patience_ends is None:
            patience_ends = time.monotonic() + patience_s
        elif time.monotonic() > patience_ends:
            return
        # Not by waiting for the lock of the record: its worker keeps that until its report is taken.
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
