"""Saying on disk that a command of a deployment is running, as the existing agents do."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from agent.files import replace_file
from agent.worker.directories import keeping_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.deployments import JobStore
    from agent.specification import DeploymentSpecification
    from agent.worker.context import HostContext


@contextlib.contextmanager
def ongoing_deployment(
    identifier: str, specification: DeploymentSpecification, host: HostContext, jobs: JobStore
) -> Iterator[None]:
    """While the block runs, a file named after the deployment holds the host command identifier.

    Marks of commands of which there is no record are removed: their workers could not do so.

    Raises:
        CommandFailure: it can't be written.
    """
    directory = host.root.ongoing(host.settings.ongoing_deployment_tracking)
    file = directory / specification.deployment_id
    with keeping_in(directory):
        directory.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(directory, jobs)
        replace_file(file, identifier.encode("utf-8", "surrogatepass"), durable=False)
    try:
        yield
    finally:
        # What the command did counts, and not what is left of its mark.
        with contextlib.suppress(OSError):
            file.unlink()


def _remove_abandoned(directory: Path, jobs: JobStore) -> None:
    # Not those that begin with a dot: somebody may be about to write one.
    for mark in [path for path in directory.iterdir() if not path.name.startswith(".")]:
        with contextlib.suppress(OSError):
            if jobs.find(mark.read_bytes().decode("utf-8", "surrogatepass")) is None:
                mark.unlink()


def remove_abandoned_mark(identifier: str, deployment_id: str, host: HostContext) -> None:
    """Remove the mark of a command whose worker has died; that of another command stays."""
    file = host.root.ongoing(host.settings.ongoing_deployment_tracking) / deployment_id
    with contextlib.suppress(OSError):
        if file.read_bytes() == identifier.encode("utf-8", "surrogatepass"):
            file.unlink()
