"""A text that must not show up in logs, tracebacks or `repr`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Secret:
    """Prints as `***`; `reveal()` gives the text to the one place that needs it."""

    _text: str = field(repr=False)

    def reveal(self) -> str:
        """The text itself: for signatures, and for showing a new key to its owner once."""
        return self._text

    def __str__(self) -> str:
        return "***"

    def __repr__(self) -> str:
        return "Secret(***)"
