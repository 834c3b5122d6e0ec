"""How many processes the kernel of this host has killed for lack of memory."""

from __future__ import annotations


def count_oom_kills() -> int | None:
    """Since boot, in all control groups; None where the kernel does not count them (before 4.13)."""
    try:
        with open("/proc/vmstat", "rb") as file:
            for line in file:
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None
