"""Waiting for a script to end, at its deadline, or because nobody wants it any more."""

from __future__ import annotations

import contextlib
import os
import select
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.lifecycle.recorder_client import Recorder
    from agent.lifecycle.script_process import ScriptProcess

_TICK_S = 0.25  # how often we look whether the deployment was stopped
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.05  # between looks at a process that can't wake us


def wait_for_script(
    process: ScriptProcess, recorder: Recorder, *, deadline: float, is_unwanted: Callable[[], bool]
) -> int | None:
    """The exit code of the script; None when it has to be ended.

    Args:
        process: the script.
        recorder: of its output; one that has gone is replaced meanwhile.
        deadline: on the monotonic clock.
        is_unwanted: asked four times a second.

    Raises:
        CommandFailure: see `ScriptProcess.poll`.
    """
    next_tick = time.monotonic() + _TICK_S
    with _exit_descriptor(watched := process.pid) as descriptor:
        pause_s = _FIRST_PAUSE_S if descriptor is None else _TICK_S
        while (code := process.poll()) is None:
            if process.pid != watched:  # the descriptor tells nothing of the new one
                pause_s = min(pause_s, _LONGEST_PAUSE_S)
            now = time.monotonic()
            if now >= deadline:
                return None
            if now >= next_tick:
                next_tick = now + _TICK_S
                if is_unwanted():
                    return None
            waking = descriptor if process.pid == watched else None
            _pause(recorder, waking, max(min(deadline - now, next_tick - now, pause_s), 0.001))
            if descriptor is None:
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
    return code


def _pause(recorder: Recorder, descriptor: int | None, seconds: float) -> None:
    """Wait so long at most for the script to end; meanwhile the recorder is looked after."""
    poll = select.poll()
    poll.register(recorder, select.POLLIN)
    if descriptor is not None:
        poll.register(descriptor, select.POLLIN)
    if recorder.fileno() in dict(poll.poll(seconds * 1000)):
        recorder.revive()
        time.sleep(min(seconds, _LONGEST_PAUSE_S))  # should the next one go, too


@contextlib.contextmanager
def _exit_descriptor(pid: int) -> Iterator[int | None]:
    """A descriptor that is readable once the process has ended; None where the kernel is older than 5.3."""
    try:
        descriptor = os.pidfd_open(pid)
    except (OSError, AttributeError):  # the kernel, or the one that Python was built on
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)
