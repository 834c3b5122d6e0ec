"""The endpoint asked for fewer requests: a pause that all processes of this agent keep."""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from typing import TYPE_CHECKING

from agent.files import replace_file

if TYPE_CHECKING:
    from pathlib import Path

_FIRST_S = 1.0
_LONGEST_S = 30.0


class SharedThrottle:
    """A pause that doubles each time, from 1 s to 30 s, and that ends with the first success."""

    def __init__(self, state_directory: Path) -> None:
        self._path = state_directory / "throttle.json"

    def wait_s(self) -> float:
        """Seconds for which nobody should send anything; 0 when there is no pause."""
        _, until = self._read()
        remaining = until - time.time()
        # No pause is that long: the clock was set back, and would make this one last for hours.
        return remaining if 0 < remaining <= _LONGEST_S else 0.0

    def extend(self) -> None:
        """Called when the endpoint throttles: the pause starts, or starts again twice as long."""
        level, until = self._read()
        if until > time.time():
            # Requests that were under way together count once.
            return
        pause = min(_FIRST_S * 2**level, _LONGEST_S)
        jittered = pause * random.uniform(0.75, 1.0)  # noqa: S311 - spreads load, hides nothing
        content = json.dumps({"level": min(level + 1, 5), "until": time.time() + jittered})
        with contextlib.suppress(OSError):
            replace_file(self._path, content.encode(), durable=False)

    def clear(self) -> None:
        """Called when a request succeeded."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def _read(self) -> tuple[int, float]:
        try:
            values = json.loads(self._path.read_bytes())
            return int(values["level"]), float(values["until"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0, 0.0
