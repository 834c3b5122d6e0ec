"""What `agentctl run` hands to the daemon, and the exec between the two.

The launcher reads and checks YAML and the command line. Then it is replaced by a fresh interpreter
that never loads any of that: same process, a third less memory.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from agent.files import write_all
from agent.processes import initial_environment
from agent.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Everything that the daemon has to know when it starts.

    Attributes:
        settings: checked.
        on_premises: the on-premises file as JSON, secrets and all; None on EC2.
        proxies: scheme → proxy address, from settings and environment; `no` → hosts without one.
    """

    settings: Settings
    on_premises: Mapping[str, Any] | None
    proxies: Mapping[str, str]


def exec_daemon(launch: Launch) -> NoReturn:
    """Become the daemon. The launch travels in memory only: it may hold a secret key."""
    values = {
        "settings": launch.settings.to_json(),
        "on_premises": launch.on_premises,
        "proxies": dict(launch.proxies),
    }
    descriptor = os.memfd_create("launch", 0)
    write_all(descriptor, json.dumps(values).encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    # -I: whatever lies in the working directory or in PYTHON* variables must not get into a root process.
    # -B: compiled modules are there, or are not made by us. Python does not always notice when a full disk takes only half
    # of one, and then no later process can load that module.
    arguments = [sys.executable, "-I", "-B", "-m", "agent.daemon", str(descriptor)]
    os.execve(sys.executable, arguments, initial_environment())  # noqa: S606


def receive_launch(descriptor: int) -> Launch:
    """The launch that `exec_daemon` left in this file descriptor."""
    with open(descriptor, "rb") as stream:
        values = json.loads(stream.read())
    return Launch(
        settings=Settings.from_json(values["settings"]),
        on_premises=values["on_premises"],
        proxies=values["proxies"],
    )
