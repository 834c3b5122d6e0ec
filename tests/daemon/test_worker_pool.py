"""Workers that carry one command after the other: quicker, and in every other way as if each had its own."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.daemon.worker_pool import WorkerPool
from agent.deployments import Job, JobStore
from agent.protocol import HostCommand
from agent.worker.process import DONE, TAKEN, fork_worker
from tests.daemon.control_server import SERVER_ERROR, SPECIFICATION
from tests.waiting import is_running, wait_until

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from tests.daemon.agent_process import Agent
    from tests.daemon.control_server import ControlServer
    from tests.daemon.revisions import Application, Gate

pytestmark = pytest.mark.server

EVENTS = ["BeforeInstall", "AfterInstall", "ApplicationStart", "ValidateService"]


def noting_worker(application: Application) -> str:
    """A script that writes down whose child it is."""
    return f"echo $PPID >> {application.directory}/workers"


def workers_of(application: Application) -> list[int]:
    """The workers whose children the scripts were, in their order."""
    return [int(line) for line in (application.directory / "workers").read_text().split()]


def test_a_worker_takes_the_next_command(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """What it has imported, and its connection, are there already.

    A command that comes while it still writes its last lines is given to another one, so there may be two.
    """
    deployment = application.revise("one", EVENTS, script=noting_worker(application))
    server.carry(deployment, "DownloadBundle", *EVENTS * 3)
    assert len(set(workers_of(application))) <= 3


def test_lines_of_a_command_name_no_other_deployment(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """The log is read deployment by deployment."""
    first, second = application.revise("one"), application.revise("two")
    server.carry(first, "ApplicationStop")
    wait_until(lambda: agent.logged("command_finished"), "the first command is logged")
    server.carry(second, "ApplicationStop")
    line = wait_until(lambda: agent.logged("command_finished")[1:], "both commands are logged")[-1]
    assert f"deployment_id={second.deployment_id}" in line
    assert first.deployment_id not in line


def test_a_command_that_fails_is_the_last_one_of_its_worker(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """Nobody knows what a failure has left in a process."""
    script = f'{noting_worker(application)}; [ "$LIFECYCLE_EVENT" != AfterInstall ]'
    deployment = application.revise("one", EVENTS, script=script)
    server.carry(deployment, "DownloadBundle", "BeforeInstall", "Install")
    assert "Failed" == server.run("AfterInstall", deployment).status
    server.carry(deployment, "ApplicationStart")
    server.carry(deployment, "ApplicationStart", "ApplicationStart", "ApplicationStart")
    _, failed, *after = workers_of(application)
    assert failed not in after


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may do all of this")
@pytest.mark.parametrize(
    "change",
    [
        "prlimit --pid $PPID --nofile=500:500",
        "renice -n 5 -p $PPID",
        "taskset -p 1 $PPID",
        "chrt --batch -p 0 $PPID",
        "echo 500 > /proc/$PPID/oom_score_adj",
        "echo $PPID > {group}/cgroup.procs",
    ],
)
def test_what_a_hook_does_to_its_worker_reaches_no_other_command(
    server: ControlServer, agent: Agent, application: Application, cgroup: Path, change: str
) -> None:
    """A script that tunes its parent means its own deployment; the next one may be of another group."""
    script = f"{noting_worker(application)}; [ $LIFECYCLE_EVENT != BeforeInstall ] || {change.format(group=cgroup)}"
    deployment = application.revise("one", EVENTS, script=script)
    server.carry(deployment, "DownloadBundle")
    agent.wait_until_idle()
    server.carry(deployment, "BeforeInstall")
    agent.wait_until_idle()
    server.carry(deployment, "AfterInstall")
    agent.wait_until_idle()
    changed, other = workers_of(application)
    assert changed != other


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A control group of this test; where none can be made, one that nothing is moved to."""
    for mount in ("/sys/fs/cgroup", "/sys/fs/cgroup/freezer", "/sys/fs/cgroup/pids"):
        made = Path(mount, f"test-{os.getpid()}")
        try:
            made.mkdir()
        except OSError:
            continue
        if (made / "cgroup.procs").exists():
            break
        made.rmdir()
    else:
        pytest.skip("no control group can be made here")
    yield made
    wait_until(lambda: not (made / "cgroup.procs").read_text(), "its processes have gone")
    made.rmdir()


def test_a_worker_that_is_killed_while_it_waits_costs_nothing(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """The kernel likes to take those that have slept for a while."""
    deployment = application.revise("one", EVENTS)
    server.carry(deployment, "DownloadBundle", "BeforeInstall")
    agent.wait_until_idle()
    for pid in agent.children():
        os.kill(pid, signal.SIGKILL)
    server.carry(deployment, "Install", "AfterInstall")
    assert ["BeforeInstall of one", "AfterInstall of one"] == application.trace


def test_a_worker_that_does_not_take_its_command_is_replaced(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """Somebody stopped it, or it hangs on a dead disk; the command waits for nobody."""
    deployment = application.revise("one", EVENTS)
    server.carry(deployment, "DownloadBundle", "BeforeInstall")
    agent.wait_until_idle()
    for pid in agent.children():
        os.kill(pid, signal.SIGSTOP)
    server.carry(deployment, "AfterInstall")
    assert ["BeforeInstall of one", "AfterInstall of one"] == application.trace


def test_a_worker_that_waits_goes_with_its_daemon(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """Nothing of an agent that was killed is left on an idle host."""
    server.carry(application.revise("one"), "ApplicationStop")
    agent.wait_until_idle()
    waiting = agent.children()
    agent.kill()
    wait_until(lambda: not any(map(is_running, waiting)), "they have gone")


def test_a_worker_that_waits_does_not_keep_the_agent_from_stopping(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """It has nothing to finish."""
    server.carry(application.revise("one"), "ApplicationStop")
    agent.wait_until_idle()
    assert agent.children()
    assert 0 == agent.end()


def test_what_a_hook_leaves_running_survives_the_next_commands_of_its_worker(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """That is the application."""
    pid_file = application.directory / "application.pid"
    script = (
        f'if [ "$LIFECYCLE_EVENT" = ApplicationStart ]; then sleep 300 & echo $! > {pid_file}; fi; '
        'if [ "$LIFECYCLE_EVENT" = ValidateService ]; then sleep 60; fi'
    )
    deployment = application.revise("one", EVENTS, script=script, timeout_s=1)
    server.carry(deployment, "DownloadBundle", "Install", "ApplicationStart")
    completion = server.run("ValidateService", deployment)
    started = int(pid_file.read_text())
    try:
        assert 3 == completion.code, completion
        assert is_running(started)
    finally:
        os.kill(started, signal.SIGKILL)


def test_what_a_hook_leaves_running_is_no_child_of_a_worker_that_waits(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """It was started by a command that is over; like after any other, it belongs to init."""
    pid_file = application.directory / "application.pid"
    script = f"sleep 300 > /dev/null 2>&1 & echo $! > {pid_file}"
    deployment = application.revise("one", ["ApplicationStart"], script=script)
    server.carry(deployment, "DownloadBundle", "Install", "ApplicationStart")
    started = int(pid_file.read_text())
    try:
        wait_until(lambda: parent(started) not in agent.children(), "its worker has gone")
        assert is_running(started)
    finally:
        os.kill(started, signal.SIGKILL)


def test_what_an_application_starts_meanwhile_is_not_taken_for_the_next_hooks(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """The launcher of an earlier event hands over and ends while a later hook runs, whose timeout is its own."""
    here = application.directory
    launcher = f"(while [ ! -e {here}/go ]; do sleep 0.02; done; setsid sleep 300 & echo $! > {here}/pid) >/dev/null 2>&1 &"
    script = (
        f'if [ "$LIFECYCLE_EVENT" = ApplicationStart ]; then {launcher} fi; '
        f'if [ "$LIFECYCLE_EVENT" = ValidateService ]; then touch {here}/go; sleep 60; fi'
    )
    deployment = application.revise("one", EVENTS, script=script, timeout_s=2)
    server.carry(deployment, "DownloadBundle", "Install", "ApplicationStart")
    agent.wait_until_idle()
    completion = server.run("ValidateService", deployment)
    started = int((here / "pid").read_text())
    try:
        assert 3 == completion.code, completion
        assert is_running(started)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(started, signal.SIGKILL)


def test_groups_work_side_by_side(
    server: ControlServer, agent: Agent, application: Application, gate: Gate
) -> None:
    """A worker that is busy is no reason to wait."""
    other = application.in_another_group()
    slow = application.revise("slow", ["BeforeInstall"], script=gate.script)
    quick = other.revise("quick", ["BeforeInstall"])
    server.carry(slow, "DownloadBundle")
    held = server.send("BeforeInstall", slow)
    server.carry(quick, "DownloadBundle", "BeforeInstall")
    gate.open()
    assert "Succeeded" == server.completion(held).status


def test_processes_say_in_ps_what_they_are(
    server: ControlServer, agent: Agent, application: Application, gate: Gate
) -> None:
    """At 3 a.m. `ps` and `systemctl status` are the first things that people look at."""
    deployment = application.revise("one", ["BeforeInstall"], script=gate.script)
    server.carry(deployment, "DownloadBundle")
    identifier = server.send("BeforeInstall", deployment)
    wait_until(lambda: gate.is_reached, "the script runs")
    (worker,) = agent.workers()
    children = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    titles = [title(int(pid)) for pid in children]
    assert title(agent.pid).startswith("codedeploy-agent: daemon")
    assert title(worker).startswith("codedeploy-agent: worker BeforeInst")
    assert [True] == [
        text.startswith("codedeploy-agent: hook output") for text in titles if "codedeploy" in text
    ]
    gate.open()
    server.completion(identifier)


def test_a_worker_that_asks_for_its_specification_does_not_look_as_if_it_waited(
    server: ControlServer, agent: Agent, application: Application
) -> None:
    """An endpoint that is down can keep it there for hours."""
    deployment = application.revise("one")
    server.carry(deployment, "ApplicationStop")
    agent.wait_until_idle()
    server.break_down(SPECIFICATION, SERVER_ERROR)
    identifier = server.send("ApplicationStop", deployment)
    wait_until(
        lambda: [
            True for pid in agent.workers() if title(pid).startswith("codedeploy-agent: worker Applicat")
        ],
        "its title names the command",
    )
    server.heal()
    server.completion(identifier)


@pytest.mark.parametrize("name", ["Stop\0It", "Stop\x1b[2J"])
def test_a_command_whose_name_no_process_can_bear_is_refused_as_unknown(
    server: ControlServer, agent: Agent, application: Application, name: str
) -> None:
    """The title of a process is no reason to fail, and no terminal obeys it."""
    completion = server.run(name, application.revise("one"))
    assert completion.message.endswith("[command-unknown]"), completion.message


def parent(pid: int) -> int:
    """Whose child this process is."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def title(pid: int) -> str:
    """What `ps` shows of this process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


# -- the pool alone ----------------------------------------------------------------------------------


class Pool:
    """A pool whose workers do as a test says."""

    def __init__(
        self,
        directory: Path,
        *,
        idle_s: float = 60.0,
        serve: Callable[[Job, socket.socket], None] | None = None,
    ) -> None:
        self.store = JobStore(directory)
        self.pool = WorkerPool(self._fork, serve or self._serve, idle_s=idle_s)
        self._forked: list[int] = []

    def job(self, number: int) -> Job:
        """A record that this process holds."""
        command = HostCommand(
            identifier=f"c-{number}", host_identifier="", deployment_execution_id="", name="ApplicationStop"
        )
        return self.store.accept(command)

    def carry(self, number: int) -> int:
        """Have a worker carry a command; its pid."""
        job = self.job(number)
        pid = self.pool.carry(job)
        job.let_go()
        return pid

    def finished(self) -> list[int]:
        """The workers that have finished a command, once there are any."""
        return wait_until(self.pool.take_finished, "a worker has finished")

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        """What the end of the daemon does; afterwards there are no workers."""
        self.pool.close_in_worker()
        # Only these: other tests have children that outlive them.
        for pid in self._forked:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def _fork(self, work: object) -> int:
        pid = fork_worker(work, leave_daemon=self.pool.close_in_worker)  # type: ignore[arg-type]
        self._forked.append(pid)
        return pid

    def _serve(self, job: Job, connection: socket.socket) -> None:
        current: Job | None = job
        while current is not None:
            current.remove()
            current.let_go()
            connection.send(DONE)
            current = Job.receive_from(connection)
            if current is not None:
                connection.send(TAKEN)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    """A pool that keeps workers for a minute."""
    with Pool(tmp_path) as made:
        yield made


def test_a_worker_that_has_waited_for_long_is_sent_away(tmp_path: Path) -> None:
    """At rest the agent is one small process."""
    with Pool(tmp_path, idle_s=0.0) as pool:
        pid = pool.carry(1)
        assert [pid] == pool.finished()
        assert (pid, 0) == os.waitpid(pid, 0)
        assert [] == pool.pool.descriptors()


def test_no_more_than_two_workers_wait(pool: Pool) -> None:
    """Sixteen groups at a time would otherwise leave half a gigabyte."""
    jobs = [pool.job(number) for number in range(4)]
    pids = {pool.pool.carry(job) for job in jobs}
    for job in jobs:
        job.let_go()
    finished: set[int] = set()
    while finished != pids:
        finished.update(pool.finished())
    pool.pool.take_finished()
    assert 2 == len(pool.pool.descriptors())


def test_a_worker_whose_end_nobody_has_noted_is_given_nothing(pool: Pool) -> None:
    """Its pid would stand for two commands, and the end of the first be taken for that of the second."""
    first = pool.carry(1)
    wait_until(lambda: select.select(pool.pool.descriptors(), [], [], 0)[0], "it has said that it is done")
    second = pool.carry(2)
    assert first != second
    finished: list[int] = []
    while len(finished) < 2:
        finished += pool.finished()
    assert {first, second} == set(finished)
    assert pool.carry(3) in (first, second)


def test_a_worker_that_ends_with_a_command_in_hand_has_not_done_it(pool: Pool) -> None:
    """An exit code of 0 alone says nothing about a command."""
    pid = pool.carry(1)
    pool.finished()
    os.kill(pid, signal.SIGSTOP)
    assert pid == pool.carry(2)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert 0 != pool.pool.forget(pid, 0)
    assert [] == pool.pool.descriptors()


def test_a_worker_that_says_no_more_but_lives_does_not_wake_the_daemon_again_and_again(
    tmp_path: Path,
) -> None:
    """Its end can take long, as in a debugger or on a dead disk; until then a core would be busy with nothing."""
    directory = tmp_path / "gate"
    directory.mkdir()

    def serve(_job: Job, connection: socket.socket) -> None:
        connection.close()
        wait_until(lambda: not directory.exists(), "the test is over")

    with Pool(tmp_path, serve=serve) as pool:
        pid = pool.carry(1)
        wait_until(
            lambda: not pool.pool.take_finished() and not pool.pool.descriptors(), "nothing is watched"
        )
        directory.rmdir()
        os.waitpid(pid, 0)
        assert 0 != pool.pool.forget(pid, 0)
