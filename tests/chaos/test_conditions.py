"""What a host is made to lack, it lacks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from chaos.conditions import Conditions, NotPossibleError

if TYPE_CHECKING:
    from pathlib import Path

GREEDY = """
import sys
print("ready", flush=True)
sys.stdin.readline()
try:
    taken = bytearray(64 << 20)
except MemoryError:
    sys.exit(3)
"""


def greedy() -> subprocess.Popen[bytes]:
    """A process that takes 64 MB when it is told to."""
    command = [sys.executable, "-S", "-E", "-c", GREEDY]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def outcome(process: subprocess.Popen[bytes]) -> int:
    process.communicate(b"now\n", timeout=30)
    return process.returncode


def test_a_process_without_memory_is_told_so(tmp_path: Path) -> None:
    """It goes on, and may do something wrong for lack of memory."""
    process = greedy()
    Conditions(tmp_path).take_memory(process.pid, 1 << 20)
    assert 3 == outcome(process)


@pytest.mark.root
def test_a_process_that_takes_too_much_memory_is_killed(tmp_path: Path) -> None:
    """It has no chance to say anything."""
    conditions = Conditions(tmp_path)
    process = greedy()
    try:
        conditions.run_out_of_memory(process.pid, 1 << 20)
    except NotPossibleError as reason:
        process.kill()
        process.communicate()
        pytest.skip(str(reason))
    try:
        assert -signal.SIGKILL == outcome(process)
        assert 1 == conditions.killed_for_memory()
    finally:
        conditions.clean_up()


def test_a_process_that_has_ended_can_not_be_harmed(tmp_path: Path) -> None:
    """A fault that did not take place must not be counted."""
    process = greedy()
    process.communicate(b"", timeout=30)
    with pytest.raises(NotPossibleError):
        Conditions(tmp_path).take_memory(process.pid, 0)


def test_pre_accept_command_refuses_for_a_while_and_writes_down_what_it_says(tmp_path: Path) -> None:
    """Reports are compared with what it has written."""
    conditions = Conditions(tmp_path)
    command = conditions.write_pre_accept()
    environment = {**os.environ, "DEPLOYMENT_ID": "d-1", "LIFECYCLE_EVENT": "Install"}

    def ask() -> int:
        return subprocess.run([command], env=environment, check=False).returncode

    assert 0 == ask()
    refusing = threading.Thread(target=conditions.refuse, args=(0.0,))
    refusing.start()
    while 0 == ask():
        pass
    refusing.join()
    assert 0 == ask()
    words = [line.split()[:3] for line in conditions.answers.read_text().splitlines()]
    assert [["d-1", "Install", answer] for answer in ("refused", "taken")] == words[-2:]
