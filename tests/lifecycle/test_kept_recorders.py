"""One process records the output of one event after the other: nothing of one gets into the next."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from agent.appspec import HookScript
from agent.lifecycle.context import ScriptPatience
from agent.lifecycle.recorder_shelf import RecorderShelf
from tests.lifecycle.traces import killing_recorder, read, recorders
from tests.waiting import is_running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lifecycle.conftest import Event


@pytest.fixture
def shelf(event: Event) -> Iterator[RecorderShelf]:
    """What a worker has; the event takes its recorders from there."""
    made = RecorderShelf()
    event.options["recorders"] = made
    yield made
    made.close()


def start_another_deployment(event: Event) -> None:
    """From now on the event is one of deployment d-NEXT, with logs of its own."""
    event.options["deployment_id"] = "d-NEXT"
    event.options["scripts_log"] = event.directory / "next-logs" / "scripts.log"


def test_the_next_event_has_the_same_recorder(event: Event, shelf: RecorderShelf) -> None:
    """To make one takes longer than most scripts."""
    event.run_one("#!/bin/sh\necho one\n")
    kept = recorders()
    event.run_one("#!/bin/sh\necho two\n")
    assert 1 == len(kept)
    assert kept == recorders()


def test_the_report_of_an_event_has_nothing_of_the_one_before(event: Event, shelf: RecorderShelf) -> None:
    """What another script printed last night sends people after the wrong fault."""
    event.run_one("#!/bin/sh\necho one; echo trouble >&2\n")
    assert "one" not in event.run_one("#!/bin/sh\necho two\n").tail
    failure = event.fail_one("#!/bin/sh\necho three; exit 1\n")
    assert "[stdout]three\n" in failure.log
    assert "trouble" not in failure.message + failure.log


def test_each_deployment_has_its_output_in_its_own_log(event: Event, shelf: RecorderShelf) -> None:
    """The recorder is the worker's, and that works for all groups."""
    event.run_one("#!/bin/sh\necho one\n")
    start_another_deployment(event)
    event.run_one("#!/bin/sh\necho two\n")
    assert "[stdout]two\n" not in read(event.scripts_log)
    assert "[stdout]two\n" in read(event.directory / "next-logs" / "scripts.log")
    assert "[d-NEW][stdout]one\n" in read(event.deployments_log)
    assert "[d-NEXT][stdout]two\n" in read(event.deployments_log)


def test_logs_that_were_removed_meanwhile_are_made_anew(event: Event, shelf: RecorderShelf) -> None:
    """Somebody tidied up between two events; files that nobody can find hold no output."""
    event.run_one("#!/bin/sh\necho one\n")
    shutil.rmtree(event.scripts_log.parent)
    event.run_one("#!/bin/sh\necho two\n")
    assert "[stdout]two\n" in read(event.scripts_log)


def test_a_recorder_that_was_killed_in_between_is_replaced(event: Event, shelf: RecorderShelf) -> None:
    """The kernel needed memory; the next event knows nothing of that."""
    event.run_one("#!/bin/sh\necho one\n")
    (killed,) = recorders()
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not is_running(killed))
    tail = event.run_one("#!/bin/sh\necho two\n").tail
    assert "[stdout]two\n" in tail
    assert "one" not in tail


def test_a_recorder_that_has_still_something_to_log_is_left_to_that(
    event: Event, shelf: RecorderShelf
) -> None:
    """The application that was started speaks into the log of its own deployment, not into that of the next one."""
    go = event.directory / "go"
    event.additions["GO"] = str(go)
    event.run_one('#!/bin/sh\n(until [ -e "$GO" ]; do sleep 0.01; done; echo late) &\n')
    start_another_deployment(event)
    event.run_one("#!/bin/sh\necho two\n")
    go.touch()
    wait_until(lambda: "[stdout]late\n" in read(event.scripts_log))
    assert "late" not in read(event.directory / "next-logs" / "scripts.log")


def test_a_failed_event_keeps_no_recorder(event: Event, shelf: RecorderShelf) -> None:
    """Nor does its worker stay."""
    event.fail(HookScript(location="none.sh"))
    wait_until(lambda: not recorders())


def test_a_recorder_that_was_stopped_in_between_is_replaced_before_a_script_runs(
    event: Event, shelf: RecorderShelf
) -> None:
    """A debugger has it, or a dead disk. A script that prints much would else wait for its timeout."""
    event.options["patience"] = ScriptPatience(recorder_s=0.2)
    event.run_one("#!/bin/sh\necho one\n")
    (stopped,) = recorders()
    os.kill(stopped, signal.SIGSTOP)
    try:
        log = event.fail_one(
            "#!/bin/sh\nhead -c 1000000 /dev/zero | tr '\\0' x; echo; echo two; exit 3\n"
        ).log
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(stopped, signal.SIGCONT)
    assert "LifecycleEvent - AfterInstall\nScript - h.sh\n[stdout]two\n" == log


def test_a_recorder_that_never_wrote_a_line_hands_on_nothing_of_the_event_before(
    event: Event, shelf: RecorderShelf
) -> None:
    """The disk is full, and the kernel needs memory: the report then has little, but nothing of another script."""
    event.run_one("#!/bin/sh\necho one; echo trouble >&2\n")
    ready = event.directory / "ready"
    event.options["event"] = "ApplicationStart"

    event.cancelled = killing_recorder(ready)
    script = f"#!/bin/sh\ntouch {ready}; while [ -e {ready} ]; do sleep 0.01; done; exit 3\n"
    with full_disk(event.scripts_log):
        failure = event.fail_one(script)
    assert "trouble" not in failure.message + failure.log
    assert "one" not in failure.log


@contextlib.contextmanager
def full_disk(log: Path) -> Iterator[None]:
    """Meanwhile nothing more can be written to this log."""
    # No process of ours can write more to any file; what is there already is as long as that.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for recorder in (0, *recorders()):
        resource.prlimit(recorder, resource.RLIMIT_FSIZE, (log.stat().st_size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
