"""Starting the process of a hook script."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.lifecycle.accounts import find_sudo
from agent.lifecycle.context import HookProcess
from agent.lifecycle.launch_failure import (
    describe_script,
    explain_hidden_failure,
    explain_launch_failure,
    is_binary,
)
from agent.lifecycle.login import login_command, login_environment
from agent.processes import start_ticks
from agent.protocol import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from agent.appspec import HookScript
    from agent.lifecycle.accounts import Account
    from agent.lifecycle.environment import HookEnvironment
    from agent.lifecycle.streams import ScriptStreams

_BUSY_PAUSE_S = 0.05


def start_script(
    path: Path,
    script: HookScript,
    account: Account | None,
    streams: ScriptStreams,
    environment: HookEnvironment,
    *,
    busy_s: float,
    on_started: Callable[[HookProcess], None],
) -> subprocess.Popen[bytes]:
    """The running script: leader of a session of its own, with no standard input.

    Args:
        path: the script's file.
        script: its entry in the AppSpec.
        account: as whom it runs; None = as the agent.
        streams: where its output goes; holds on to its writing ends.
        environment: what all scripts of the event get.
        busy_s: how long to wait for whoever has the file open for writing.
        on_started: see `HookContext`.

    Raises:
        CommandFailure: it can't be started; the message says why.
    """
    if (script.sudo or script.login) and (failure := explain_hidden_failure(path, script)):
        raise failure
    if script.sudo:
        launch = _through_sudo(path, script, environment)
    else:
        user = account.variables if account else {}
        variables = environment.for_script(script.environment, user=user)
        command = [str(path), *script.args]
        if script.login and account:
            names = environment.particular_names(script.environment)
            command = login_command(account.shell, command, names)
            variables = login_environment(variables, names)
        launch = _Launch(command=command, account=account, environment=variables)

    def announce() -> None:
        pid = os.getpid()
        with contextlib.suppress(
            OSError
        ):  # too many open files: a script that nobody noted is better than none
            on_started(HookProcess(pid=pid, start_ticks=start_ticks(pid) or 0))

    try:
        return _start_as_shell_would(replace(launch, announce=announce), path, streams, busy_s)
    except OSError as error:
        raise explain_launch_failure(error, path, script, account) from error
    except subprocess.SubprocessError as error:  # all that Popen tells of an exception in the new process
        raise CommandFailure(
            "hook-not-startable",
            f"{describe_script(script)} can't be started: its process was made, but could not get ready. "
            "Look at the memory and the process limits of the host.",
            code=ErrorCode.SCRIPT_FAILED,
            script_name=script.location,
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Launch:
    """What to start, as whom; None = as the agent. `announce` is called in the new process."""

    command: list[str]
    account: Account | None
    environment: Mapping[str, str]
    announce: Callable[[], None] | None = None


def _through_sudo(path: Path, script: HookScript, environment: HookEnvironment) -> _Launch:
    """By way of sudo, which never asks for a password, and hands on the variables that are for the script.

    They go by name, so that their values don't stand in the process list.
    """
    variables = environment.for_script(script.environment, user={})
    names = environment.particular_names(script.environment)
    user = ["-u", script.runas] if script.runas else []
    preserving = [f"--preserve-env={','.join(names)}"] if names else []
    command = [find_sudo(script, variables), "-n", *user, *preserving, "--", str(path), *script.args]
    return _Launch(command=command, account=None, environment=variables)


def _start_as_shell_would(
    launch: _Launch, path: Path, streams: ScriptStreams, busy_s: float
) -> subprocess.Popen[bytes]:
    """Start the script; one that names no interpreter, through /bin/sh."""
    try:
        return _start_when_not_busy(launch, streams, busy_s)
    except OSError as error:
        if error.errno != errno.ENOEXEC or is_binary(path):
            raise
    return _start(replace(launch, command=["/bin/sh", *launch.command]), streams)


def _start_when_not_busy(launch: _Launch, streams: ScriptStreams, busy_s: float) -> subprocess.Popen[bytes]:
    """Start the script, once nobody has it open for writing: a process may have forked at the wrong moment."""
    end = time.monotonic() + busy_s
    while True:
        try:
            return _start(launch, streams)
        except OSError as error:
            if error.errno != errno.ETXTBSY or time.monotonic() > end:
                raise
        time.sleep(_BUSY_PAUSE_S)


def _start(launch: _Launch, streams: ScriptStreams) -> subprocess.Popen[bytes]:
    account = launch.account if os.geteuid() == 0 else None
    return subprocess.Popen(
        launch.command,
        stdin=subprocess.DEVNULL,
        stdout=streams.stdout,
        stderr=streams.stderr,
        cwd=_working_directory(),
        env=launch.environment,
        # Told by the new process itself, before it becomes the script: were it told afterwards, a worker
        # killed in between would leave a script behind that nobody knows of. That costs the vfork path.
        # The only other thread there may be speaks to the endpoint; the new process needs nothing of it.
        preexec_fn=launch.announce,  # noqa: PLW1509
        start_new_session=True,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=account.groups if account else None,
    )


def _working_directory() -> str | None:
    """The agent's own, unless somebody has removed it: every `cd` of a shell would complain then."""
    try:
        os.getcwd()
    except OSError:
        return "/"
    return None
