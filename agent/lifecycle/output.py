"""What hook scripts print: bytes → whole lines, and → the tail that goes into a report. Pure.

Everything works on whole chunks: a script may print 100 MB.
"""

from __future__ import annotations

import re

from agent.lifecycle.diagnostics import MAX_LOG_CHARACTERS
from agent.lifecycle.streams import Stream

# How the line begins with which the output of an event starts.
EVENT_NOTE = "LifecycleEvent - "

# A line that is longer is logged in pieces, so that no output can fill the memory.
MAX_LINE_BYTES = 2**20

# Enough bytes for the reported characters, with colours and multi-byte characters among them.
_TAIL_BYTES = 16 * 1024

# How much of what a script prints to its standard error is searched for the first error.
_SEARCHED_BYTES = 2**20
_MAX_ERROR_CHARACTERS = 400
_ERROR_LINE = re.compile(
    rb"^.*(?:error|fatal|fail|exception|denied|not found|cannot|no such|unable to).*$",
    re.IGNORECASE | re.MULTILINE,
)
_GAP = "[...]\n"
# What a message ends with, of the end of what a script printed.
_LAST_LINES = 3
_END_BYTES = 4 * 1024
_BETWEEN_LINES = " | "

_CONTINUATION_BYTES = bytes(range(0x80, 0xC0))
_ESCAPE_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movements
    # OSC and other strings: window titles, links. To the next ESC or line end at most: one without an end,
    # in output that is nothing but their beginnings, must not be looked for all the way to the end each time.
    r"|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x1b\\|\x07)"
    r"|\x1b[ -/]*[0-~]"  # two-character sequences
)
# What a progress bar printed before it started the line anew.
_OVERWRITTEN = re.compile(r"^[^\n]*\r(?=[^\n])", re.MULTILINE)
# A line of the script log: time, mark, text.
_LOGGED = re.compile(
    rb"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (%b)?(.*\n)" % b"|".join(re.escape(stream.value) for stream in Stream),
    re.MULTILINE,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")


class LineCutter:
    """Turns the chunks of one stream into whole lines."""

    def __init__(self) -> None:
        # Not a list of chunks: each of them may take a whole page of memory, however short it is.
        self._partial = bytearray()

    def feed(self, chunk: bytes) -> bytes:
        """The lines that are complete by now, each with its line end; empty when there are none."""
        end = chunk.rfind(b"\n") + 1
        if not end:
            self._partial += chunk
            return self.flush() if len(self._partial) >= MAX_LINE_BYTES else b""
        lines = bytes(self._partial) + chunk[:end]
        self._partial = bytearray(chunk[end:])
        return lines

    def flush(self) -> bytes:
        """The unfinished line, finished; empty when there is none."""
        if not self._partial:
            return b""
        line = bytes(self._partial) + b"\n"
        self._partial = bytearray()
        return line


class Tail:
    """The end of everything that one event logged."""

    def __init__(self) -> None:
        self._kept = b""
        self._first_error = b""
        self._ends: dict[bytes, bytes] = {}
        self._searched_bytes = 0

    def append(self, lines: bytes, mark: bytes = b"") -> None:
        """Take note of whole lines, each of which is marked; without a mark they begin a new script."""
        self._look_for_error(lines, mark)
        if len(lines) > _TAIL_BYTES:
            lines = lines[-_TAIL_BYTES:]
            lines = lines[lines.find(b"\n", 0, -1) + 1 :]
        self._kept = (self._kept + marked(lines, mark))[-_TAIL_BYTES:]

    def text(self) -> str:
        """The end of all that was logged, as a report wants it: at most 2,048 characters."""
        return reported(self._kept)

    def failure_text(self) -> str:
        """The end of all that was logged, as a report of a failed event wants it: at most 2,048 characters.

        It begins with the first error of the last script where that would be cut off.
        """
        text = self.text()
        error = reported(Stream.STDERR.value + self._first_error)[:_MAX_ERROR_CHARACTERS]
        if not self._first_error or error in text:
            return text
        head = f"{error.rstrip()}\n{_GAP}"
        return f"{head}{reported(self._kept, room=MAX_LOG_CHARACTERS - len(head))}"

    def last_words(self) -> str:
        """The last three lines that the last script printed, as one, and where; empty when it printed none.

        To standard error, or, where nothing came there, to standard output.
        """
        for stream, name in ((Stream.STDERR, "standard error"), (Stream.STDOUT, "standard output")):
            lines = [line.strip() for line in reported(self._ends.get(stream.value, b"")).splitlines()]
            if last := [line[:_MAX_ERROR_CHARACTERS] for line in lines if line][-_LAST_LINES:]:
                return f"{name}: {_BETWEEN_LINES.join(last)}"
        return ""

    def _look_for_error(self, lines: bytes, mark: bytes) -> None:
        if not mark:
            self._first_error, self._ends, self._searched_bytes = b"", {}, 0
        else:
            self._ends[mark] = (self._ends.get(mark, b"") + lines[-_END_BYTES:])[-_END_BYTES:]
        if mark != Stream.STDERR.value or self._first_error or self._searched_bytes >= _SEARCHED_BYTES:
            return
        self._searched_bytes += len(lines)
        if found := _ERROR_LINE.search(lines[:_SEARCHED_BYTES]):
            self._first_error = found[0][: 4 * _MAX_ERROR_CHARACTERS]


def recalled(logged: bytes) -> Tail:
    """The tail of the event that this end of a script log belongs to, as it was when that was written.

    Args:
        logged: lines with the time before each; others are left out.
    """
    tail = Tail()
    for line in _LOGGED.finditer(logged):
        mark, text = line[1] or b"", line[2]
        if not mark and text.startswith(EVENT_NOTE.encode()):
            tail = Tail()
        tail.append(text, mark)
    return tail


def marked(lines: bytes, mark: bytes) -> bytes:
    """Whole lines, each with the mark before it."""
    return mark + lines[:-1].replace(b"\n", b"\n" + mark) + b"\n"


def reported(output: bytes, *, room: int = MAX_LOG_CHARACTERS) -> str:
    """The last characters, 2,048 unless told, of the output as a person would have seen it on a terminal.

    Escape sequences and control characters are gone, of a line that was overwritten only the last
    state is left, bytes that are no UTF-8 are replaced. A first line that would be cut is left out,
    unless more than half of the text would go with it.
    """
    text = output.lstrip(_CONTINUATION_BYTES).decode("utf-8", "replace")
    text = _ESCAPE_SEQUENCE.sub("", text).replace("\r\n", "\n")
    text = _CONTROL.sub("", _OVERWRITTEN.sub(_mark_only, text))
    if len(text) <= room:
        return text
    text = text[-room:]
    whole_lines = text[text.find("\n") + 1 :]
    return whole_lines if len(whole_lines) > room // 2 else text


def _mark_only(overwritten: re.Match[str]) -> str:
    """The mark of the stream stands before what was overwritten, and must stay."""
    for stream in Stream:
        mark = stream.value.decode()
        if overwritten[0].startswith(mark):
            return mark
    return ""
