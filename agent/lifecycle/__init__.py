"""Lifecycle events: whose scripts run, the script runner, the script log, diagnostics.

Everything that other rooms may use is here, and loaded when it is first asked for: what reports need is cheap and in
the daemon, while only a command with scripts may pay for what runs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.exports import exporting

if TYPE_CHECKING:
    from agent.lifecycle.accounts import find_account
    from agent.lifecycle.choice import ScriptSource, choose_source
    from agent.lifecycle.context import HookContext, HookProcess
    from agent.lifecycle.diagnostics import NOOP_MESSAGE, failure_payload, success_payload
    from agent.lifecycle.ending import end_abandoned_hook
    from agent.lifecycle.environment import EnvironmentPolicy, hook_environment
    from agent.lifecycle.location import find_script
    from agent.lifecycle.output import reported
    from agent.lifecycle.recorder_shelf import RecorderShelf
    from agent.lifecycle.run import run_event

__all__ = [
    "NOOP_MESSAGE",
    "EnvironmentPolicy",
    "HookContext",
    "HookProcess",
    "RecorderShelf",
    "ScriptSource",
    "choose_source",
    "end_abandoned_hook",
    "failure_payload",
    "find_account",
    "find_script",
    "hook_environment",
    "reported",
    "run_event",
    "success_payload",
]

_MODULES = {
    "NOOP_MESSAGE": "diagnostics",
    "EnvironmentPolicy": "environment",
    "HookContext": "context",
    "HookProcess": "context",
    "RecorderShelf": "recorder_shelf",
    "ScriptSource": "choice",
    "choose_source": "choice",
    "end_abandoned_hook": "ending",
    "failure_payload": "diagnostics",
    "find_account": "accounts",
    "find_script": "location",
    "hook_environment": "environment",
    "reported": "output",
    "run_event": "run",
    "success_payload": "diagnostics",
}

if not TYPE_CHECKING:  # else any name would be taken for one that is exported
    __getattr__ = exporting(__name__, _MODULES)
