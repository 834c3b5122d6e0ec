"""What a room exports, loaded when it is first asked for: whoever needs one of its parts does not pay for the others."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def exporting(room: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a room.

    Args:
        room: its `__name__`.
        modules: name that it exports → the module inside of it that has it.
    """

    def load(name: str) -> Any:
        """Load what is asked for by this name.

        Raises:
            AttributeError: the room does not export it.
        """
        if name not in modules:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        module = __import__(f"{room}.{modules[name]}", fromlist=(name,))
        value = getattr(module, name)
        setattr(sys.modules[room], name, value)  # the next time, nobody asks here
        return value

    return load
