"""Work in a child process, for tests whose subject adopts orphans, changes user or never returns."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class IsolatedFailure(Exception):
    """The child raised; the message is that of its exception."""


def run_isolated(function: Callable[[], Any]) -> Any:
    """What `function` returns (JSON-able), computed in a forked child.

    Raises:
        IsolatedFailure: `function` raised, or the child was killed.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        os.close(reader)
        _answer(function, writer)
    os.close(writer)
    with open(reader, "rb") as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    if not answer:
        raise IsolatedFailure("The child process ended without an answer.")
    outcome = json.loads(answer)
    if "error" in outcome:
        raise IsolatedFailure(outcome["error"])
    return outcome["result"]


def _answer(function: Callable[[], Any], writer: int) -> None:
    """Send the outcome through the pipe and end this process, whatever happens."""
    try:
        try:
            answer = {"result": function()}
        except Exception as error:  # noqa: BLE001 - the parent raises it again
            answer = {"error": str(error) or type(error).__name__}
        with open(writer, "wb") as stream:
            stream.write(json.dumps(answer).encode())
    finally:
        os._exit(0)
