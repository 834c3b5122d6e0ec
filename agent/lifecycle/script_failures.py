"""Failures of hook scripts that more is decided on than that the command has failed."""

from __future__ import annotations

from agent.errors import CommandFailure
from agent.protocol import ErrorCode


class ScriptMissing(CommandFailure):
    """There is no such script: it may be put back, even in the archive of an earlier revision."""

    def __init__(self, message: str, *, script_name: str) -> None:
        super().__init__(
            "hook-script-missing", message, code=ErrorCode.SCRIPT_MISSING, script_name=script_name
        )


class SessionBroken(CommandFailure):
    """The session of a script's user has come to harm, and nobody knows how far the script came."""

    def __init__(self, message: str, *, script_name: str) -> None:
        super().__init__(
            "hook-session-broken", message, code=ErrorCode.SCRIPT_FAILED, script_name=script_name
        )
