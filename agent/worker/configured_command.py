"""Running a command that the administrator has put into the settings."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.processes import signal_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

_SHOWN_BYTES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandOutcome:
    """How it went.

    Attributes:
        problem: why it failed, such as `it exited with 3`; empty when it has succeeded.
        output: the last 2,000 bytes that it has printed.
    """

    problem: str
    output: str


def run_configured(command: str, *, patience_s: float, environment: Mapping[str, str]) -> CommandOutcome:
    """Run it to its end, without a shell; after `patience_s` seconds it is killed with its process group.

    Args:
        command: words as a shell would split them.
        patience_s: seconds.
        environment: what it gets beside PATH.
    """
    # To a file, so that a child which keeps its output open delays nobody.
    with tempfile.TemporaryFile() as output:
        problem = _run(command, patience_s, environment, output)
        output.seek(0, os.SEEK_END)
        output.seek(max(0, output.tell() - _SHOWN_BYTES))
        return CommandOutcome(problem=problem, output=output.read().decode("utf-8", "replace"))


def _run(command: str, patience_s: float, environment: Mapping[str, str], output: BinaryIO) -> str:
    try:
        process = subprocess.Popen(
            shlex.split(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={"PATH": os.environ.get("PATH", os.defpath), **environment},
            start_new_session=True,
        )
    except OSError as error:
        return f"it can't be started: {error.strerror or error} ({error.filename})"
    except ValueError as error:
        return f"it can't be started: {error}"
    try:
        code = process.wait(patience_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"it was still running after {patience_s:g} s and was ended"
    if code < 0:
        return f"it was ended by {signal_name(-code)}"
    return f"it exited with {code}" if code else ""
