"""`agentctl recover`: undo or complete Installs that were interrupted."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.completion import offer_interrupted_groups
from agent.cli.configured_host import check_owner
from agent.cli.edge import IMPOSSIBLE
from agent.cli.options import config_option
from agent.cli.running import DONE, agent_of, exit_impossible
from agent.cli.terminal_text import readable
from agent.deployments import DeploymentRoot, JobStore
from agent.deployments.group import GroupBusy, group_lock_at_once, group_lock_file
from agent.deployments.group_files import GroupFiles, interrupted_groups
from agent.deployments.job_state import COMMIT, UNDO
from agent.errors import CommandFailure, ConfigurationError
from agent.files import lock_holder
from agent.logs import command_log, stderr_log
from agent.protocol import INSTALL
from agent.user_names import user_name
from agent.worker.installed import recover_group

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.deployments import Job, JobState

_FAILED = 1


class _LeftAlone(Exception):
    """Another process works on the deployment group; the message says which."""


@click.command("recover")
@click.option(
    "-g",
    "--deployment-group",
    "group_id",
    shell_complete=offer_interrupted_groups,
    help="Id of the only group to look at. Default: all.",
)
@config_option
def command(group_id: str | None, config_file: Path) -> None:
    """Undo or complete Installs that were interrupted: killed, out of memory, or cut off by a power failure.

    An Install that had not taken effect is undone, so that the previous revision is whole again; one that had
    is completed. The next start of the agent and the next Install of the group do the same; this does it now, also
    where neither will come. A group that is being worked on is left alone. Run it as root, or as the agent's user.

    Exit codes: 0 no interrupted Install is left, 1 one could not be recovered, or its group is being worked on,
    2 bad input, 4 it can't be done: this user may not, or the deployment root can't be read.

    \b
    Examples:
      agentctl recover
      agentctl recover --deployment-group 6c1e2f4a-0000-0000-0000-000000000000
    """  # noqa: D301 - click takes \b for: keep these lines
    settings = agent_of(config_file).settings
    try:
        check_owner(settings, config_file)
    except ConfigurationError as error:
        sys.exit(_said(error.message, IMPOSSIBLE))
    root, jobs = DeploymentRoot(path=settings.root_dir), JobStore(settings.state_directory)
    command_log.configure(stderr_log())
    try:
        chosen = [name for name in interrupted_groups(root.instructions) if group_id in {None, name}]
    except OSError as error:
        exit_impossible(error)
    if not chosen:
        whose = f" of group {readable(group_id)}" if group_id is not None else ""
        click.echo(f"Nothing to recover: there is no interrupted Install{whose} in {root.instructions}.")
    codes = {_recover(GroupFiles(directory=root.instructions, group_id=name), root, jobs) for name in chosen}
    sys.exit(_FAILED if _FAILED in codes else max(codes, default=DONE))


def worker_on_group(group: Path, group_id: str, jobs: JobStore) -> str | None:
    """Which living process works on this group, in words; None when there is none.

    Raises:
        OSError: this user may not look.
    """
    holder = lock_holder(group_lock_file(group))
    if holder is not None:
        return holder_in_words(holder, jobs)
    for job, state in _unfinished(group_id, jobs):
        if job.is_alive():
            return _described_worker(state)
    return None


class _Outcome(Enum):
    """What came of one group; the values are what is said of it."""

    UNDONE = "the interrupted Install has been undone; the previous revision is whole again."
    COMPLETED = "the Install had taken effect; what was left to do has been completed."
    STUCK = (
        "the Install had taken effect, but what is named above can't be removed. Fix the cause and try again,"
        " or deploy: the next Install of the group counts it as its own."
    )
    OVER = "nothing is left to recover; its Install has just come to an end."


def _recover(files: GroupFiles, root: DeploymentRoot, jobs: JobStore) -> int:
    """Put this group in order and say so; the exit code that this alone would give."""
    shown = readable(files.group_id)
    try:
        _check_allowed(files)
        with _nobody_else_at(root.group(files.group_id), files.group_id, jobs) as lost:
            outcome = _undo_or_complete(files, root, lost)
    except _LeftAlone as busy:
        return _said(f"{shown}: left alone, because {busy}", _FAILED)
    except CommandFailure as failure:
        return _said(f"{shown}: {failure.message} [{failure.error_id}]", _FAILED)
    except OSError as error:
        hint = "; try again with sudo" if isinstance(error, PermissionError) else ""
        where = os.fsdecode(error.filename or root.path)
        return _said(f"{shown}: {where}: {error.strerror or error}{hint}", IMPOSSIBLE)
    if outcome is _Outcome.STUCK:
        return _said(f"{shown}: {outcome.value}", _FAILED)
    click.echo(f"{shown}: {outcome.value}")
    return DONE


def _undo_or_complete(files: GroupFiles, root: DeploymentRoot, lost: list[tuple[Job, JobState]]) -> _Outcome:
    has_taken_effect = files.committed_journal.exists()
    if not has_taken_effect and files.journal.exists():
        _note_undo(lost)
    undone = recover_group(files.group_id, root)
    if undone:
        return _Outcome.UNDONE
    if not has_taken_effect:
        # What was found was an Install at work.
        return _Outcome.OVER
    return _Outcome.STUCK if files.committed_journal.exists() else _Outcome.COMPLETED


def _said(message: str, code: int) -> int:
    click.echo(f"agentctl: {readable(message)}", err=True)
    return code


def _check_allowed(files: GroupFiles) -> None:
    """Only who has made a journal, and root, may touch all the files that it is about.

    Raises:
        PermissionError: this process is neither.
    """
    for journal in (files.journal, files.committed_journal):
        with contextlib.suppress(FileNotFoundError):
            owner = os.stat(journal, follow_symlinks=False).st_uid
            if os.geteuid() not in {0, owner}:
                who = f"root and {user_name(owner)}, who ran it," if owner else "root"
                reason = f"only {who} may recover this Install"
                raise PermissionError(errno.EPERM, reason, str(journal))


@contextlib.contextmanager
def _nobody_else_at(group: Path, group_id: str, jobs: JobStore) -> Iterator[list[tuple[Job, JobState]]]:
    """Within the block no worker and no `agentctl deploy` works on this group, or begins to.

    A worker that cleans up after a dead one does so under the lock of that one's record, without
    the group's; so both are held. Yields the group's records whose workers have died.

    Raises:
        _LeftAlone: somebody does now; nothing is waited for.
        OSError: the group's directory can't be made, or a record can't be opened.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(group_lock_at_once(group))
        except GroupBusy as busy:
            who = "another process" if busy.holder is None else holder_in_words(busy.holder, jobs)
            raise _LeftAlone(f"{who} works on it") from None
        lost = []
        for job, state in _unfinished(group_id, jobs):
            if not job.hold():
                raise _LeftAlone(f"{_described_worker(state)} works on it, or is about to")
            held.callback(job.let_go)
            lost.append((job, state))
        yield lost


def _note_undo(lost: list[tuple[Job, JobState]]) -> None:
    """Who comes to report such a command would otherwise take it for one that had taken effect."""
    for job, state in lost:
        if state.command.name == INSTALL and state.step == COMMIT:
            job.note_step(UNDO)


def _unfinished(group_id: str, jobs: JobStore) -> Iterator[tuple[Job, JobState]]:
    """Records of commands of this group whose work is not known to be over."""
    for job in jobs.jobs():
        try:
            state = job.read()
        except PermissionError:
            raise
        except OSError:
            # Nobody can use such a record, and nobody works by it.
            continue
        if state is None or state.result is not None or state.deployment is None:
            continue
        if state.deployment.deployment_group_id == group_id:
            yield job, state


def holder_in_words(pid: int, jobs: JobStore) -> str:
    """Which process has a group's lock, and what for, as the subject of a sentence.

    Args:
        pid: as `lock_holder` tells it.
        jobs: of the agent whose worker it may be.
    """
    for job in jobs.jobs():
        with contextlib.suppress(OSError):
            state = job.read()
            if state is not None and state.worker is not None and state.worker.pid == pid:
                return _described_worker(state)
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        # Locks are handed down to children, and this one has outlived whoever took it.
        return f"a process that was started by pid {pid}"
    return f"pid {pid} (`{os.fsdecode(b' '.join(words))}`)"


def _described_worker(state: JobState) -> str:
    pid = f"pid {state.worker.pid}" if state.worker is not None else "a worker"
    whose = f" of deployment {state.deployment.deployment_id}" if state.deployment is not None else ""
    return f"{pid} ({state.command.name}{whose})"
