"""The undo journal's entries: what is written is what is read, and its grammar says all of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, get_args

import pytest

from agent.appspec import SelinuxContext
from agent.install.journal import journal as grammar
from agent.install.journal.batches import encode_changes, encode_new_files
from agent.install.journal.entries import (
    Addition,
    Adjustment,
    Entry,
    FirstOnDisk,
    Hiding,
    Label,
    Leftover,
    LeftoverDirectory,
    LeftoverLabel,
    Losing,
    MadeFiles,
    MountPoint,
    NewDirectory,
    Replacement,
    Touched,
    decode,
    encode,
    letter_of,
)
from agent.install.journal.journal import Journal, write_journal
from agent.install.records.manifest import Record

if TYPE_CHECKING:
    from pathlib import Path

NAME, PATH = b"a b%\n\xff", b"/srv/a b%\n\xff"
CONTEXT = SelinuxContext(type="httpd_sys_content_t", user=None, range="s0")
RECORD = Record(is_link=True, inode=1, size=2, mtime_ns=3, ctime_ns=4, digest=b"to here", has_acl=False)
ENTRIES: list[Entry] = [
    FirstOnDisk(PATH),
    MountPoint(PATH),
    Touched(PATH, 1, 9, 2, 3, 0o755, 4, 5, None, None, is_ours=False),
    Touched(PATH, 1, 0, 2, 3, 0o755, 4, 5, b"\x02\0", b"\x03", is_ours=True),
    Losing(PATH, 7, 8),
    Hiding(PATH),
    NewDirectory(7, 8, PATH),
    MadeFiles(7, PATH, {}),
    MadeFiles(7, PATH, {NAME: 8, b"b": 9}),
    Addition(1, 2, PATH, NAME),
    Replacement(1, 2, 3, PATH, NAME),
    Adjustment(1, 2, 3, 0o644, 4, 5, None, 6, 7, PATH, NAME),
    Adjustment(1, 2, 3, 0o644, 4, 5, b"\x02\0", 6, -7, b"/", NAME),
    Label(PATH, had_rule=False, was=None),
    Label(PATH, had_rule=True, was=None),
    Label(PATH, had_rule=True, was=CONTEXT),
    Leftover(PATH, NAME, None),
    Leftover(PATH, NAME, RECORD),
    LeftoverDirectory(PATH),
    LeftoverLabel(PATH),
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: type(entry).__name__)
def test_an_entry_is_read_as_it_was_written(entry: Entry) -> None:
    """After a crash the journal is all that there is to put the previous revision back."""
    text = encode(entry)

    assert text.endswith(b"\n")
    assert entry == decode(text[:-1])


def test_every_kind_of_entry_is_among_those() -> None:
    """A kind that nobody reads back would be found out after a crash."""
    assert set(get_args(Entry)) == {type(entry) for entry in ENTRIES}


def test_every_letter_of_the_grammar_begins_one_kind_of_entry_and_the_other_way_round() -> None:
    """The grammar is what an operator has who must look into a journal that this agent can't read."""
    told = re.findall(r"^    (\w) ", grammar.__doc__ or "", re.MULTILINE)

    # `e` is about no path: it says that all has been said.
    assert sorted(told) == sorted(["e", *(letter_of(kind).decode() for kind in get_args(Entry))])


def test_a_journal_is_read_in_both_directions(tmp_path: Path) -> None:
    """An undo begins with what was done last, and files in new directories are on lines of their own."""
    path = tmp_path / "journal"
    write_journal(path, b"t0", b"-,-", map(encode, ENTRIES))
    journal = Journal(path)
    one_line = [kind for kind in get_args(Entry) if kind is not MadeFiles]

    assert [entry for entry in ENTRIES if type(entry) is not MadeFiles] == list(journal.entries(*one_line))
    assert ENTRIES[::-1] == list(journal.entries_newest_first(*get_args(Entry)))
    assert [Losing(PATH, 7, 8)] == list(journal.entries_newest_first(Losing))


def test_lines_about_many_files_are_those_of_their_entries() -> None:
    """They are made without the entries, which is faster, and read as all others are."""
    names = [b"a", NAME, b"c"]
    changes: list[Entry] = [Hiding(PATH), Addition(10, 5, PATH, b"a"), Replacement(12, 6, 7, PATH, b"c")]
    made = MadeFiles(9, PATH, {b"a": 1, NAME: 2})
    fields = [b"f %d 0 0 0 - -" % inode for inode in made.inodes.values()]

    assert b"".join(map(encode, changes)) == encode_changes(10, PATH, names, [(0, 5, 0), (2, 6, 7)])
    assert encode(made) == encode(MadeFiles(9, PATH, {})) + encode_new_files(names[:2], fields)
