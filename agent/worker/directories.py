"""Directories that a command keeps its files in: whose turn it is in them, and what it means when that does not work."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from agent.deployments.group import group_lock
from agent.deployments.group_files import GroupFiles
from agent.errors import CommandFailure
from agent.worker.installed import recover_group
from agent.worker.remedies import remedy_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.specification import DeploymentSpecification
    from agent.worker.context import HostContext


@contextlib.contextmanager
def keeping_in(directory: Path) -> Iterator[None]:
    """Whatever the system refuses within the block fails the command, with the path and the reason.

    Args:
        directory: what is written to, for errors that name no file.

    Raises:
        CommandFailure: `deployment-directory-unwritable`.
    """
    try:
        yield
    except OSError as error:
        where = os.fsdecode(error.filename) if error.filename else str(directory)
        raise CommandFailure(
            "deployment-directory-unwritable",
            f"The deployment can't be kept in {where}: {error.strerror or error}. {remedy_for(error, where, otherwise='Check root_dir')}, and deploy again.",
        ) from error


@contextlib.contextmanager
def working_on_group(specification: DeploymentSpecification, host: HostContext) -> Iterator[None]:
    """Within the block nobody else works on the deployment's group, and no Install of it is half done.

    Raises:
        CommandFailure: the group's directory can't be made, or an interrupted Install can't be undone.
    """
    with holding_group(specification.deployment_group_id, host):
        recover_group(specification.deployment_group_id, host.root)
        yield


def finish_interrupted(specification: DeploymentSpecification, host: HostContext) -> None:
    """Afterwards no Install of the deployment's group is half done. Where none was, this costs two looks at the disk.

    Whose scripts an event runs, and so whether it has any, is right only then.

    Raises:
        CommandFailure: as `working_on_group`.
    """
    files = GroupFiles(directory=host.root.instructions, group_id=specification.deployment_group_id)
    if files.is_interrupted:
        with working_on_group(specification, host):
            pass


@contextlib.contextmanager
def holding_group(group_id: str, host: HostContext) -> Iterator[None]:
    """Within the block nobody else works on this group; what was interrupted is left as it is.

    Raises:
        CommandFailure: the group's directory can't be made.
    """
    group = host.root.group(group_id)
    with contextlib.ExitStack() as held:
        with keeping_in(group):
            held.enter_context(group_lock(group))
        yield
