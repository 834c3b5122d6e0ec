"""What is known of commands that are over, and of the daemon."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from agent.deployments import CommandResult, DaemonStatus, DeploymentFacts, History, HistoryEntry, StatusFile
from agent.deployments import history as history_module
from agent.protocol import CommandStatus

if TYPE_CHECKING:
    from pathlib import Path

RESULT = CommandResult(status=CommandStatus.SUCCEEDED, error_code=0, message="Succeeded: ", payload="{}")


def entry(identifier: str, deployment_id: str = "d-A") -> HistoryEntry:
    return HistoryEntry(
        host_command_identifier=identifier,
        command_name="Install",
        accepted_at=1.5,
        finished_at=2.5,
        result=RESULT,
        deployment=DeploymentFacts(
            deployment_id=deployment_id,
            deployment_group_id="g",
            deployment_group_name="group",
            application_name="app",
        ),
    )


def test_what_was_added_is_found_again(tmp_path: Path) -> None:
    """A command delivered twice gets the stored result."""
    history = History(tmp_path)
    for number in range(5):
        history.add(entry(f'odd "name" \\ {number}'))
    assert entry('odd "name" \\ 3') == History(tmp_path).find('odd "name" \\ 3')
    assert history.find("odd") is None


def test_the_newest_come_first_and_a_line_that_was_cut_off_is_skipped(tmp_path: Path) -> None:
    """The host lost power while a line was written."""
    history = History(tmp_path)
    for name in ("a", "b"):
        history.add(entry(name))
    with history.path.open("ab") as file:
        file.write(b'{"host_command_identifier": "c", "comm')
    assert ["b", "a"] == [item.host_command_identifier for item in history.newest_first()]


def test_it_grows_to_a_limit_and_still_knows_the_newest(tmp_path: Path) -> None:
    """An agent that runs for years must not fill the disk."""
    history = History(tmp_path)
    size = len(repr(entry("x" * 1000)))
    for number in range(3 * history_module._MAX_BYTES // size):
        history.add(entry(f"{number}" + "x" * 1000))
    files = sorted(os.listdir(tmp_path))
    sizes = [os.path.getsize(tmp_path / name) for name in files]
    assert ["history.jsonl", "history.jsonl.1"] == files
    assert max(sizes) <= history_module._MAX_BYTES
    assert history.find(f"{number}" + "x" * 1000) is not None


def test_no_history_is_an_empty_one(tmp_path: Path) -> None:
    """A fresh host."""
    assert ([], None) == (list(History(tmp_path).newest_first()), History(tmp_path).find("a"))


STATUS = DaemonStatus(
    pid=1, version="1", state="polling", started_at=1.0, host_identifier="h", endpoint="https://e"
)


def test_the_status_that_was_written_last_is_read(tmp_path: Path) -> None:
    """A shorter one must not leave the end of a longer one behind it."""
    file = StatusFile(tmp_path)
    file.write(
        DaemonStatus(**{name: getattr(STATUS, name) for name in STATUS.__slots__} | {"state": "x" * 500})
    )
    file.write(STATUS)
    assert STATUS == StatusFile(tmp_path).read()
    file.close()


def test_a_reader_beside_a_busy_writer_always_gets_a_whole_status(tmp_path: Path) -> None:
    """`agentctl status` runs at any moment."""
    writer, over = StatusFile(tmp_path), threading.Event()
    writer.write(STATUS)

    def write() -> None:
        while not over.is_set():
            writer.write(STATUS)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        seen = {StatusFile(tmp_path).read() for _ in range(300)}
    finally:
        over.set()
        thread.join()
        writer.close()
    assert {STATUS} == seen


def test_no_status_is_none(tmp_path: Path) -> None:
    """The agent has never run here."""
    assert StatusFile(tmp_path).read() is None
