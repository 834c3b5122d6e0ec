"""What happens to scripts that run too long, or that nobody wants any more."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import signal
import time
from typing import TYPE_CHECKING

import pytest

from agent.appspec import HookScript
from agent.errors import CommandFailure
from agent.lifecycle.context import HookProcess, ScriptPatience
from agent.lifecycle.ending import end_abandoned_hook
from agent.processes import start_ticks
from tests.lifecycle.isolation import IsolatedFailure, run_isolated
from tests.lifecycle.traces import read, recorders
from tests.waiting import is_running, wait_until

if TYPE_CHECKING:
    from tests.lifecycle.conftest import Event

# Each way in which a process can leave the script's own group; $P is a file for its pid.
WAYS_OUT = {
    "child": "sleep 1000 & echo $! >> $P",
    "session of its own": "setsid sleep 1000 & echo $! >> $P",
    "double fork": "(setsid bash -c 'echo $$ >> $P; exec sleep 1000' & )",
    "double fork with closed output": "(setsid bash -c 'echo $$ >> $P; exec sleep 1000' <&- >&- 2>&- & )",
    "process group of its own": "set -m; sleep 1000 & echo $! >> $P",
    "daemon of a dead parent": "bash -c 'setsid bash -c \"echo \\$\\$ >> $P; exec sleep 1000\" & exit'",
}


@pytest.mark.parametrize("way", WAYS_OUT)
def test_a_script_that_is_ended_leaves_nothing_behind(event: Event, way: str) -> None:
    """What survives holds ports and locks, and the next deployment fails for no visible reason."""
    pids = event.directory / "pids"
    event.additions["P"] = str(pids)
    event.cancelled = lambda: read(pids) != ""
    event.fail_one(f"#!/bin/bash\n{WAYS_OUT[way]}\nsleep 1000\n")
    assert [] == [pid for pid in read(pids).split() if is_running(int(pid))]


def test_what_ignores_term_is_killed_after_a_grace(event: Event) -> None:
    """The grace lets programs clean up; it must not let them stay."""
    pids = event.directory / "pids"
    event.additions["P"] = str(pids)
    event.options["patience"] = ScriptPatience(term_s=0.6)
    script = "#!/bin/bash\ntrap '' TERM\nsetsid sleep 1000 & echo $! $$ > $P\nsleep 1000\n"
    start = time.monotonic()
    event.fail_one(script, timeout_s=0.3)
    assert 0.9 <= time.monotonic() - start < 5
    assert [] == [pid for pid in read(pids).split() if is_running(int(pid))]


def test_a_script_may_clean_up_when_its_time_is_over(event: Event) -> None:
    """Deployments hold locks in other systems; what the script says while it lets go is logged."""
    script = "#!/bin/bash\ntrap 'echo cleaned up; exit 0' TERM\nsleep 1000 & wait\n"
    assert event.fail_one(script, timeout_s=0.3).log.endswith("[stdout]cleaned up\n")


def test_a_timeout_says_what_was_running(event: Event) -> None:
    """Nobody can find out later what a script was waiting for."""
    failure = event.fail_one("#!/bin/bash\necho start\nsleep 1234\n", timeout_s=0.4)
    assert "Script at specified location: h.sh failed to complete in 0.4 seconds." in failure.message
    assert "sleep 1234" in failure.message
    assert "Its last output came 0 s before." in failure.message
    assert "line 7" in failure.message
    assert failure.code == 3


def test_a_timeout_says_that_nothing_was_printed(event: Event) -> None:
    """Silence from the start means that the script did not even begin."""
    assert "It had printed nothing." in event.fail_one("#!/bin/bash\nsleep 1000\n", timeout_s=0.3).message


def test_an_application_of_an_earlier_script_survives_the_timeout_of_a_later_one(event: Event) -> None:
    """The first script of ApplicationStart starts the application, the second one waits for it too long."""
    pids = event.directory / "pids"
    event.additions["P"] = str(pids)
    event.write("start.sh", "#!/bin/bash\nsetsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > $P\n")
    event.write("check.sh", "#!/bin/bash\nsleep 1000\n")
    event.fail(HookScript(location="start.sh"), HookScript(location="check.sh", timeout_s=0.3))
    application = int(read(pids))
    assert is_running(application)
    os.kill(application, signal.SIGKILL)


# How a launcher that an earlier script left behind can have started the application when the later one is ended.
LAUNCHERS = {
    "before": "sleep 1000 & echo $! > $P; until [ -e $GO ]; do sleep 0.01; done",
    "meanwhile": "touch $P; until [ -e $GO ]; do sleep 0.01; done; sleep 1000 & echo $! > $P",
}


@pytest.mark.parametrize("started", LAUNCHERS)
def test_an_application_survives_whose_launcher_ends_during_a_later_script(
    event: Event, started: str
) -> None:
    """It becomes our child only then, and would be taken for an orphan of that script."""
    pids, go, launcher = (event.directory / name for name in ("pids", "go", "launcher"))
    event.additions.update(P=str(pids), GO=str(go), L=str(launcher))
    launch = f"( echo $BASHPID > $L; {LAUNCHERS[started]} ) </dev/null >/dev/null 2>&1 &"
    event.write("start.sh", f"#!/bin/bash\n{launch}\nuntil [ -e $P ]; do sleep 0.01; done\n")
    event.write("check.sh", "#!/bin/bash\ntouch $GO\nsleep 1000\n")
    event.cancelled = lambda: go.exists() and read(pids) != "" and not is_running(int(read(launcher)))
    failure = event.fail(HookScript(location="start.sh"), HookScript(location="check.sh", timeout_s=20))
    assert failure.error_id == "hook-cancelled"
    application = int(read(pids))
    assert is_running(application)
    os.kill(application, signal.SIGKILL)


def test_the_name_of_a_script_that_was_ended_is_not_cut_off(event: Event) -> None:
    """Below the usual deployment root, 80 characters end before it."""
    archive = event.directory / "deployment-root" / ("0123456789" * 4) / "d-ABCDEF123" / "deployment-archive"
    event.options["archive"] = archive
    event.write(str(archive / "scripts" / "start.sh"), "#!/bin/bash\nsleep 1000\n")
    failure = event.fail(HookScript(location="scripts/start.sh", args=("--port", "8080"), timeout_s=0.3))
    assert "deployment-archive/scripts/start.sh --port 8080; " in failure.message


def test_a_recorder_that_is_stuck_delays_no_timeout(event: Event) -> None:
    """On a dead disk the script is ended in time, and nobody claims to know what it had printed."""
    event.options["patience"] = ScriptPatience(recorder_s=0.3)
    stopped: list[int] = []

    def stop_recorder() -> bool:
        if not stopped:
            stopped.extend(recorders())
            os.kill(stopped[0], signal.SIGSTOP)
        return False

    event.cancelled = stop_recorder
    start = time.monotonic()
    failure = event.fail_one("#!/bin/bash\necho out\nsleep 1000\n", timeout_s=0.6)
    assert time.monotonic() - start < 10
    assert failure.error_id == "hook-timed-out"
    assert "When its last output came is not known." in failure.message


def test_a_stopped_deployment_ends_its_script(event: Event) -> None:
    """Whoever stops a deployment does not want to wait for the timeout of an hour."""
    pids = event.directory / "pids"
    event.additions["P"] = str(pids)
    event.cancelled = pids.exists
    failure = event.fail_one("#!/bin/bash\necho $$ > $P\nsleep 1000\n")
    assert failure.error_id == "hook-cancelled"
    assert "the deployment was stopped" in failure.message
    assert not is_running(int(read(pids)))


def test_a_script_that_has_exited_is_not_killed_with_its_group(event: Event) -> None:
    """What it left in its group may be the application."""
    pids = event.directory / "pids"
    event.additions["P"] = str(pids)
    event.run_one("#!/bin/bash\nsleep 1000 </dev/null >/dev/null 2>&1 & echo $! > $P\n")
    application = int(read(pids))
    assert is_running(application)
    os.kill(application, signal.SIGKILL)


def test_a_script_ends_in_time_on_kernels_that_cannot_announce_it(
    event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels before 5.3 have no process descriptors."""

    def refuse(_pid: int) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    start = time.monotonic()
    event.run_one("#!/bin/bash\nexec >/dev/null 2>&1\n")
    assert time.monotonic() - start < 1


def test_an_interrupted_agent_takes_its_script_along(event: Event) -> None:
    """Ctrl-C in a local deployment does not reach the script's session by itself."""
    pids = event.directory / "pids"
    event.additions["P"] = str(pids)

    def interrupt() -> bool:
        if read(pids):
            raise KeyboardInterrupt
        return False

    event.cancelled = interrupt
    with pytest.raises(KeyboardInterrupt):
        event.run_one("#!/bin/bash\necho $$ > $P\nsleep 1000\n")
    assert not is_running(int(read(pids)))


def test_a_worker_killed_while_it_starts_a_script_leaves_none_that_nobody_knows_of(event: Event) -> None:
    """That one was about to start is written down before; its variables tell which process it is."""
    pids, noted = event.directory / "pids", event.directory / "noted"
    event.additions["P"] = str(pids)
    event.deployment = {"DEPLOYMENT_ID": "d-KILLED", "LIFECYCLE_EVENT": "AfterInstall"}

    def note(hook: HookProcess) -> None:
        if hook.pid:
            os.kill(os.getpid(), signal.SIGKILL)
        noted.write_text(str(hook.start_ticks))

    event.options["on_started"] = note
    with pytest.raises(IsolatedFailure, match="ended without an answer"):
        run_isolated(lambda: event.run_one("#!/bin/bash\necho $$ > $P\nsleep 1000\n"))
    wait_until(lambda: read(pids))

    hook = HookProcess(pid=0, start_ticks=int(noted.read_text()))
    end_abandoned_hook(hook, deployment_id="d-KILLED", event="AfterInstall")

    assert not is_running(int(read(pids)))


@pytest.mark.parametrize("name", ["DEPLOYMENT_ID", "LIFECYCLE_EVENT"])
def test_a_script_whose_variables_name_another_event_says_itself_that_it_is_there(
    event: Event, name: str
) -> None:
    """An AppSpec may set them; nobody would find the script by them after its worker has died."""
    noted = event.directory / "noted"
    event.deployment = {"DEPLOYMENT_ID": "d-KILLED", "LIFECYCLE_EVENT": "AfterInstall"}
    event.additions[name] = "mine"
    event.options["on_started"] = lambda hook: noted.write_text(f"{os.getppid()} {hook.pid}")
    event.run_one("#!/bin/bash\n")
    parent, pid = map(int, noted.read_text().split())
    assert (os.getpid(), True) == (parent, pid > 0)


def test_a_script_that_has_ended_before_it_was_noted_takes_nothing_older_along(
    event: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier script of the event has left running carries the same variables."""
    noted: list[HookProcess] = []
    event.options["on_started"] = noted.append

    def look_late(pid: int) -> int | None:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return start_ticks(pid)

    monkeypatch.setattr("agent.lifecycle.launch.start_ticks", look_late)
    event.run_one("#!/bin/bash\n")
    about_to_start, started = noted
    assert 0 < about_to_start.start_ticks == started.start_ticks


@pytest.mark.root
def test_a_script_of_another_user_says_itself_that_it_is_there(event: Event) -> None:
    """Its own process writes that down, and holds the worker's locks until it has."""
    noted, lock = (event.directory / name for name in ("noted", "lock"))

    def run_until_killed() -> None:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)

        def note(hook: HookProcess) -> None:
            os.kill(os.getppid(), signal.SIGKILL)
            noted.write_text(f"{hook.pid} {hook.start_ticks}")

        event.options["on_started"] = note
        event.run_one("#!/bin/bash\nsleep 1000\n", runas="nobody")

    with pytest.raises(IsolatedFailure, match="ended without an answer"):
        run_isolated(run_until_killed)
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
    pid, ticks = map(int, noted.read_text().split())

    end_abandoned_hook(HookProcess(pid=pid, start_ticks=ticks))

    assert not is_running(pid)


def test_what_a_dead_worker_left_behind_can_be_ended(event: Event) -> None:
    """After a crash the script must not go on while its deployment is reported as failed."""
    pids, noted = event.directory / "pids", event.directory / "noted"
    event.additions["P"] = str(pids)
    event.options["on_started"] = lambda hook: noted.write_text(f"{hook.pid} {hook.start_ticks}")

    def die() -> bool:
        if len(read(pids).split()) == 2:
            os._exit(1)
        return False

    event.cancelled = die
    script = "#!/bin/bash\nsleep 1000 & echo $! $$ > $P\nsleep 1000\n"
    with pytest.raises(IsolatedFailure, match="ended without an answer"):
        run_isolated(lambda: event.run_one(script))
    pid, ticks = map(int, noted.read_text().split())
    assert is_running(pid)

    ending = end_abandoned_hook(HookProcess(pid=pid, start_ticks=ticks))

    assert len(ending.running) >= 2
    assert [] == [pid for pid in read(pids).split() if is_running(int(pid))]


def test_the_worker_is_told_of_each_script_while_it_runs(event: Event) -> None:
    """It writes that down, for whoever comes after a crash."""
    told = event.directory / "told"

    def tell(text: str) -> None:
        with told.open("a") as file:
            file.write(f"{text}\n")

    event.options["on_started"] = lambda hook: tell(f"started {hook.pid} {hook.start_ticks}")
    event.options["on_ended"] = lambda: tell("ended")
    event.additions["T"] = str(told)
    script = (
        "#!/bin/bash\nread -r stat < /proc/$$/stat\nset -- ${stat##*) }\necho $$ ${20}\necho runs >> $T\n"
        'until grep -q "^started $$ " $T; do sleep 0.01; done\n'  # who has ended can't be looked at any more
    )
    pid_and_ticks = event.printed(script)
    first, *others, last = told.read_text().splitlines()
    assert first.startswith("started 0 ")
    pid, ticks = pid_and_ticks.split()
    # One that has ended before it could be told of has the time from which it was awaited.
    assert {f"started {pid_and_ticks}", f"started {pid} {first.split()[2]}"} & set(others)
    assert "runs" in others
    assert int(first.split()[2]) <= int(ticks)
    assert "ended" == last


def test_orphans_of_a_script_are_reaped(event: Event) -> None:
    """A build in a hook starts thousands of processes; as zombies they would fill the table."""
    script = "#!/bin/bash\n( (echo $BASHPID > $P; exit 0) & )\nuntil [ -s $P ]; do :; done\n"
    event.additions["P"] = str(event.directory / "pid")
    event.run_one(script + "while kill -0 $(cat $P); do sleep 0.01; done 2>/dev/null\n", timeout_s=10)


def test_a_script_runs_even_if_nobody_could_note_it(event: Event) -> None:
    """Too many open files: a note for the case of a crash is not worth the deployment."""

    def refuse(_hook: HookProcess) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    event.options["on_started"] = refuse
    assert event.run_one("#!/bin/bash\necho ran\n").tail.endswith("[stdout]ran\n")


@pytest.mark.parametrize("free", range(1, 16))
def test_a_host_without_free_descriptors_ends_in_a_result(event: Event, free: int) -> None:
    """However few there are, the deployment is not lost to an error of our own."""
    event.write("h.sh", "#!/bin/bash\n")

    def child() -> str:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        taken = []
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for descriptor in taken[:free]:
            os.close(descriptor)
        event.options["on_started"] = lambda _hook: os.close(os.open("/proc/self/stat", os.O_RDONLY))
        try:
            event.run(HookScript(location="h.sh"))
        except CommandFailure as failure:
            return failure.error_id
        return "ran"

    assert run_isolated(child) in ("ran", "hook-not-startable")
