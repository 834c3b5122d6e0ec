"""What other rooms may use of a room that loads its parts when they are first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent import install, lifecycle

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = pytest.mark.parametrize("room", [install, lifecycle], ids=lambda room: room.__name__)


def test_every_name_that_is_exported_can_be_had(room: ModuleType) -> None:
    """They are loaded when they are first asked for, on some hosts only in the middle of the night."""
    assert sorted(room.__all__) == sorted(room._MODULES)
    assert all(getattr(room, name) is not None for name in room.__all__)


def test_a_name_that_is_not_exported_is_an_error_as_with_any_module(room: ModuleType) -> None:
    """Whoever asks whether there is such a name gets an answer."""
    with pytest.raises(AttributeError, match="no_such_name"):
        room.no_such_name  # noqa: B018 - asked for on purpose
