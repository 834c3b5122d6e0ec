"""From the bytes that scripts print to log lines and reports."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.lifecycle.output import MAX_LINE_BYTES, LineCutter, Tail, marked, reported

TABLE = {
    "plain text": (b"[stdout]a\n", "[stdout]a\n"),
    "colours": (b"[stdout]\x1b[1;31mred\x1b[0m\n", "[stdout]red\n"),
    "a window title": (b"[stdout]\x1b]0;title\x07text\n", "[stdout]text\n"),
    "a link": (b"[stdout]\x1b]8;;http://x\x1b\\text\x1b]8;;\x1b\\\n", "[stdout]text\n"),
    "a window title without its end": (b"[stdout]\x1b]0;a\n[stdout]b\x07\n", "[stdout]0;a\n[stdout]b\n"),
    "a charset switch": (b"[stdout]\x1b(Btext\n", "[stdout]text\n"),
    "NUL and other control characters": (b"[stdout]a\0b\x08c\td\n", "[stdout]abc\td\n"),
    "bytes that are no UTF-8": (b"[stdout]\xe9\xff\n", "[stdout]��\n"),
    "several languages": ("[stdout]grün 文\n".encode(), "[stdout]grün 文\n"),
    "Windows line ends": (b"[stdout]a\r\n[stdout]b\r\n", "[stdout]a\n[stdout]b\n"),
    "a progress bar": (b"[stdout]10%\r20%\r100%\r\n[stdout]done\n", "[stdout]100%\n[stdout]done\n"),
    "a character cut at the beginning": ("文".encode()[1:] + b"abc\n", "abc\n"),
}


@pytest.mark.parametrize("name", TABLE)
def test_reports_hold_what_a_person_would_have_seen(name: str) -> None:
    """A console does not interpret escape sequences, and progress bars would fill the report."""
    output, expected = TABLE[name]
    assert expected == reported(output)


def test_a_report_begins_with_a_whole_line() -> None:
    """Half a line is read as a whole one."""
    lines = b"".join(b"[stdout]line %06d\n" % number for number in range(1, 1001))
    assert reported(lines).startswith("[stdout]line 000899\n")
    assert reported(lines).endswith("[stdout]line 001000\n")


def test_a_line_longer_than_a_report_is_cut() -> None:
    """Its end is better than nothing."""
    assert "x" * 2047 + "\n" == reported(b"[stdout]" + b"x" * 5000 + b"\n")


@given(st.binary(max_size=20000))
def test_no_output_makes_a_report_too_long_or_holds_control_characters(output: bytes) -> None:
    """Whatever a script prints, its deployment is reported."""
    text = reported(output)
    assert len(text) <= 2048
    assert not {character for character in text if character < " "} - {"\n", "\t"}


@pytest.mark.parametrize("odd", [b"\x1b]", b"\x1bP", b"\x1b[", b"\x1b ", b"x", b"x\r", b"\x1b[0"])
def test_no_output_takes_long_to_be_made_a_report(odd: bytes) -> None:
    """The worker, and everybody who waits for it, would stand still."""
    start = time.process_time()
    reported(odd * (2**17 // len(odd)))
    assert time.process_time() - start < 2


@given(st.lists(st.binary(max_size=100)))
def test_lines_come_out_as_they_went_in_however_they_were_cut(chunks: list[bytes]) -> None:
    """A pipe cuts output anywhere."""
    cutter = LineCutter()
    pieces = [cutter.feed(chunk) for chunk in chunks]
    assert all(piece.endswith(b"\n") for piece in pieces if piece)
    whole = b"".join(chunks)
    expected = whole if whole.endswith(b"\n") or not whole else whole + b"\n"
    assert expected == b"".join([*pieces, cutter.flush()])


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    """`cat /dev/zero` must cost the disk's patience at most."""
    cutter = LineCutter()
    chunk = b"x" * 65536
    longest = max(len(cutter.feed(chunk)) for _ in range(100))
    assert MAX_LINE_BYTES + 1 == longest


@given(
    st.lists(
        st.binary(min_size=1, max_size=3000).map(lambda line: line.replace(b"\n", b"") + b"\n"), max_size=30
    )
)
def test_the_tail_is_the_end_of_all_that_was_logged(lines: list[bytes]) -> None:
    """The report ends where the script did."""
    tail = Tail()
    for line in lines:
        tail.append(line, b"[stdout]")
    whole = b"".join(marked(line, b"[stdout]") for line in lines)
    assert reported(whole[-16384:]) == tail.text()


def test_every_line_of_a_block_is_marked() -> None:
    """Tools tell the streams apart by the mark."""
    assert marked(b"a\n\nb\n", b"[x]") == b"[x]a\n[x]\n[x]b\n"


def noisy(*blocks: tuple[bytes, bytes]) -> Tail:
    """A tail of these blocks, and so many lines after them that nothing of them is left."""
    tail = Tail()
    for lines, mark in (*blocks, (b"all the rest\n" * 2000, b"[stdout]")):
        tail.append(lines, mark)
    return tail


def test_the_report_of_a_failure_begins_with_the_first_error() -> None:
    """A build prints its error first, and a thousand lines of consequences after it."""
    tail = noisy((b"Script - h.sh\n", b""), (b"note\nE: Unable to locate package x\nError 2\n", b"[stderr]"))
    assert tail.failure_text().startswith(
        "[stderr]E: Unable to locate package x\n[...]\n[stdout]all the rest\n"
    )
    assert tail.failure_text().endswith("[stdout]all the rest\n")
    assert len(tail.failure_text()) <= 2048
    assert "Unable" not in tail.text()


def test_an_error_that_is_still_in_sight_is_not_repeated() -> None:
    """The report of a short output is the output."""
    tail = Tail()
    tail.append(b"Script - h.sh\n")
    tail.append(b"fatal: x\n", b"[stderr]")
    assert tail.failure_text() == "Script - h.sh\n[stderr]fatal: x\n"


def test_an_error_of_an_earlier_script_is_not_taken_for_this_ones() -> None:
    """That script succeeded, whatever it said."""
    tail = noisy((b"error\n", b"[stderr]"), (b"Script - h.sh\n", b""))
    assert tail.failure_text() == tail.text()


@given(
    st.lists(
        st.tuples(st.binary(max_size=3000), st.sampled_from([b"", b"[stdout]", b"[stderr]"])), max_size=9
    )
)
def test_no_output_makes_the_report_of_a_failure_too_long(blocks: list[tuple[bytes, bytes]]) -> None:
    """With colours, broken characters and all."""
    tail = noisy(*((lines + b" error\n", mark) for lines, mark in blocks))
    text = tail.failure_text()
    assert len(text) <= 2048
    assert not {character for character in text if character < " "} - {"\n", "\t"}


PIECE_BY_PIECE = """
import os
from agent.lifecycle.output import LineCutter
def resident_pages():
    return int(open("/proc/self/statm").read().split()[1])
reader, writer = os.pipe()
cutter = LineCutter()
before = resident_pages()
for _ in range(10_000):
    os.write(writer, b"..")
    cutter.feed(os.read(reader, 2**18))  # as much as is read at a time
grown = resident_pages() - before
assert 20_001 == len(cutter.flush())
print(grown * os.sysconf("SC_PAGE_SIZE"))
"""


def test_a_line_that_comes_piece_by_piece_takes_no_more_memory_than_it_is_long() -> None:
    """Scripts that wait print dots, for hours; the process that reads them is the last that the kernel would end."""
    # In a process of its own: how a C library keeps small pieces depends on what the process has done before.
    command = [sys.executable, "-c", PIECE_BY_PIECE]
    done = subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[2])
    assert int(done.stdout) < 2**23
