"""What other rooms may use of lifecycle."""

from __future__ import annotations

import pytest

from agent import lifecycle


def test_every_name_that_is_exported_can_be_had() -> None:
    """They are loaded when they are first asked for, on some hosts only in the middle of the night."""
    assert sorted(lifecycle.__all__) == sorted(lifecycle._MODULES)
    assert all(getattr(lifecycle, name) is not None for name in lifecycle.__all__)


def test_a_name_that_is_not_exported_is_an_error_as_with_any_module() -> None:
    """Whoever asks whether there is such a name gets an answer."""
    with pytest.raises(AttributeError, match="no_such_name"):
        lifecycle.no_such_name  # noqa: B018 - asked for on purpose
