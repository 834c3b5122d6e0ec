"""What is known of commands that are over, and of the daemon."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.deployments import CommandResult, DaemonStatus, DeploymentFacts, History, HistoryEntry, StatusFile
from agent.deployments import history as history_module
from agent.deployments.status import HEARTBEAT_S
from agent.files import FileDamaged
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


def test_a_line_that_was_cut_off_does_not_take_the_next_one_with_it(tmp_path: Path) -> None:
    """The disk was full; the first command after that would be delivered again and run again."""
    history = History(tmp_path)
    history.path.write_bytes(b'{"host_command_identifier": "c", "comm')
    history.add(entry("d"))
    history.add(entry("e"))
    assert ["e", "d"] == [item.host_command_identifier for item in history.newest_first()]
    assert entry("d") == history.find("d")


def test_an_entry_of_an_older_or_a_newer_version_is_read(tmp_path: Path) -> None:
    """An upgrade or its undoing must not make finished commands run again."""
    history = History(tmp_path)
    history.add(entry("a"))
    values = json.loads(history.path.read_text())
    del values["deployment_execution_id"]
    for name in ("deployment_type", "creator", "possible_events", "planned_events"):
        del values["deployment"][name]
    for part in (values, values["deployment"], values["result"]):
        part["invented_later"] = [1]
    history.path.write_text(json.dumps(values) + "\n")
    assert entry("a") == history.find("a")


def test_it_grows_to_a_limit_and_still_knows_the_newest(tmp_path: Path) -> None:
    """An agent that runs for years must not fill the disk."""
    history = History(tmp_path)
    size = len(repr(entry("x" * 1000)))
    for number in range(3 * history_module._MAX_BYTES // size):
        history.add(entry(f"{number}" + "x" * 1000))
    files = sorted(name for name in os.listdir(tmp_path) if name != ".history.jsonl.lock")
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


def test_a_status_of_a_newer_or_an_older_daemon_is_read(tmp_path: Path) -> None:
    """During an upgrade the daemon and agentctl differ: it must not look as if there were no daemon."""
    older = {"pid": 7, "version": "0", "state": "polling", "started_at": 1.0, "host_identifier": "h"}
    values = {**older, "endpoint": "https://e", "invented_later": {"a": 1}}
    (tmp_path / "status.json").write_text(json.dumps(values))
    status = StatusFile(tmp_path).read()
    assert status is not None
    assert (7, 0.0, "") == (status.pid, status.heartbeat_s, status.boot_id)


def test_a_damaged_status_is_not_taken_for_none(tmp_path: Path) -> None:
    """No status means that the agent has never run here; a damaged one means that nobody knows."""
    (tmp_path / "status.json").write_text("{")
    with pytest.raises(FileDamaged, match="damaged"):
        StatusFile(tmp_path).read()


def test_a_heartbeat_renews_the_time_of_the_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A held poll takes a minute, in which nothing else would tell a living daemon from a frozen one."""
    file = StatusFile(tmp_path)
    file.write(STATUS)
    os.utime(file.path, (1.0, 1.0))
    file.beat()
    assert 1.0 == file.heartbeat_at()
    now = time.monotonic() + HEARTBEAT_S
    monkeypatch.setattr("agent.deployments.status.time.monotonic", lambda: now)
    file.beat()
    assert abs(time.time() - file.heartbeat_at()) < 60
    assert STATUS == file.read()
    file.close()


def test_a_status_with_endless_texts_still_fits(tmp_path: Path) -> None:
    """What is cut in the middle is no JSON any more, and the daemon would seem to be gone."""
    long = replace(STATUS, waits_for="ä" * 3000, refused={"message": "x" * 3000})
    file = StatusFile(tmp_path)
    file.write(long)
    status = file.read()
    assert status is not None
    assert ("polling", "ä" * 200, {}) == (status.state, status.waits_for, status.refused)
    file.close()
