"""I2: a journal counts as complete only with all that it is to say on the disk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from agent.install.journal.entries import Hiding, MadeFiles, NewDirectory
from agent.install.journal.journal import Journal, complete_journal, mark_staging, write_journal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHANGES = [b"n 1 2 /dest a\n", b"n 2 3 /dest b\n"]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """One that is complete."""
    path = tmp_path / "group-journal"
    write_journal(path, b"token", b"-,-", [b"y /dest\n"])
    assert not Journal(path).is_switching
    complete_journal(path, CHANGES)
    return path


def test_a_complete_journal_says_so_until_everything_is_back(journal: Path) -> None:
    assert Journal(journal).is_switching

    mark_staging(journal)

    assert not Journal(journal).is_switching


def test_an_install_that_changes_nothing_has_a_complete_journal_too(tmp_path: Path) -> None:
    path = tmp_path / "group-journal"
    write_journal(path, b"token", b"-,-", [])
    complete_journal(path, [])

    assert Journal(path).is_switching


LOSSES: dict[str, Callable[[bytes], bytes]] = {
    "the end": lambda content: content[: content.index(b"\ne ") + 1],
    "a part of the end": lambda content: content[:-3],
    "a line": lambda content: content.replace(CHANGES[1], b""),
    "a page, of which there are zeros": lambda content: content.replace(CHANGES[0], bytes(len(CHANGES[0]))),
    "all but the beginning": lambda content: content[: content.index(CHANGES[0])],
    "the place of the changes": lambda content: content.replace(b"\ne ", b"\ne x"),
    "the digest": lambda content: content[:-33] + b"0" * 32 + b"\n",
    "a place beyond the end": lambda content: content.replace(b"\ne ", b"\ne 9"),
    "a place that no file has": lambda content: content.replace(b"\ne ", b"\ne " + b"9" * 30),
    "a place behind the changes": lambda content: (
        content[: content.index(b"\ne ") + 3] + b"%d %b\n" % (len(content), b"0" * 32)
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_where_the_disk_has_got_only_a_part_of_it_nothing_has_begun_to_change(
    journal: Path, loss: str
) -> None:
    """The phase, at the beginning of the file, may get there before the rest."""
    content = LOSSES[loss](journal.read_bytes())
    assert content != journal.read_bytes()
    journal.write_bytes(content)

    assert not Journal(journal).is_switching


@pytest.mark.parametrize("length", [1, 9, 60])
def test_entries_of_which_only_a_part_was_written_do_not_count(tmp_path: Path, length: int) -> None:
    """A page that the disk has not got is one of zeros, which may begin and end in the middle of lines."""
    path = tmp_path / "group-journal"
    write_journal(path, b"token", b"-,-", [b"h /dest\n"])
    begin = path.stat().st_size
    complete_journal(
        path, [b"c 1 2 /dest/a\n", b"f 3 /dest/a\n 4 b\n", b"c 5 6 /dest/c\n", b"n 1 7 /dest d\n"]
    )
    content = path.read_bytes()

    for start in range(begin, len(content) - length + 1):
        path.write_bytes(content[:start] + bytes(length) + content[start + length :])
        journal = Journal(path)
        whole = {b"/dest/a", b"/dest/c"}

        assert not journal.is_switching
        assert {entry.path for entry in journal.entries(NewDirectory)} <= whole
        assert {entry.path for entry in journal.entries_newest_first(NewDirectory)} <= whole
        assert all(entry.inodes in ({}, {b"b": 4}) for entry in journal.entries_newest_first(MadeFiles))
        assert [b"/dest"] == [entry.path for entry in journal.entries(Hiding)]


def test_one_wait_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "group-journal"
    write_journal(path, b"token", b"-,-", [])
    synced: list[bytes] = []
    sync = os.fsync

    def remember(descriptor: int) -> None:
        sync(descriptor)
        synced.append(path.read_bytes())

    monkeypatch.setattr(os, "fsync", remember)

    complete_journal(path, CHANGES)

    assert synced == [path.read_bytes()]
