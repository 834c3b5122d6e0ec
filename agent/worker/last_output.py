"""What a lost event had printed: its worker did not live to put that into its report."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.files import open_at_once
from agent.lifecycle import reported
from agent.worker.results import LastOutput

if TYPE_CHECKING:
    from pathlib import Path

# Enough for what a report takes of it, whatever the script has printed.
_READ_BYTES = 64 * 1024
# `2025-03-01 12:00:00 ` before every line.
_STAMP_BYTES = 20
_EVENT, _SCRIPT = b"LifecycleEvent - ", b"Script - "


def last_output(scripts_log: Path, event: str, *, is_script_known: bool) -> LastOutput:
    """The end of what this event's scripts have printed, if the log ends with this event.

    Args:
        scripts_log: of the deployment.
        event: its name.
        is_script_known: whether a script was running, which is then the last one in the log.
    """
    try:
        text = _end_of(scripts_log)
    except OSError:
        return LastOutput()
    lines = [line[_STAMP_BYTES:] for line in text.split(b"\n") if line]
    headings = [number for number, line in enumerate(lines) if line.startswith(_EVENT)]
    if headings:
        lines = lines[headings[-1] :]
        if lines[0] != _EVENT + event.encode():
            return LastOutput()
    scripts = [line[len(_SCRIPT) :] for line in lines if line.startswith(_SCRIPT)]
    return LastOutput(
        script_name=scripts[-1].decode("utf-8", "replace") if scripts and is_script_known else "",
        tail=reported(b"".join(line + b"\n" for line in lines)),
        file=scripts_log,
    )


def _end_of(path: Path) -> bytes:
    """The last whole lines."""
    with open_at_once(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _READ_BYTES))
        text = file.read()
    return text if size <= _READ_BYTES else text.partition(b"\n")[2]
