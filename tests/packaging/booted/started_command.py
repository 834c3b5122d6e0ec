"""A command that runs while others do."""

from __future__ import annotations

import subprocess
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class StartedCommand:
    """Runs from here on. What it prints goes to a file, so it never waits for somebody who reads."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = command
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        self._popen = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=self._output, stderr=self._output
        )

    def finish(self, within_s: float = 150) -> None:
        """It has ended, and well."""
        try:
            code = self._popen.wait(within_s)
        except subprocess.TimeoutExpired:
            code = None
        self._output.seek(0)
        printed = self._output.read().decode(errors="replace")
        self.end()
        assert code == 0, f"{' '.join(self._command)} ended with {code}:\n{printed}"

    def end(self) -> None:
        """It does not run any more; nothing happens when it had ended before."""
        self._popen.kill()
        self._popen.wait()
        self._output.close()
