"""Saying on disk that a command of a deployment is running, as the existing agents do."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from agent.files import replace_file
from agent.worker.directories import keeping_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.specification import DeploymentSpecification
    from agent.worker.context import HostContext


@contextlib.contextmanager
def ongoing_deployment(
    identifier: str, specification: DeploymentSpecification, host: HostContext
) -> Iterator[None]:
    """While the block runs, a file named after the deployment holds the host command identifier.

    Raises:
        CommandFailure: it can't be written.
    """
    directory = host.root.ongoing(host.settings.ongoing_deployment_tracking)
    file = directory / specification.deployment_id
    with keeping_in(directory):
        directory.mkdir(parents=True, exist_ok=True)
        replace_file(file, identifier.encode("utf-8", "surrogatepass"), durable=False)
    try:
        yield
    finally:
        # What the command did counts, and not what is left of its mark.
        with contextlib.suppress(OSError):
            file.unlink()


def remove_abandoned_mark(identifier: str, deployment_id: str, host: HostContext) -> None:
    """Remove the mark of a command whose worker has died; that of another command stays."""
    file = host.root.ongoing(host.settings.ongoing_deployment_tracking) / deployment_id
    with contextlib.suppress(OSError):
        if file.read_bytes() == identifier.encode("utf-8", "surrogatepass"):
            file.unlink()
