"""Commands of one deployment group take turns, in the order in which they were accepted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.deployments import Job, JobStore

_RECHECK_S = 0.02


def wait_for_turn(job: Job, group_id: str, jobs: JobStore) -> None:
    """Return when no living command of this group was accepted before this one.

    The lock on a record goes with its worker, so a worker that dies never blocks the group.
    """
    for earlier in jobs.earlier(job):
        while earlier.is_alive():
            state = earlier.read()
            if state is not None and state.deployment is not None:
                if state.deployment.deployment_group_id == group_id:
                    earlier.wait_until_over()
                break
            # Its worker has yet to learn which group it belongs to: a matter of milliseconds, or of
            # an endpoint that does not answer; then neither of us gets anywhere.
            time.sleep(_RECHECK_S)
