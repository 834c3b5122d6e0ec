"""What is left of a script whose worker has died, and is to be ended before its deployment is reported as lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.appspec import HookScript
from agent.lifecycle.context import HookProcess, ScriptPatience
from agent.lifecycle.ending import Ending, end_abandoned_hook
from agent.processes import start_ticks
from tests.lifecycle.isolation import IsolatedFailure, run_isolated
from tests.lifecycle.traces import read
from tests.waiting import is_running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lifecycle.conftest import Event

ROOT = Path(__file__).parents[2]


class Abandoned:
    """An event of a deployment of its own whose worker is killed while its last script runs.

    Scripts write the pids of what they start into files below $D; `died` makes the worker die.
    """

    def __init__(self, event: Event) -> None:
        self._event = event
        self.deployment_id = f"d-{event.directory.name}"
        self.directory = event.directory / "pids"
        self.directory.mkdir()
        event.deployment = {"DEPLOYMENT_ID": self.deployment_id, "LIFECYCLE_EVENT": "AfterInstall"}
        event.additions["D"] = str(self.directory)
        event.options["on_started"] = self._note
        event.cancelled = self._die

    def run(self, *scripts: str) -> None:
        for number, content in enumerate(scripts):
            self._event.write(f"{number}.sh", f"#!/bin/bash\n{content}\n")
        with pytest.raises(IsolatedFailure, match="ended without an answer"):
            run_isolated(
                lambda: self._event.run(*(HookScript(location=f"{n}.sh") for n in range(len(scripts)))).tail
            )

    def end(self, *, deployment_id: str | None = None, event: str = "AfterInstall") -> Ending:
        pid, ticks = map(int, self._noted.read_text().split())
        hook = HookProcess(pid=pid, start_ticks=ticks)
        patience = ScriptPatience(term_s=2)
        deployment_id = self.deployment_id if deployment_id is None else deployment_id
        return end_abandoned_hook(hook, deployment_id=deployment_id, event=event, patience=patience)

    def pid(self, name: str) -> int:
        return int(read(self.directory / name))

    def clean_up(self) -> None:
        for path in self.directory.iterdir():
            if path.name != "died" and is_running(pid := int(read(path) or 0)):
                os.kill(pid, signal.SIGKILL)

    @property
    def _noted(self) -> Path:
        return self._event.directory / "noted"

    def _note(self, hook: HookProcess) -> None:
        self._noted.write_text(f"{hook.pid} {hook.start_ticks}")

    def _die(self) -> bool:
        if (self.directory / "died").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return False


@pytest.fixture
def abandoned(event: Event) -> Iterator[Abandoned]:
    made = Abandoned(event)
    yield made
    made.clean_up()


ESCAPED = "(setsid bash -c 'echo $$ > $D/escaped; exec sleep 1000' & ); until [ -s $D/escaped ]; do :; done"
DIE = "touch $D/died; echo $$ > $D/script; sleep 1000"


def test_what_has_left_its_session_and_tree_is_ended_too(abandoned: Abandoned) -> None:
    """Nobody adopted it, and still it must not work on a deployment that is reported as lost."""
    abandoned.run(f"{ESCAPED}\n{DIE}")
    ending = abandoned.end()
    assert not is_running(abandoned.pid("escaped"))
    assert not is_running(abandoned.pid("script"))
    assert ending.running == ending.ended
    assert any("sleep 1000" in text for text in ending.ended)


def test_it_is_ended_also_when_the_script_itself_is_gone(abandoned: Abandoned) -> None:
    """The kernel may have killed both of them."""
    abandoned.run(f"{ESCAPED}\n{DIE}")
    os.kill(abandoned.pid("script"), signal.SIGKILL)
    wait_until(lambda: start_ticks(abandoned.pid("script")) is None)
    abandoned.end()
    assert not is_running(abandoned.pid("escaped"))


def test_what_it_has_started_with_another_environment_is_ended_with_it(abandoned: Abandoned) -> None:
    """Below what is known, everything is."""
    inner = "env -i bash -c 'echo \\$\\$; sleep 1000; :' > $D/inner & wait"
    abandoned.run(
        f'(setsid bash -c "{inner}" & )\nuntil [ -s $D/inner ]; do :; done\n{DIE}',
    )
    abandoned.end()
    assert not is_running(abandoned.pid("inner"))


def test_the_application_of_a_script_that_had_ended_before_stays(abandoned: Abandoned) -> None:
    """It is the application, and with it what it starts while the later script runs."""
    application = (
        "setsid bash -c 'echo $$ > $D/application; until [ -e $D/died ]; do sleep 0.01; done;"
        " sleep 1000 & echo $! > $D/worker; setsid sleep 1000 & echo $! > $D/helper; wait'"
        " </dev/null >/dev/null 2>&1 &"
    )
    later = "sleep 0.05"  # starts are only told apart by hundredths of a second
    abandoned.run(f"{application}\nuntil [ -s $D/application ]; do :; done\n{later}", f"{ESCAPED}\n{DIE}")
    wait_until(lambda: read(abandoned.directory / "helper"))
    abandoned.end()
    assert not is_running(abandoned.pid("escaped"))
    assert [] == [name for name in ("application", "worker", "helper") if not is_running(abandoned.pid(name))]


@pytest.mark.parametrize("other", [{"deployment_id": "d-OTHER"}, {"event": "BeforeInstall"}, {"event": ""}])
def test_what_belongs_to_another_event_or_deployment_stays(
    abandoned: Abandoned, other: dict[str, str]
) -> None:
    """The two together say whose it is; one of them does not."""
    abandoned.run(f"{ESCAPED}\n{DIE}")
    abandoned.end(**other)
    assert is_running(abandoned.pid("escaped"))
    assert not is_running(abandoned.pid("script"))


def test_an_agent_that_such_a_script_has_started_does_not_end_itself() -> None:
    """Everything that it starts has the same environment then, its own processes first of all."""
    code = (
        "from agent.lifecycle.context import HookProcess\n"
        "from agent.lifecycle.ending import end_abandoned_hook\n"
        "hook = HookProcess(pid=2**22 + 1, start_ticks=0)\n"
        "print(end_abandoned_hook(hook, deployment_id='d-SELF', event='AfterInstall').running)"
    )
    environment = {**os.environ, "DEPLOYMENT_ID": "d-SELF", "LIFECYCLE_EVENT": "AfterInstall"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout == "()\n"


def test_a_pid_that_is_another_process_by_now_is_left_alone() -> None:
    """Pids are used again; killing by pid alone ends somebody else's program."""
    own = HookProcess(pid=os.getpid(), start_ticks=(start_ticks(os.getpid()) or 0) - 1)
    assert end_abandoned_hook(own).running == ()
