"""A script's file as it was right before it was started: what can be said of it even if it is changed or removed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_READ_BYTES = 2**16  # searched for Windows line ends
_MAX_FIRST_LINE = 512
# Those that take a carriage return as part of a command; other interpreters don't mind.
_SHELLS = ("sh", "bash", "dash", "ash", "ksh", "ksh93", "mksh", "zsh")
_MARK = b"\xef\xbb\xbf"
# The longer ones first: UTF-32 begins as UTF-16 does.
_WIDE_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
# `#!` in these encodings, where the mark has been left out.
_WIDE_STARTS = ((b"#\0\0\0!\0\0\0", "UTF-32"), (b"#\0!\0", "UTF-16"), (b"\0#\0!", "UTF-16"))
_ELF = b"\x7fELF"
_SAMPLE_BYTES, _FEWEST_BYTES = 64, 4
_PLAIN = frozenset(b"\t\n\r" + bytes(range(32, 127)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptFile:
    """The beginning of a script, 64 KiB at most; empty when it could not be read."""

    path: Path
    beginning: bytes
    state: tuple[int, ...] = ()

    @property
    def first_line(self) -> bytes:
        """Without its line feed; 512 bytes of it at most."""
        return self.beginning[:_MAX_FIRST_LINE].partition(b"\n")[0]

    @property
    def interpreter_words(self) -> tuple[str, ...]:
        """The words after `#!`; empty where the first two bytes are others, or nothing follows."""
        if not self.beginning.startswith(b"#!"):
            return ()
        return tuple(word.decode("utf-8", "replace") for word in self.first_line[2:].split())

    @property
    def is_program(self) -> bool:
        """Whether it is a program for the processor."""
        return self.beginning.startswith(_ELF)

    @property
    def is_binary(self) -> bool:
        """Whether it is anything but text for an interpreter; shells look for a NUL in the first line, too."""
        return b"\0" in self.first_line

    @property
    def is_run_by_shell(self) -> bool:
        """Whether a shell reads it, as one that names no interpreter."""
        if self.is_binary:
            return False
        words = [word for word in self.interpreter_words if not word.startswith("-")]
        names = [os.path.basename(word) for word in words]
        if names[:1] == ["env"]:
            names = names[1:]
        return not names or names[0] in _SHELLS

    @property
    def wide_encoding(self) -> str:
        """UTF-16 or UTF-32 where it is text in one of these, which nothing on Linux can run; else empty."""
        for start, encoding in (*_WIDE_MARKS, *_WIDE_STARTS):
            if self.beginning.startswith(start):
                return encoding
        return "UTF-16" if _alternates(self.beginning[:_SAMPLE_BYTES]) else ""

    @property
    def has_byte_order_mark(self) -> bool:
        """Whether it begins with that of UTF-8, which hides `#!` and spoils the first command."""
        return self.beginning.startswith(_MARK)

    @property
    def late_interpreter_line(self) -> int:
        """Number of the first line that has `#!` at its start, if only blank ones are before it; 0 = none."""
        for number, line in enumerate(self.beginning.splitlines(), 1):
            if line.startswith(b"#!"):
                return number if number > 1 else 0
            if line.strip():
                return 0
        return 0

    @property
    def windows_line(self) -> int:
        """Number of the first line that ends as on Windows, from 1; 0 = there is none, or it does no harm."""
        first, *others = self.beginning.split(b"\n")
        if first.endswith(b"\r"):
            return 1
        if not self.is_run_by_shell:
            return 0
        return next((number for number, line in enumerate(others, 2) if line.endswith(b"\r")), 0)

    @property
    def was_written_to(self) -> bool:
        """Whether that very file has been changed since; one that was replaced or removed stays what it was."""
        try:
            now = _state(os.stat(self.path))
        except OSError:
            return False
        return bool(self.state) and now[:2] == self.state[:2] and now != self.state


def read_script_file(path: Path) -> ScriptFile:
    """The file as it is now."""
    try:
        # A script may put a named pipe in its own place, and reading that would never end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            state = _state(os.fstat(file.fileno()))
            return ScriptFile(path=path, beginning=file.read(_READ_BYTES) or b"", state=state)
    except OSError:
        return ScriptFile(path=path, beginning=b"")


def _alternates(sample: bytes) -> bool:
    """Whether every second byte is 0 and the others are plain text, as in UTF-16 without a mark."""
    halves = sample[::2], sample[1::2]
    return len(sample) >= _FEWEST_BYTES and any(
        not any(zeros) and all(byte in _PLAIN for byte in text) for zeros, text in (halves, reversed(halves))
    )


def _state(facts: os.stat_result) -> tuple[int, ...]:
    """Which file, and what of it changes when it is written to."""
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns
