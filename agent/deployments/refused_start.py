"""Why the agent last refused to start: for `agentctl status`, which is asked after the fact."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from agent.files import FileDamaged, read_file, replace_file

if TYPE_CHECKING:
    from pathlib import Path

    from agent.errors import AgentError


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedStart:
    """A start that came to nothing. `at` is seconds since the epoch."""

    at: float
    error_id: str
    message: str


class RefusedStartFile:
    """`refused-start.json` in the state directory; readable by everybody, it holds no secret."""

    def __init__(self, state_directory: Path) -> None:
        self.path = state_directory / "refused-start.json"

    def note(self, error: AgentError) -> None:
        """Keep why this start is refused, if that is possible: the directory may be just what can't be used."""
        refused = RefusedStart(at=time.time(), error_id=error.error_id, message=error.message)
        with contextlib.suppress(OSError):
            replace_file(self.path, json.dumps(asdict(refused)).encode(), durable=False)

    def clear(self) -> None:
        """The agent has started."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    def read(self) -> RefusedStart | None:
        """The start that was refused since the agent last ran; None when there was none.

        Raises:
            FileDamaged: there was one, and that is all that is known.
            OSError: it can't be read.
        """
        try:
            values = json.loads(read_file(self.path))
            return RefusedStart(at=values["at"], error_id=values["error_id"], message=values["message"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise FileDamaged(self.path) from None
