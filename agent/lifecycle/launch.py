"""Starting the process of a hook script: as our own child, or in a session of its user."""

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
from agent.lifecycle.context import MARKING_VARIABLES, HookProcess
from agent.lifecycle.interpreter import STANDARD_SHELL, shell_for
from agent.lifecycle.launch_failure import describe_script, explain_hidden_failure, explain_launch_failure
from agent.lifecycle.login import login_command, login_environment
from agent.lifecycle.script_process import DirectScript
from agent.processes import start_ticks, ticks_now
from agent.protocol import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.appspec import HookScript
    from agent.lifecycle.accounts import Account
    from agent.lifecycle.context import ScriptPatience
    from agent.lifecycle.environment import HookEnvironment
    from agent.lifecycle.script_file import ScriptFile
    from agent.lifecycle.script_process import ScriptProcess
    from agent.lifecycle.streams import ScriptStreams

_BUSY_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptStart:
    """All that it takes to start a script.

    Attributes:
        file: the script's file.
        script: its entry in the AppSpec.
        account: as whom it runs; None = as the agent.
        streams: where its output goes; holds on to its writing ends.
        environment: what all scripts of the event get.
        patience: how long things may take.
        on_started: see `HookContext`.
    """

    file: ScriptFile
    script: HookScript
    account: Account | None
    streams: ScriptStreams
    environment: HookEnvironment
    patience: ScriptPatience
    on_started: Callable[[HookProcess], None]

    def announce(self) -> None:
        """Tell of this process."""
        self.tell_of(os.getpid())

    def tell_of(self, pid: int, *, since_ticks: int = 0) -> None:
        """Tell of this process, or, with 0, of one that is about to be made; it is no older than `since_ticks`."""
        # Too many open files: a script that nobody noted is better than none.
        with contextlib.suppress(OSError):
            # Of one that has ended already, nobody could tell what it has started from what was there before.
            ticks = (start_ticks(pid) if pid else None) or since_ticks
            self.on_started(HookProcess(pid=pid, start_ticks=ticks))

    def explain(self, error: int) -> CommandFailure:
        """The failure to report for this number of errno; 0 = Popen did not say."""
        if error:
            reason = OSError(error, os.strerror(error))
            return explain_launch_failure(reason, self.file.path, self.script, self.account)
        return CommandFailure(
            "hook-not-startable",
            f"{describe_script(self.script)} can't be started: its process was made, but could not get ready. "
            "Look at the memory and the process limits of the host.",
            code=ErrorCode.SCRIPT_FAILED,
            script_name=self.script.location,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Launch:
    """What to start, as whom, printing where; None = as, and where, this process does.

    `shell` runs it where it names no interpreter. `announce` is called in the new process.
    """

    command: list[str]
    shell: str
    account: Account | None
    environment: Mapping[str, str]
    stdout: int | None = None
    stderr: int | None = None
    announce: Callable[[], None] | None = None


def start_script(start: ScriptStart) -> ScriptProcess:
    """The running script: leader of a session of its own, with no standard input.

    With `runas` or `login`, where the agent is root, it is started in a session of its user, as PAM opens it.
    That takes time: it is then only about to start, and `poll` tells whether it could be.

    Raises:
        CommandFailure: it can't be started; the message says why.
    """
    script = start.script
    hidden = script.sudo or script.login
    if failure := explain_hidden_failure(start.file, script, hidden=hidden):
        raise failure
    if script.sudo:
        return _start_directly(start, _through_sudo(start), None)
    if start.account is not None and os.geteuid() == 0:
        return _start_in_session(start, start.account)
    return _start_with(start, {})


def _start_with(start: ScriptStart, session: Mapping[str, str]) -> ScriptProcess:
    """As our own child; `session` is what a session of its user would bring along."""
    launch = _in_session(start, session)
    return _start_directly(start, launch, None if start.script.login else launch.environment.get("PATH"))


def _start_directly(start: ScriptStart, launch: _Launch, path_variable: str | None) -> ScriptProcess:
    streams = start.streams
    launch = replace(launch, stdout=streams.stdout, stderr=streams.stderr)
    try:
        if _changes_user(launch) or not _is_told_by_variables(start, launch):
            process = _start_as_shell_would(replace(launch, announce=start.announce), start)
        else:
            # Its variables tell whose it is, should we be killed before its pid is known. Python then makes the process
            # by vfork, without a copy of all that we have mapped: a third of the time.
            since = ticks_now()
            start.tell_of(0, since_ticks=since)
            process = _start_as_shell_would(launch, start)
            start.tell_of(process.pid, since_ticks=since)
        return DirectScript(process, start.script, path_variable)
    except OSError as error:
        raise start.explain(error.errno or 0) from error
    except subprocess.SubprocessError as error:  # all that Popen tells of an exception in the new process
        raise start.explain(0) from error


def _start_in_session(start: ScriptStart, account: Account) -> ScriptProcess:
    """By way of a process that opens the session, see `session`; without PAM, as our own child."""
    # Only scripts with a user pay for it.
    from agent.lifecycle.environment_files import read_environment_files  # noqa: PLC0415
    from agent.lifecycle.pam import choose_service, load_pam  # noqa: PLC0415
    from agent.lifecycle.session import SessionPlan  # noqa: PLC0415
    from agent.lifecycle.session_script import SessionScript, fork_keeper  # noqa: PLC0415

    library, service = load_pam(), choose_service()
    if library is None:
        return _start_with(start, read_environment_files())

    def start_there(
        variables: Mapping[str, str], become_user: Callable[[str | None], None]
    ) -> subprocess.Popen[bytes]:
        launch = _in_session(start, variables)
        path = None if start.script.login else launch.environment.get("PATH")
        becoming = replace(launch, account=None, announce=lambda: become_user(path))
        return _start_as_shell_would(becoming, start)

    plan = SessionPlan(
        worker=os.getpid(),
        service=service,
        user=account.name,
        uid=account.uid,
        gid=account.gid,
        groups=account.groups,
        environment=start.environment.inherited,
        start=start_there,
        announce=start.announce,
        closing_s=start.patience.session_s,
    )
    try:
        ours, keeper = fork_keeper(library, plan, start.streams)
    except OSError as error:
        raise start.explain(error.errno or 0) from error
    return SessionScript(
        keeper,
        ours,
        script=start.script,
        service=service,
        closing_s=start.patience.session_s,
        explain=start.explain,
    )


def _in_session(start: ScriptStart, session: Mapping[str, str]) -> _Launch:
    """Without sudo; `session` is what a session of its user brings along."""
    script, account = start.script, start.account
    user = account.variables if account else {}
    variables = start.environment.for_script(script.environment, user=user, session=session)
    command = [str(start.file.path), *script.args]
    if script.login and account:
        names = start.environment.particular_names(script.environment)
        command = login_command(account.shell, command, names)
        variables = login_environment(variables, names)
    shell = shell_for(start.file, account)
    return _Launch(command=command, shell=shell, account=account, environment=variables)


def _through_sudo(start: ScriptStart) -> _Launch:
    """By way of sudo, which never asks for a password, and hands on the variables that are for the script.

    They go by name, so that their values don't stand in the process list.
    """
    script = start.script
    variables = start.environment.for_script(script.environment, user={})
    names = start.environment.particular_names(script.environment)
    user = ["-u", script.runas] if script.runas else []
    preserving = [f"--preserve-env={','.join(names)}"] if names else []
    sudo = find_sudo(script, variables)
    command = [sudo, "-n", *user, *preserving, "--", str(start.file.path), *script.args]
    return _Launch(command=command, shell=STANDARD_SHELL, account=None, environment=variables)


def _start_as_shell_would(launch: _Launch, start: ScriptStart) -> subprocess.Popen[bytes]:
    """Start the script; one that names no interpreter, through a shell."""
    try:
        return _start_when_not_busy(launch, start)
    except OSError as error:
        if error.errno != errno.ENOEXEC or start.file.is_binary:
            raise
    return _start(replace(launch, command=[launch.shell, *launch.command]))


def _start_when_not_busy(launch: _Launch, start: ScriptStart) -> subprocess.Popen[bytes]:
    """Start the script, once nobody has it open for writing: a process may have forked at the wrong moment."""
    end = time.monotonic() + start.patience.busy_s
    while True:
        try:
            return _start(launch)
        except OSError as error:
            if error.errno != errno.ETXTBSY or time.monotonic() > end:
                raise
        time.sleep(_BUSY_PAUSE_S)


def _start(launch: _Launch) -> subprocess.Popen[bytes]:
    account = launch.account if _changes_user(launch) else None
    return subprocess.Popen(
        launch.command,
        stdin=subprocess.DEVNULL,
        stdout=launch.stdout,
        stderr=launch.stderr,
        cwd=_working_directory(),
        env=launch.environment,
        # Told by the new process itself, before it becomes the script: were it told afterwards, whoever is
        # killed in between would leave a script behind that nobody knows of.
        # The only other thread there may be speaks to the endpoint; the new process needs nothing of it.
        preexec_fn=launch.announce,  # noqa: PLW1509
        start_new_session=True,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=account.groups if account else None,
    )


def _changes_user(launch: _Launch) -> bool:
    return launch.account is not None and os.geteuid() == 0


def _is_told_by_variables(start: ScriptStart, launch: _Launch) -> bool:
    """Whether `end_abandoned_hook` can find the script by its environment.

    Not what sudo runs as another user, whose environment nobody may read, nor where an AppSpec sets these variables.
    """
    deployment = start.environment.deployment
    return not start.script.sudo and all(
        launch.environment.get(name) == deployment.get(name) for name in MARKING_VARIABLES
    )


def _working_directory() -> str | None:
    """The agent's own, unless somebody has removed it: every `cd` of a shell would complain then."""
    try:
        os.getcwd()
    except OSError:
        return "/"
    return None
