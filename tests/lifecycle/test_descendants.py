"""Which processes belong to a script, and so must not outlive its timeout."""

from __future__ import annotations

import pytest

from agent.lifecycle.descendants import OtherProcesses, Process, descendants

INIT, WORKER, APPLICATION, SCRIPT = 1, 10, 20, 30
EARLIER_SCRIPT = 15


def process(pid: int, parent: int, session: int, *, is_alive: bool = True) -> Process:
    return Process(pid=pid, parent=parent, session=session, is_alive=is_alive)


HOST = [process(INIT, 0, INIT), process(5, INIT, 5), process(WORKER, INIT, WORKER)]
# What each of these processes, numbered 31 and up, must be counted as.
TABLE = {
    "the script alone": ([], {SCRIPT}),
    "a child": ([process(31, SCRIPT, SCRIPT)], {SCRIPT, 31}),
    "a grandchild in a session of its own": (
        [process(31, SCRIPT, SCRIPT), process(32, 31, 32)],
        {SCRIPT, 31, 32},
    ),
    "an orphan that we adopted": ([process(31, WORKER, 31)], {SCRIPT, 31}),
    "the child of such an orphan": ([process(31, WORKER, 31), process(32, 31, 32)], {SCRIPT, 31, 32}),
    "an orphan of the session that init adopted": ([process(31, INIT, SCRIPT)], {SCRIPT, 31}),
    "an application of an earlier script": ([process(APPLICATION, WORKER, APPLICATION)], {SCRIPT}),
    "what that application starts meanwhile": (
        [process(APPLICATION, WORKER, APPLICATION), process(31, APPLICATION, APPLICATION)],
        {SCRIPT},
    ),
    "what an earlier script's launcher has started, since it ended": (
        [process(31, WORKER, EARLIER_SCRIPT), process(32, 31, 32)],
        {SCRIPT},
    ),
    "a zombie": ([process(31, SCRIPT, SCRIPT, is_alive=False)], {SCRIPT}),
    "the child of a zombie": (
        [process(31, SCRIPT, SCRIPT, is_alive=False), process(32, 31, 32)],
        {SCRIPT, 32},
    ),
    "somebody else's process": ([process(31, 5, 5)], {SCRIPT}),
}


@pytest.mark.parametrize("name", TABLE)
def test_what_a_script_started_is_found_and_nothing_else(name: str) -> None:
    """A process too few survives the timeout; one too many is an application that we kill."""
    started, expected = TABLE[name]
    table = [*HOST, process(SCRIPT, WORKER, SCRIPT), *started]
    others = OtherProcesses(pids={APPLICATION}, sessions={EARLIER_SCRIPT})
    assert expected == set(descendants(table, script_pid=SCRIPT, adopter=WORKER, others=others))


def test_when_init_adopts_orphans_only_the_session_tells_them_apart() -> None:
    """After a crash of the worker, unrelated children of init must be left alone."""
    table = [*HOST, process(SCRIPT, INIT, SCRIPT), process(31, INIT, SCRIPT), process(32, INIT, 32)]
    assert {SCRIPT, 31} == set(descendants(table, script_pid=SCRIPT, adopter=None, others=OtherProcesses()))


def test_when_init_adopts_orphans_marks_tell_more_of_them_apart() -> None:
    """Also what descends from a marked process is the script's; what goes back to an earlier one is not."""
    marked = {31, 42, 52}
    table = [
        *HOST,
        process(SCRIPT, INIT, SCRIPT),
        *(process(31, INIT, 31), process(32, 31, 32)),
        *(process(41, INIT, 41), process(42, 41, 42)),
        *(process(51, INIT, 51), process(52, INIT, 51)),
    ]
    others = OtherProcesses(pids={41, 51}, sessions={41, 51})
    found = descendants(table, script_pid=SCRIPT, adopter=None, others=others, marked=marked)
    assert {SCRIPT, 31, 32} == set(found)


def test_the_next_process_with_the_pid_of_a_dead_script_is_none_of_its() -> None:
    """What the script has left is found all the same."""
    table = [*HOST, process(SCRIPT, INIT, SCRIPT), process(31, INIT, 31)]
    assert [31] == descendants(table, script_pid=None, adopter=None, others=OtherProcesses(), marked={31})
