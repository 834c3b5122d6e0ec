"""The one place that configures logging: what a line looks like, and where it goes.

Workers and agentctl log through structlog. The daemon writes the same lines through `Log`, because
structlog alone would add a third to its memory at rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from agent.rotation import RotatingFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping
    from pathlib import Path

_PLAIN = re.compile(r"[\w.:/+@%,-]+")


class Level(IntEnum):
    """How much a line matters; the numbers are those of the standard library."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


_LEVELS = {
    "debug": Level.DEBUG,
    "info": Level.INFO,
    "warning": Level.WARNING,
    "error": Level.ERROR,
    "exception": Level.ERROR,
}


# What stands before a line in the journal, and is taken off there; see sd-daemon(3).
_PRIORITIES = {Level.DEBUG: "<7>", Level.INFO: "<6>", Level.WARNING: "<4>", Level.ERROR: "<3>"}


def write_to_stderr(text: str, level: Level) -> None:
    """Write these lines to standard error; where that is the journal, each of them has its priority.

    So `journalctl -p err` shows what failed. What can't be written is dropped.
    """
    mark = _PRIORITIES[level] if _stderr_is_journal() else ""
    marked = "".join(f"{mark}{line}\n" for line in text.split("\n"))
    with contextlib.suppress(OSError):
        os.write(2, marked.encode("utf-8", "backslashreplace"))


def _stderr_is_journal() -> bool:
    """Whether the stream that systemd has connected with the journal is still our standard error."""
    stream = os.environ.get("JOURNAL_STREAM")
    if not stream:
        return False
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


class LogSink:
    """Takes finished lines: to a file, when there is one, and to standard error.

    A log that can't be written never stops the work: such lines are dropped.
    """

    def __init__(self, path: Path | None, *, level: Level = Level.INFO, to_stderr: bool = True) -> None:
        self.level = level
        self._file = RotatingFile(path) if path else None
        self._to_stderr = to_stderr

    def write(self, line: str, level: Level) -> None:
        """Append this line (without line end), which matters so much, wherever lines go."""
        if self._file:
            with contextlib.suppress(OSError):
                self._file.write(line.encode("utf-8", "backslashreplace") + b"\n")
        if self._to_stderr:
            write_to_stderr(line, level)


class Log:
    """What the daemon logs with; the calls are those of a structlog logger."""

    __slots__ = ("_fields", "_sink")

    def __init__(self, sink: LogSink, **fields: Any) -> None:
        self._sink = sink
        self._fields = fields

    def bind(self, **fields: Any) -> Log:
        """A log whose lines also have these fields."""
        return Log(self._sink, **{**self._fields, **fields})

    def debug(self, event: str, **fields: Any) -> None:
        """What only somebody who looks for a fault wants to see."""
        self._write(Level.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """A decision, or a change of state."""
        self._write(Level.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Somebody should look at it; the work goes on."""
        self._write(Level.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Something failed."""
        self._write(Level.ERROR, event, fields)

    def _write(self, level: Level, event: str, fields: Mapping[str, Any]) -> None:
        if level >= self._sink.level:
            line = render_line(time.time(), level, event, {**self._fields, **fields})
            self._sink.write(line, level)


def render_line(at: float, level: Level, event: str, fields: Mapping[str, Any]) -> str:
    """One log line: UTC time, level, event, then `name=value` for each field that is not None.

    Args:
        at: seconds since the epoch.
        level: how much it matters.
        event: a constant snake_case name.
        fields: facts; texts that hold blanks or quotes are written as JSON strings.
    """
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
    facts = [f"{name}={_render_value(value)}" for name, value in fields.items() if value is not None]
    return " ".join([f"{whole}.{int(at % 1 * 1000):03d}Z", f"{level.name:<7}", event, *facts])


def _render_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, (list, tuple, set, frozenset)):
        value = ",".join(str(item) for item in value)
    elif isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


class CommandLog:
    """Where the log lines of this process go, and the fields that all of them have.

    One per process, because a worker carries one command. structlog is loaded with the first line
    that is really written: that costs more than a command without scripts may take in all.
    """

    def __init__(self) -> None:
        self._sink = LogSink(None, level=Level.WARNING)
        self._fields: dict[str, Any] = {}
        self._structlog: Any = None

    def configure(self, sink: LogSink) -> None:
        """From now on lines go to this sink, without fields of their own."""
        self._sink = sink
        self._fields = {}
        self._structlog = None

    def begin(self, **fields: Any) -> None:
        """From now on every line has these fields, and no others."""
        self._fields = fields

    def bind(self, **fields: Any) -> None:
        """From now on every line has these fields, too."""
        self._fields.update(fields)

    def write(self, method: str, event: str, fields: Mapping[str, Any]) -> None:
        """Write a line, unless its level is too low."""
        level = _LEVELS[method]
        if level >= self._sink.level:
            getattr(self._logger(), method)(event, **{**self._fields, **fields})

    def _logger(self) -> Any:
        if self._structlog is None:
            import structlog  # noqa: PLC0415 - see above

            structlog.configure(
                processors=[structlog.processors.format_exc_info, _render],
                wrapper_class=structlog.make_filtering_bound_logger(int(self._sink.level)),
                logger_factory=lambda *_args: _SinkLogger(self._sink),
                cache_logger_on_first_use=False,
            )
            self._structlog = structlog.get_logger()
        return self._structlog


command_log = CommandLog()


class RoomLogger:
    """What modules log with: `log = get_logger()` at their top."""

    __slots__ = ()

    def debug(self, event: str, **fields: Any) -> None:
        """What only somebody who looks for a fault wants to see."""
        command_log.write("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """A decision, or a change of state."""
        command_log.write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Somebody should look at it; the work goes on."""
        command_log.write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Something failed."""
        command_log.write("error", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """Something failed that nobody thought of; with the traceback."""
        command_log.write("exception", event, fields)


def get_logger() -> RoomLogger:
    """A logger for the top of a module; cheap, and usable before anything is configured."""
    return RoomLogger()


def _render(_logger: Any, method: str, event_dict: MutableMapping[str, Any]) -> str:
    """The last structlog processor: a finished line."""
    event = str(event_dict.pop("event", ""))
    return render_line(time.time(), _LEVELS[method], event, event_dict)


class _SinkLogger:
    """What structlog hands finished lines to, by the name of their level."""

    def __init__(self, sink: LogSink) -> None:
        self._sink = sink

    def __getattr__(self, method: str) -> Callable[[str], None]:
        level = _LEVELS[method]
        return lambda line: self._sink.write(line, level)


def stderr_log(level: Level = Level.WARNING) -> LogSink:
    """A sink for agentctl: standard error only."""
    sys.stderr.flush()
    return LogSink(None, level=level)
