"""Saying on disk that a command of a deployment is running, as the existing agents do."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from agent.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.specification import DeploymentSpecification
    from agent.worker.context import HostContext


@contextlib.contextmanager
def ongoing_deployment(
    identifier: str, specification: DeploymentSpecification, host: HostContext
) -> Iterator[None]:
    """While the block runs, a file named after the deployment holds the host command identifier."""
    directory = host.root.ongoing(host.settings.ongoing_deployment_tracking)
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / specification.deployment_id
    replace_file(file, identifier.encode(), durable=False)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
