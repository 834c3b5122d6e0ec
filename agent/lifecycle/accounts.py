"""As whom a hook script runs: `runas:` → a user of this host."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.lifecycle.login import check_login_shell
from agent.protocol import ErrorCode
from agent.user_names import user_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.appspec import HookScript


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user, with everything that a process of theirs gets at login.

    Attributes:
        groups: ids of all groups, the primary one among them.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    @property
    def variables(self) -> dict[str, str]:
        """What the user's own environment says about them."""
        return {
            "HOME": self.home,
            "USER": self.name,
            "LOGNAME": self.name,
            "SHELL": self.shell,
            "MAIL": f"/var/mail/{self.name}",
        }


def find_account(script: HookScript) -> Account | None:
    """The user that the script wants to run as; None when it names nobody, and so runs as the agent.

    With `login: true` it is the agent's own user then.

    Raises:
        CommandFailure: there is no such user, this agent can't become that user, or the user has
            no shell that `login: true` could use.
    """
    if not script.runas and not script.login:
        return None
    account = _look_up(script.runas or str(os.geteuid()))
    if account is None:
        raise CommandFailure(
            "hook-user-unknown",
            f"{_who(script)}, but this host has no such user. "
            "Create the user before the deployment, or in the scripts of an earlier event "
            "(all users of an event are checked before its first script), or correct runas.",
            code=ErrorCode.SCRIPT_FAILED,
            script_name=script.location,
        )
    if account.uid != os.geteuid() != 0 and not script.sudo:
        raise CommandFailure(
            "hook-user-not-permitted",
            f"{_who(script)}, but the agent itself is {user_name(os.geteuid())} and not root, "
            "and only root may start processes of other users. "
            "Run the agent as root, or set sudo: true for this script and allow it in sudoers.",
            code=ErrorCode.SCRIPT_FAILED,
            script_name=script.location,
        )
    if script.login:
        check_login_shell(script, account.name, account.shell)
    return account


def find_sudo(script: HookScript, environment: Mapping[str, str]) -> str:
    """Path of the sudo program.

    Raises:
        CommandFailure: this host has none.
    """
    for directory in environment.get("PATH", "").split(":"):
        candidate = Path(directory or ".", "sudo")
        if os.access(candidate, os.X_OK) and candidate.is_file():
            return str(candidate)
    raise CommandFailure(
        "hook-sudo-missing",
        f"Script at specified location: {script.location} is to run through sudo (line {script.line} of "
        f"the AppSpec file), but sudo was not found; PATH is {environment.get('PATH', '')}. "
        "Install sudo, or remove sudo: true: the agent usually runs as root anyway.",
        code=ErrorCode.SCRIPT_FAILED,
        script_name=script.location,
    )


def _look_up(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        if not name.isascii() or not name.isdigit():
            return None
        try:
            entry = pwd.getpwuid(int(name))
        except (KeyError, OverflowError):
            return None
    return Account(
        name=entry.pw_name,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        groups=tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)),
        home=entry.pw_dir or "/",
        shell=entry.pw_shell or "/bin/sh",
    )


def _who(script: HookScript) -> str:
    return (
        f"Script at specified location: {script.location} is to run as user {script.runas or os.geteuid()} "
        f"(line {script.line} of the AppSpec file)"
    )
