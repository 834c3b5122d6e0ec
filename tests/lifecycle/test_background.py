"""Scripts that leave something running which still holds their output."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.appspec import HookScript
from agent.lifecycle.context import ScriptPatience
from agent.lifecycle.recorder_client import Recorder
from agent.lifecycle.script_log import ScriptLog
from agent.lifecycle.streams import ScriptStreams
from tests.lifecycle.isolation import IsolatedFailure, run_isolated
from tests.lifecycle.traces import killing_recorder, read, recorders
from tests.waiting import is_running, wait_until

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

    def end(self) -> None:
        if self.pids.exists() and is_running(self.pid):
            os.kill(self.pid, signal.SIGKILL)


@pytest.fixture
def application(event: Event) -> Iterator[Application]:
    made = Application(event)
    yield made
    made.end()


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
    wait_until(lambda: not recorders())


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
    event.options.update(fail_on_open_output=True, patience=ScriptPatience(open_output_s=0.3))
    failure = event.fail_one(APPLICATION)
    assert (failure.error_id, int(failure.code)) == ("hook-output-left-open", 6)
    assert f"pid {application.pid} " in failure.message
    assert is_running(application.pid)


def test_where_open_output_is_a_failure_a_background_process_has_time_to_end(event: Event) -> None:
    """Only what stays is meant."""
    event.options["fail_on_open_output"] = True
    log = event.run_one("#!/bin/bash\n(sleep 0.2; echo late) &\necho main-done\n")
    assert log.tail.endswith("[stdout]main-done\n[stdout]late\n")


def test_the_exit_code_counts_more_than_open_output(event: Event, application: Application) -> None:
    """A script that failed has failed, whatever it left running."""
    event.options["fail_on_open_output"] = False
    assert event.fail_one(APPLICATION + "exit 3\n").error_id == "hook-failed"
    assert is_running(application.pid)


def test_a_daemon_with_its_output_elsewhere_needs_nobody(event: Event, application: Application) -> None:
    """The proper way costs nothing: no grace, no process that reads on."""
    start = time.monotonic()
    event.run_one("#!/bin/bash\nsetsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > $P\n")
    assert time.monotonic() - start < 0.4
    wait_until(lambda: not recorders())


def test_what_an_earlier_script_left_running_is_logged_during_the_later_ones(
    event: Event, application: Application
) -> None:
    """The application is started by one script, and what it says matters while the next one checks it."""
    event.additions["LOG"] = str(event.scripts_log)
    event.write("start.sh", APPLICATION)
    event.write(
        "check.sh", '#!/bin/bash\necho go > $FIFO\nuntil grep -q "stderr.late" "$LOG"; do sleep 0.01; done\n'
    )
    log = event.run(HookScript(location="start.sh"), HookScript(location="check.sh", timeout_s=10))
    assert log.tail.endswith("Script - check.sh\n[stdout]late\n[stderr]late error\n")


def test_a_killed_worker_loses_nothing_of_what_its_script_prints(
    event: Event, application: Application
) -> None:
    """Out of memory: the worker is killed with its script still running, and nobody else is there yet."""

    def be_killed() -> bool:
        if application.pids.exists() and application.pids.read_text():
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    event.cancelled = be_killed
    event.write("h.sh", f"{APPLICATION}printf 'no line end'; wait; echo the end; echo $? > $DONE.main\n")
    with pytest.raises(IsolatedFailure):
        run_isolated(lambda: event.run(HookScript(location="h.sh")).tail)
    application.go_on()
    wait_until(lambda: read(Path(f"{application.done}.main")) == "0\n")
    wait_until(lambda: "[stdout]no line endlate\n" in read(event.scripts_log))
    wait_until(lambda: "[stdout]the end\n" in read(event.scripts_log))
    assert "[stderr]late error\n" in read(event.scripts_log)


def test_a_script_survives_the_end_of_everything_else(event: Event, application: Application) -> None:
    """Even with worker and recorder killed, no broken pipe ends what the script does."""

    def be_killed() -> bool:
        if application.pids.exists() and application.pids.read_text():
            for pid in (*recorders(), os.getpid()):
                os.kill(pid, signal.SIGKILL)
        return False

    event.cancelled = be_killed
    with pytest.raises(IsolatedFailure):
        run_isolated(lambda: event.run_one(f"{APPLICATION}wait\n").tail)
    application.go_on()
    wait_until(lambda: read(application.done) == "0\n")


def test_what_nobody_reads_any_more_waits_once_its_pipe_is_full_and_is_not_killed(
    event: Event, application: Application
) -> None:
    """The limit of what can be done when everything of ours has been killed; whoever reads the pipe sets it free."""

    def be_killed() -> bool:
        if application.pids.exists() and application.pids.read_text():
            for pid in (*recorders(), os.getpid()):
                os.kill(pid, signal.SIGKILL)
        return False

    event.cancelled = be_killed
    much = "#!/bin/bash\n( read -r line < $FIFO; head -c 1000000 /dev/zero; echo $? > $DONE ) &\necho $! > $P\nwait\n"
    with pytest.raises(IsolatedFailure):
        run_isolated(lambda: event.run_one(much).tail)
    with open(f"/proc/{application.pid}/fd/1", "rb", buffering=0) as pipe:
        application.go_on()
        wait_until(lambda: waiting_bytes(pipe.fileno()) >= 65536)
        assert is_running(application.pid)
        while not application.done.exists() and waiting_bytes(pipe.fileno()):
            pipe.read(2**20)
            wait_until(lambda: waiting_bytes(pipe.fileno()) or application.done.exists())
        wait_until(lambda: read(application.done) == "0\n")


def waiting_bytes(pipe: int) -> int:
    """How much has been written to the pipe that nobody has read."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_a_killed_recorder_is_replaced(event: Event, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing that happens to a process of ours may fail a script, or lose what it prints from then on."""
    ready = event.directory / "ready"
    event.cancelled = killing_recorder(ready)
    event.run_one(f"#!/bin/bash\ntouch {ready}; while [ -e {ready} ]; do sleep 0.01; done; echo after\n")
    assert "[stdout]after\n" in read(event.scripts_log)
    assert "hook_output_recorder_replaced" in capfd.readouterr().err


def test_the_report_holds_what_came_before_the_recorder_was_replaced(event: Event) -> None:
    """The error that explains the failure may be there."""
    ready = event.directory / "ready"
    event.scripts_log.parent.mkdir()
    event.scripts_log.write_text("2025-03-01 12:00:00 LifecycleEvent - BeforeInstall\n")

    event.cancelled = killing_recorder(ready)
    script = f"#!/bin/bash\necho error: x >&2\ntouch {ready}; while [ -e {ready} ]; do sleep 0.01; done; echo after\n"
    log = event.fail_one(f"{script}exit 1\n").log
    assert log == "LifecycleEvent - AfterInstall\nScript - h.sh\n[stderr]error: x\n[stdout]after\n"


def test_when_the_last_output_came_is_not_claimed_after_the_recorder_was_replaced(event: Event) -> None:
    """`It had printed nothing` would send people looking in the wrong place."""
    killed: list[int] = []

    def kill_recorder() -> bool:
        if not killed and "out" in read(event.scripts_log):
            killed.extend(recorders())
            os.kill(killed[0], signal.SIGKILL)
        return False

    event.cancelled = kill_recorder
    failure = event.fail_one("#!/bin/bash\necho out\nsleep 1000\n", timeout_s=1)
    assert killed
    assert "When its last output came is not known." in failure.message


def test_a_recorder_is_the_last_that_is_killed_when_memory_runs_out(event: Event) -> None:
    """Without it, whatever still prints waits for ever; it is tiny, so nothing would be won."""
    event.run_one(f"#!/bin/bash\nsleep 1000 & echo $! > {event.directory}/pid\n")
    (recorder,) = recorders()
    os.kill(int(read(event.directory / "pid")), signal.SIGKILL)

    def lowest_allowed() -> str:
        adjustment = Path("/proc/self/oom_score_adj")
        with contextlib.suppress(OSError):
            adjustment.write_text("-1000")
        return adjustment.read_text()

    assert Path(f"/proc/{recorder}/oom_score_adj").read_text() == run_isolated(lowest_allowed)


def test_a_script_goes_on_where_no_recorder_is_to_be_had(
    event: Event, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A host without a free process: the result of the deployment counts more than what it printed."""
    ready, done = event.directory / "ready", event.directory / "done"

    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    def kill_recorder() -> bool:
        if ready.exists():
            monkeypatch.setattr(os, "fork", refuse)
            os.kill(recorders()[0], signal.SIGKILL)
            ready.unlink()
        return False

    event.cancelled = kill_recorder
    event.run_one(
        f"#!/bin/bash\ntouch {ready}; while [ -e {ready} ]; do sleep 0.01; done; echo x; touch {done}\n"
    )
    assert done.exists()
    assert capfd.readouterr().err.count("hook_output_not_recorded") == 1


def test_a_log_that_could_not_be_written_is_named_once(
    event: Event, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whoever misses the output finds the reason in the agent's log, but not a thousand times."""
    event.options["deployments_log"] = Path("/dev/full")
    event.write("h.sh", "#!/bin/bash\necho out\n")
    event.run(*[HookScript(location="h.sh")] * 3)
    lines = [line for line in capfd.readouterr().err.splitlines() if "script_log_not_written" in line]
    assert len(lines) == 1
    assert "/dev/full: No space left on device" in lines[0]


def test_what_an_application_prints_all_its_life_does_not_fill_the_disk(event: Event) -> None:
    """Only the beginning is logged; the rest is dropped, and it never blocks or kills the application."""
    streams, recorder = _late_output(event, late_s=60, late_bytes=1000)
    recorder.close()
    for _ in range(100):
        os.write(streams.stdout, b"x" * 9999 + b"\n")
    wait_until(lambda: "from here on is dropped" in read(event.scripts_log))
    streams.close()
    assert event.scripts_log.stat().st_size < 700_000


def test_the_process_that_drops_the_rest_is_small(event: Event) -> None:
    """It may live for months beside the application."""
    streams, recorder = _late_output(event, late_s=0, late_bytes=1000)
    recorder.close()
    wait_until(lambda: Path(f"/proc/{recorder.pid}/comm").read_text(encoding="ascii") == "cat\n")
    os.write(streams.stdout, b"x" * 200_000)
    assert is_running(recorder.pid)
    streams.close()


def _late_output(event: Event, *, late_s: float, late_bytes: int) -> tuple[ScriptStreams, Recorder]:
    """Streams that somebody still writes to, and who records them."""
    recorder = Recorder(ScriptLog(event.scripts_log, None, "d-NEW"), late_s=late_s, late_bytes=late_bytes)
    streams = ScriptStreams()
    with recorder.following(streams.readers):
        pass
    return streams, recorder
