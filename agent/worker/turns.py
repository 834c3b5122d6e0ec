"""Commands of one deployment group take turns, in the order in which they were accepted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agent.logs import get_logger

if TYPE_CHECKING:
    from agent.deployments import Job, JobStore

log = get_logger()

_RECHECK_S = 0.02
# Longer than it takes until the daemon, or one that is started again, cleans up after a dead worker.
_TAKEOVER_PATIENCE_S = 30.0


def wait_for_turn(job: Job, group_id: str, jobs: JobStore) -> None:
    """Return when no command of this group that was accepted before this one is at work.

    A worker that died is at work until somebody has cleaned up after it: what undoes its Install must
    not meet the next one. When nobody does so for half a minute, the group goes on all the same.
    """
    for earlier in jobs.earlier(job):
        try:
            _wait_until_over(earlier, group_id)
        except OSError as error:
            # Whoever could do something about it can't read it either.
            log.warning("record_unusable", job=earlier.directory.name, error=str(error))


def _wait_until_over(earlier: Job, group_id: str) -> None:
    patience_ends = None
    while True:
        is_alive, state = earlier.is_alive(), earlier.read()
        if not is_alive and (state is None or state.result is not None):
            return
        deployment = state.deployment if state else None
        if deployment is not None and deployment.deployment_group_id != group_id:
            return
        if is_alive:
            patience_ends = None
        elif patience_ends is None:
            patience_ends = time.monotonic() + _TAKEOVER_PATIENCE_S
        elif time.monotonic() > patience_ends:
            return
        if is_alive and deployment is not None:
            earlier.wait_until_over()
        else:
            # Its worker has yet to be started again, or to learn which group it belongs to: a matter of
            # milliseconds, or of an endpoint that does not answer; then neither of us gets anywhere.
            time.sleep(_RECHECK_S)
