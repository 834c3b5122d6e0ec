"""Names and messages from outside, as they can be printed: nothing in them reaches the terminal's controls."""

from __future__ import annotations

import os
import shlex

_QUOTED = {"'": r"\'", "\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"}


def shell_word(name: bytes) -> str:
    r"""The name as one word of a shell, which is that very name when it is pasted into bash.

    Plain where it can be, in quotes where it must be, and as `$'…\xff\n'` with bytes that are no
    UTF-8 or can't be printed. No two names look the same, but for letters that only look alike.
    """
    text = os.fsdecode(name)
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(_QUOTED.get(char) or _visible(char) for char in text) + "'"


def readable(message: str) -> str:
    """The message with everything that can't be printed made visible; line ends stay."""
    return "".join(char if char == "\n" else _visible(char) for char in message)


def _visible(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        # What os.fsdecode makes of a byte that is no UTF-8.
        return f"\\x{code - 0xDC00:02x}"
    # bash takes up to two, four or eight digits: always all of them, lest it takes the next character, too.
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
