"""What threads there are, whoever started them."""

from __future__ import annotations

import os


def thread_count() -> int:
    """Number of threads of this process; Python does not list those that it is not told of."""
    return len(os.listdir("/proc/self/task"))
