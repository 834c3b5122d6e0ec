"""Scripts that leave something running which still holds their output."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.lifecycle.capture import Capture
from agent.lifecycle.keeper import keep_reading
from agent.lifecycle.script_log import ScriptLog
from tests.lifecycle.isolation import run_isolated
from tests.lifecycle.waiting import is_running, read, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lifecycle.conftest import Event

# An application that waits for a line in the FIFO, prints, and says how that went.
APPLICATION = """#!/bin/bash
( read -r line < $FIFO; echo late; echo "late error" >&2; echo $? > $DONE ) &
echo $! > $P
echo main-done
"""


class Application:
    """What the script leaves running, and how to make it go on."""

    def __init__(self, event: Event) -> None:
        self.fifo, self.done, self.pids = (event.directory / name for name in ("fifo", "done", "pids"))
        os.mkfifo(self.fifo)
        event.additions.update({"FIFO": str(self.fifo), "DONE": str(self.done), "P": str(self.pids)})

    @property
    def pid(self) -> int:
        return int(read(self.pids))

    def go_on(self) -> None:
        self.fifo.write_text("go\n")


@pytest.fixture
def application(event: Event) -> Iterator[Application]:
    made = Application(event)
    yield made
    if made.pids.exists() and is_running(made.pid):
        os.kill(made.pid, signal.SIGKILL)


def readers() -> list[int]:
    """Pids of the processes that read on for this one."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    names = {int(pid): Path(f"/proc/{pid}/comm") for pid in children}
    return [pid for pid, name in names.items() if is_running(pid) and name.read_text() == "hook-output\n"]


def test_a_script_ends_with_its_main_process(event: Event, application: Application) -> None:
    """`node app.js &` in ApplicationStart must not hang the deployment until the timeout."""
    start = time.monotonic()
    log = event.run_one(APPLICATION)
    assert time.monotonic() - start < 3
    assert log.tail == "LifecycleEvent - AfterInstall\nScript - h.sh\n[stdout]main-done\n"
    assert is_running(application.pid)


def test_what_it_left_running_is_named(
    event: Event, application: Application, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whoever wonders where the application's output goes finds out here."""
    event.run_one(APPLICATION)
    line = next(line for line in capfd.readouterr().err.splitlines() if "hook_output_left_open" in line)
    assert f"pid {application.pid} " in line
    assert "h.sh" in line


def test_what_it_left_running_may_go_on_printing(event: Event, application: Application) -> None:
    """A broken pipe would kill an application at some later time, without a trace."""
    event.run_one(APPLICATION)
    application.go_on()
    wait_until(lambda: read(application.done) == "0\n")
    wait_until(lambda: "[stdout]late\n" in read(event.scripts_log))
    wait_until(lambda: "[d-NEW][stderr]late error\n" in read(event.deployments_log))
    wait_until(lambda: not readers())


def test_it_may_go_on_printing_when_the_agent_has_gone(event: Event, application: Application) -> None:
    """Workers end with their command; agents are restarted and upgraded."""
    run_isolated(lambda: event.run_one(APPLICATION).tail)
    application.go_on()
    wait_until(lambda: read(application.done) == "0\n")
    wait_until(lambda: "[stdout]late\n" in read(event.scripts_log))


def test_it_may_go_on_printing_when_the_deployment_has_been_cleaned_up(
    event: Event, application: Application
) -> None:
    """Retention removes the deployment's directory while its application still runs."""
    event.run_one(APPLICATION)
    event.scripts_log.unlink()
    event.scripts_log.parent.rmdir()
    application.go_on()
    wait_until(lambda: read(application.done) == "0\n")


def test_a_host_may_want_open_output_to_be_a_failure(event: Event, application: Application) -> None:
    """`fail_on_open_output: true` is what the existing agents did; code 6."""
    event.options["fail_on_open_output"] = True
    failure = event.fail_one(APPLICATION)
    assert (failure.error_id, int(failure.code)) == ("hook-output-left-open", 6)
    assert f"pid {application.pid} " in failure.message
    assert is_running(application.pid)


def test_where_open_output_is_a_failure_a_background_process_has_time_to_end(event: Event) -> None:
    """Only what stays is meant."""
    event.options["fail_on_open_output"] = True
    log = event.run_one("#!/bin/bash\n(sleep 1; echo late) &\necho main-done\n")
    assert log.tail.endswith("[stdout]main-done\n[stdout]late\n")


def test_the_exit_code_counts_more_than_open_output(event: Event, application: Application) -> None:
    """A script that failed has failed, whatever it left running."""
    event.options["fail_on_open_output"] = False
    assert event.fail_one(APPLICATION + "exit 3\n").error_id == "hook-failed"
    assert is_running(application.pid)


def test_a_daemon_with_its_output_elsewhere_needs_nobody(event: Event, application: Application) -> None:
    """The proper way costs nothing: no grace, no process that reads on."""
    before = readers()
    start = time.monotonic()
    event.run_one("#!/bin/bash\nsetsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > $P\n")
    assert time.monotonic() - start < 0.4
    assert set(readers()) <= set(before)


@pytest.fixture
def late_output(event: Event) -> Iterator[tuple[Capture, ScriptLog, int]]:
    """Streams with a writing end that is still open."""
    log = ScriptLog(event.scripts_log, None, "d-NEW")
    capture = Capture(log)
    writer = os.dup(capture.stdout)
    yield capture, log, writer
    capture.close()
    os.close(writer)


def test_what_an_application_prints_all_its_life_does_not_fill_the_disk(
    event: Event, late_output: tuple[Capture, ScriptLog, int]
) -> None:
    """Only the beginning is logged; the rest is dropped, and it never blocks or kills the application."""
    capture, log, writer = late_output
    keep_reading(capture, log, logged_bytes=1000)
    capture.close_writers()
    for _ in range(100):
        os.write(writer, b"x" * 9999 + b"\n")
    wait_until(lambda: "from here on is dropped" in read(event.scripts_log))
    assert event.scripts_log.stat().st_size < 700_000


def test_the_process_that_drops_the_rest_is_small(
    event: Event, late_output: tuple[Capture, ScriptLog, int]
) -> None:
    """It may live for months beside the application."""
    capture, log, writer = late_output
    reader = keep_reading(capture, log, logged_s=0)
    capture.close_writers()
    wait_until(lambda: Path(f"/proc/{reader}/comm").read_text(encoding="ascii") == "cat\n")
    os.write(writer, b"x" * 200_000)
    assert is_running(reader)
