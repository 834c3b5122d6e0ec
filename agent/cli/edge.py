"""The edge of the command line: whatever comes here becomes one sentence and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING

import click

from agent.cli.output import prepare_streams
from agent.cli.terminal_text import readable
from agent.errors import AgentError, ConfigurationError
from agent.logs import Level, write_to_stderr

if TYPE_CHECKING:
    from collections.abc import Callable

FAILED, BAD_INPUT, IMPOSSIBLE = 1, 2, 4

# What these print is all that they do: without it they have failed.
_ANSWERS = {
    "": FAILED,
    "explain": FAILED,
    "plan": IMPOSSIBLE,
    "status": IMPOSSIBLE,
    "version": FAILED,
    "whoami": FAILED,
}
# To these 1 means something else than that it was not possible.
_WITH_IMPOSSIBLE = frozenset({"drain", "plan", "recover", "status", "stop", "wait-idle"})


def call(command: Callable[[], object], subcommand: Callable[[], str]) -> int:
    """Call what the command line asks for; its exit code. Nothing gets past this but signals.

    Args:
        command: does it; ends by itself, with `sys.exit`, or with an error.
        subcommand: the name of what was asked for, as far as that is known by then.
    """
    out = prepare_streams()
    code = _code_of(command, subcommand)
    sys.stdout.flush()
    if out.is_incomplete:
        reason = out.error.strerror if out.error else ""
        _say(f"standard output can't be written: {reason}. What was printed there is not complete.")
        return code or _ANSWERS.get(subcommand(), 0)
    return code


def _code_of(command: Callable[[], object], subcommand: Callable[[], str]) -> int:  # noqa: PLR0911 - a table
    try:
        result = command()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED if end.code else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say("ended by Ctrl-C.")
        return 128 + signal.SIGINT
    except ConfigurationError as error:
        _say(f"{error.message} [{error.error_id}]")
        return BAD_INPUT
    except AgentError as error:
        _say(f"{error.message} [{error.error_id}]")
        return FAILED
    except OSError as error:
        _say(refusal(error))
        return _impossible(subcommand())
    except Exception as error:  # noqa: BLE001 - the edge of the program
        _say(
            f"it met an error of its own: {type(error).__name__}: {error}. Please report it, with what it prints "
            "after AGENTCTL_TRACEBACK=1 [internal-error]"
        )
        if os.environ.get("AGENTCTL_TRACEBACK"):
            traceback.print_exc()
        return _impossible(subcommand())
    # click's own ends, such as --help.
    return result if isinstance(result, int) else 0


def refusal(error: OSError) -> str:
    """What the system has refused, on which path, and what helps, as one sentence."""
    return f"{_place(error) or 'the system refuses it'}: {_reason(error)}"


def unreadable(error: OSError) -> str:
    """What can't be read, why, and what helps, as one sentence."""
    return f"{_place(error) or 'something'} can't be read: {_reason(error)}"


def _place(error: OSError) -> str:
    name = error.filename
    return os.fsdecode(name) if isinstance(name, (str, bytes)) else str(name or "")


def _reason(error: OSError) -> str:
    hint = "; try again with sudo" if isinstance(error, PermissionError) and os.geteuid() else ""
    return f"{error.strerror or error}{hint}"


def _impossible(subcommand: str) -> int:
    return IMPOSSIBLE if subcommand in _WITH_IMPOSSIBLE else FAILED


def _say(message: str) -> None:
    # The journal takes each line for an error: `agentctl run` is the start of the agent's unit.
    write_to_stderr(f"agentctl: {readable(message)}", Level.ERROR)
