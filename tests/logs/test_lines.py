"""What a log line looks like, and that writing one never stops the work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.logs import Level, Log, LogSink, render_line
from tests.daemon.agent_process import clean_environment

AT = 1_700_000_000.0426


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ""),
        ({"a": 1, "b": "x"}, " a=1 b=x"),
        ({"path": "/tmp/a-b.c:1", "percent": "5%"}, " path=/tmp/a-b.c:1 percent=5%"),
        ({"text": "two words"}, ' text="two words"'),
        ({"text": 'a "quoted" one'}, ' text="a \\"quoted\\" one"'),
        ({"text": "two\nlines\tand\x1b[31m more"}, ' text="two\\nlines\\tand\\u001b[31m more"'),
        ({"text": ""}, ' text=""'),
        ({"text": "a=b"}, ' text="a=b"'),
        ({"name": "größe"}, " name=größe"),
        ({"none": None, "no": False, "zero": 0}, " no=False zero=0"),
        ({"seconds": 0.1, "whole": 2.0, "long": 1 / 3}, " seconds=0.1 whole=2 long=0.333"),
        ({"names": ["a", "b"], "none": []}, ' names=a,b none=""'),
        ({"found": {"a": Path("/x")}}, ' found={"a": "/x"}'),
    ],
)
def test_facts_follow_the_event_as_name_and_value(fields: dict[str, object], expected: str) -> None:
    """One line per event, for people and for grep; what could be taken for the next field is quoted."""
    line = render_line(AT, Level.INFO, "poll_failed", fields)
    assert f"2023-11-14T22:13:20.042Z INFO    poll_failed{expected}" == line


def test_no_field_can_make_a_line_of_its_own() -> None:
    """A deployment must not be able to write false lines into the log."""
    hostile = "x\n2023-11-14T22:13:20.042Z ERROR   all_is_lost\r\x85\u2028"
    line = render_line(
        AT, Level.INFO, "event", {"name": hostile, "names": [hostile], "found": {hostile: hostile}}
    )
    assert "\n" not in line
    assert "\r" not in line


@pytest.mark.parametrize("level", list(Level))
def test_a_sink_drops_what_is_below_its_level(tmp_path: Path, level: Level) -> None:
    """`verbose` is off for a reason."""
    path = tmp_path / "log"
    log = Log(LogSink(path, level=level, to_stderr=False)).bind(command="Install")
    log.debug("polled")
    log.info("agent_started", pid=1)
    log.warning("poll_failed")
    log.error("worker_died")
    written = path.read_text().splitlines() if path.exists() else []
    lines = [line.split(" ", 1)[1] for line in written]
    expected = {
        Level.DEBUG: "DEBUG   polled command=Install",
        Level.INFO: "INFO    agent_started command=Install pid=1",
        Level.WARNING: "WARNING poll_failed command=Install",
        Level.ERROR: "ERROR   worker_died command=Install",
    }
    assert [text for of_level, text in expected.items() if of_level >= level] == lines


def test_a_bound_field_belongs_to_the_bound_log_only(tmp_path: Path) -> None:
    """One command's identifier must not stick to the next one's lines."""
    log = Log(LogSink(tmp_path / "log", to_stderr=False))
    log.bind(command="Install").info("one")
    log.info("two")
    assert ["one command=Install", "two"] == [
        line.split("INFO    ")[1] for line in (tmp_path / "log").read_text().splitlines()
    ]


def run_python(
    script: str, *arguments: object, stderr: int | None = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter: structlog is configured once per process."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        check=False,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env=clean_environment(),
        cwd=Path(__file__).parents[2],
    )


BOTH = """
import sys
from pathlib import Path
from agent.logs import Level, Log, LogSink, command_log, get_logger
path, facts = Path(sys.argv[1]), {"error": 'no "way" out', "names": ["a", "b"], "run_s": 1.5, "none": None}
sink = LogSink(path, to_stderr=False)
Log(sink).bind(command="Install").warning("worker_died", **facts)
assert "structlog" not in sys.modules
command_log.configure(sink)
command_log.bind(command="Install")
room = get_logger()
room.debug("unseen")
assert "structlog" not in sys.modules
room.warning("worker_died", **facts)
assert "structlog" in sys.modules
"""


def test_daemon_and_workers_write_the_same_line_for_the_same_event(tmp_path: Path) -> None:
    """One log, one format; and a line that nobody sees does not cost a library."""
    done = run_python(BOTH, tmp_path / "log")
    assert 0 == done.returncode, done.stderr
    first, second = [line.split(" ", 1)[1] for line in (tmp_path / "log").read_text().splitlines()]
    assert first == second
    assert 'WARNING worker_died command=Install error="no \\"way\\" out" names=a,b run_s=1.5' == first


CRASH = """
import sys
from pathlib import Path
from agent.logs import LogSink, command_log, get_logger
command_log.configure(LogSink(Path(sys.argv[1]), to_stderr=False))
try:
    raise RuntimeError("broken")
except RuntimeError:
    get_logger().exception("command_crashed")
"""


def test_a_bug_is_logged_with_its_traceback_in_one_line(tmp_path: Path) -> None:
    """So that it can be reported, and found."""
    done = run_python(CRASH, tmp_path / "log")
    assert 0 == done.returncode, done.stderr
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert " ERROR   command_crashed " in line
    assert "RuntimeError: broken" in line
    assert "Traceback (most recent call last)" in line


JOURNAL = """
import sys
from pathlib import Path
from agent.logs import Level, Log, LogSink, command_log, get_logger, write_to_stderr
sink = LogSink(Path(sys.argv[1]), level=Level.DEBUG)
log = Log(sink)
log.debug("of_daemon")
log.info("of_daemon")
log.warning("of_daemon")
log.error("of_daemon")
command_log.configure(sink)
get_logger().info("of_worker")
get_logger().warning("of_worker")
try:
    raise RuntimeError("broken")
except RuntimeError:
    get_logger().exception("of_worker")
write_to_stderr("Traceback:\\n  line 1", Level.ERROR)
"""


def run_with_journal(tmp_path: Path, *, is_ours: bool) -> list[str]:
    """What a process writes to standard error, with JOURNAL_STREAM as systemd sets it; or that of another stream."""
    path = tmp_path / "stderr"
    with path.open("wb") as stream:
        status = os.fstat(stream.fileno())
        named = f"{status.st_dev}:{status.st_ino + (not is_ours)}"
        done = subprocess.run(
            [sys.executable, "-c", JOURNAL, tmp_path / "log"],
            check=False,
            stderr=stream,
            env=clean_environment(JOURNAL_STREAM=named),
            cwd=Path(__file__).parents[2],
        )
    assert 0 == done.returncode, path.read_text()
    return path.read_text().splitlines()


def test_in_the_journal_every_line_has_its_priority(tmp_path: Path) -> None:
    """`journalctl -p err` shows what failed, also of workers, and a traceback whole."""
    lines = run_with_journal(tmp_path, is_ours=True)
    assert ["<7>", "<6>", "<4>", "<3>", "<6>", "<4>", "<3>", "<3>", "<3>"] == [line[:3] for line in lines]
    assert ["<3>Traceback:", "<3>  line 1"] == lines[-2:]
    assert not any(line.startswith("<") for line in (tmp_path / "log").read_text().splitlines())


def test_elsewhere_no_line_has_a_priority(tmp_path: Path) -> None:
    """Systemd has set the variable, and somebody has sent the output to a file."""
    lines = run_with_journal(tmp_path, is_ours=False)
    assert not any(line.startswith("<") for line in lines)


NOWHERE = """
import os, sys
from pathlib import Path
from agent.logs import Log, LogSink, command_log, get_logger
if sys.argv[2] == "closed":
    os.close(2)
sink = LogSink(Path(sys.argv[1]))
Log(sink).error("daemon_speaks", name="\\ud800")
command_log.configure(sink)
get_logger().error("worker_speaks")
print("alive")
"""


@pytest.mark.parametrize("stderr", ["open", "closed"])
def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, stderr: str) -> None:
    """Deployments go on when the disk is full: /dev/full is one that always is."""
    done = run_python(NOWHERE, "/dev/full", stderr)
    assert (0, "alive\n") == (done.returncode, done.stdout), done.stderr
    if stderr == "open":
        assert ["daemon_speaks", "worker_speaks"] == [line.split()[2] for line in done.stderr.splitlines()]


def test_a_missing_log_directory_stops_nothing(tmp_path: Path) -> None:
    """Somebody removed it under a running agent."""
    done = run_python(NOWHERE, tmp_path / "gone" / "log", "open")
    assert (0, "alive\n") == (done.returncode, done.stdout), done.stderr


def test_a_full_pipe_on_standard_error_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    """Whoever reads the output has died."""
    reader, writer = os.pipe()
    os.close(reader)
    done = run_python(NOWHERE, tmp_path / "log", "open", stderr=writer)
    os.close(writer)
    assert (0, "alive\n") == (done.returncode, done.stdout)
    assert 2 == len((tmp_path / "log").read_text().splitlines())
