"""What it means for a command that its record can't be written: it must not begin."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.worker.remedies import remedy_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.deployments import Job


@contextlib.contextmanager
def keeping_record(job: Job) -> Iterator[None]:
    """Whatever the system refuses within the block fails the command, with the path and the reason.

    Raises:
        CommandFailure: `record-impossible`.
    """
    try:
        yield
    except OSError as error:
        raise no_record(error, job.record) from error


def no_record(error: OSError, path: Path) -> CommandFailure:
    """The failure of a command of which there can be no record, or no whole one, in this place."""
    where = os.fsdecode(error.filename) if error.filename else str(path)
    remedy = remedy_for(error, where, otherwise="Check pid_dir")
    return CommandFailure(
        "record-impossible",
        f"The agent can't keep a record of this command in {where}: {error.strerror or error}. "
        f"Nothing has been changed. {remedy}, and deploy again.",
    )
