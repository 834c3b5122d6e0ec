"""Which deployment of a group is installed: what was interrupted is put in order, and the pointer says what is there.

The pointer to the last successful deployment decides whose scripts stop the application, and which
archive is kept. So it is written while the journal of the Install is still there: whoever comes
after a crash, or after a disk that could not be written, finds the journal and does it again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.deployments.group_files import GroupFiles
from agent.deployments.pointers import read_pointer, write_pointer
from agent.errors import InstallNotCompleted
from agent.files import is_directory

if TYPE_CHECKING:
    from agent.deployments import DeploymentRoot


def recover_group(group_id: str, root: DeploymentRoot) -> bool:
    """Undo, or complete, an Install of this group that was interrupted. Whether one was undone.

    One that had taken effect is the group's last successful one afterwards. The caller holds the group's lock.

    Raises:
        CommandFailure: `install-not-completed`, and see `recover_install`.
    """
    files = GroupFiles(directory=root.instructions, group_id=group_id)
    if not files.is_interrupted:
        return False
    # Rare, and no other command than Install needs this package.
    from agent.install import Moment, installed_deployment, recover_install  # noqa: PLC0415

    def observe(moment: Moment, _path: bytes) -> None:
        if moment is Moment.PUBLISHED:
            point_at_installed(installed_deployment(files.directory, group_id), group_id, root)

    return recover_install(files.directory, group_id, observer=observe)


def point_at_installed(deployment_id: str, group_id: str, root: DeploymentRoot) -> None:
    """Afterwards this deployment, which is installed, is the group's last successful one.

    Nothing is changed where its directory has gone: there are no scripts in it to run; nor where the id is empty,
    since nobody knows what is installed.

    Raises:
        InstallNotCompleted: the pointer can't be written.
    """
    if not deployment_id:
        return
    directory, pointer = root.deployment(group_id, deployment_id), root.last_successful(group_id)
    try:
        if is_directory(directory.path) and read_pointer(pointer, group=root.group(group_id)) != directory:
            write_pointer(pointer, directory)
    except OSError as error:
        where = os.fsdecode(error.filename) if error.filename else str(pointer)
        raise InstallNotCompleted(
            f"Deployment {deployment_id} is installed, but {where} can't be written: {error.strerror or error}. Fix "
            "the cause; the next command of this group, or the next start of the agent, completes the Install.",
        ) from error
