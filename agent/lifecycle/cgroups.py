"""Staying in the control groups of the agent's service.

Where PAM tells systemd-logind of a session, that moves the process into a group of the session, and ends
what is left there with the session on hosts with KillUserProcesses=yes: also an application that the
script has started. And limits on the agent's service would not count for such scripts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """In which group a process is: a line of /proc/PID/cgroup.

    `controllers` is empty for the unified hierarchy, else as the kernel writes it: `cpu,cpuacct`, `name=systemd`.
    """

    controllers: str
    path: str


def own_memberships() -> frozenset[Membership]:
    """Those of this process; empty where that is not known."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return frozenset()
    fields = (line.split(":", 2) for line in lines)
    return frozenset(
        Membership(controllers=controllers, path=path) for _, controllers, path in fields if path
    )


def return_to(memberships: frozenset[Membership]) -> bool:
    """Afterwards this process is in these groups again, whoever has moved it; False where that was not possible."""
    return all(_enter(membership) for membership in memberships - own_memberships())


def _enter(membership: Membership) -> bool:
    for mount_point, controllers in _hierarchies():
        if controllers == set(filter(None, membership.controllers.split(","))):
            group = f"{mount_point}/{membership.path.lstrip('/')}"
            try:
                Path(group, "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
            except OSError:
                continue
            return True
    return False


def _hierarchies() -> list[tuple[str, set[str]]]:
    """Where each hierarchy is mounted, and what it is for; nothing for the unified one."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        place, _, kind = line.partition(" - ")
        fields, (file_system, _, options) = place.split(), kind.split(" ", 2)
        if file_system == "cgroup2":
            found.append((fields[4], set[str]()))
        elif file_system == "cgroup":
            found.append((fields[4], _controllers(options)))
    return found


def _controllers(options: str) -> set[str]:
    """Of the super block's options, those that name controllers, as in `rw,cpu,cpuacct`."""
    general = {"rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "all"}
    return {
        option
        for option in options.split(",")
        if option not in general and not option.startswith("release_agent=")
    }
