"""`login: true`: a script as in a user's own shell, after /etc/profile and the like have been read.

There is no `su`, no terminal and no password: the shell is started as that user, reads the profile,
and becomes the script. What the deployment and `environment:` set wins over the profile.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.protocol import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agent.appspec import HookScript

# Those that understand what we ask them to do.
_SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "ksh93", "mksh", "ash")
_SAVED = "_HOOK_VARIABLE_"
_VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*")


def check_login_shell(script: HookScript, user: str, shell: str) -> None:
    """Afterwards the shell is one that can read the profile and run the script.

    Raises:
        CommandFailure: it is not.
    """
    if os.path.basename(shell) in _SHELLS and os.access(shell, os.X_OK):
        return
    raise CommandFailure(
        "hook-login-shell-unusable",
        f"Script at specified location: {script.location} is to run with login: true (line {script.line} of the "
        f"AppSpec file), but the login shell of {user}, {shell}, is not on this host or can't be used for that. "
        f"Give the user one of {', '.join(_SHELLS)} (usermod --shell), or remove login: true.",
        code=ErrorCode.SCRIPT_FAILED,
        script_name=script.location,
    )


def login_command(shell: str, command: Sequence[str], names: Iterable[str]) -> list[str]:
    """The shell that reads the profile, sets these variables as they were before that, and becomes the command."""
    restored = "".join(
        f'export {name}="${_SAVED}{name}"; unset {_SAVED}{name}; ' for name in _settable(names)
    )
    return [shell, "-l", "-c", f'{restored}exec "$0" "$@"', *command]


def login_environment(variables: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """The variables, with a copy of each of these that the profile does not touch.

    Values never stand on a command line, which everybody on the host can read.
    """
    copies = {f"{_SAVED}{name}": variables[name] for name in _settable(names)}
    return {**variables, **copies}


def _settable(names: Iterable[str]) -> list[str]:
    return [name for name in names if _VARIABLE.fullmatch(name)]
