"""Which program runs a script."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.user_names import user_name

if TYPE_CHECKING:
    from agent.appspec import HookScript
    from agent.lifecycle.accounts import Account
    from agent.lifecycle.script_file import ScriptFile

STANDARD_SHELL = "/bin/sh"

# What a login shell does with a file that the kernel can't start, as in `su USER -c PATH`: these run it
# themselves, the C shells only what begins with a comment. All others (dash, zsh, mksh, fish, ash) give it
# to /bin/sh, and rbash, git-shell, nologin and the like run no files at all.
_THEMSELVES = ("bash", "ksh", "ksh93")
_COMMENTED = ("csh", "tcsh")


def shell_for(file: ScriptFile, account: Account | None) -> str:
    """The shell that runs this script where it names no interpreter itself.

    Args:
        file: of the script.
        account: as whom it runs; None = as the agent, with no shell of its own.
    """
    if account is None or not os.access(account.shell, os.X_OK):
        return STANDARD_SHELL
    name = os.path.basename(account.shell)
    if name in _THEMSELVES or (name in _COMMENTED and file.beginning.startswith(b"#")):
        return account.shell
    return STANDARD_SHELL


def describe_program(file: ScriptFile, script: HookScript, account: Account | None) -> str:
    """What ran the script, and as whom, as it goes on after "was run": `by /usr/bin/env python3 as root`."""
    user, through = _user(script), _through(script, account)
    if file.is_program:
        return f"as a program{user}{through}"
    if words := file.interpreter_words:
        return f"by {' '.join(words)}{user}{through}"
    shell = shell_for(file, None if script.sudo else account)
    return f"by {shell}{user}, because {_why(file)}{through}"


def _user(script: HookScript) -> str:
    """As whom it ran; empty where the message has said so, as it does of `runas`."""
    if script.runas:
        return ""
    return f" as {user_name(0 if script.sudo else os.geteuid())}"


def _why(file: ScriptFile) -> str:
    if file.beginning.startswith(b"#!"):
        return "nothing follows the `#!` in its first line"
    if file.has_byte_order_mark:
        return "its first two bytes are not `#!` but a byte order mark"
    if line := file.late_interpreter_line:
        return f"its first two bytes are not `#!` (that comes in line {line})"
    return "its first two bytes are not `#!`"


def _through(script: HookScript, account: Account | None) -> str:
    if script.sudo:
        return ", through sudo"
    if script.login and account:
        return f", through the login shell {account.shell}"
    return ""
