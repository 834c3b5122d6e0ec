"""What holds for every test."""

from __future__ import annotations

import compileall
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

import agent

if TYPE_CHECKING:
    from collections.abc import Iterator

# How long something takes says how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True, scope="session")
def _compiled() -> None:
    """Agents compile nothing themselves, and would take seconds to load what has just been edited."""
    compileall.compile_dir(Path(agent.__file__).parent, quiet=2)


@pytest.fixture(autouse=True, scope="session")
def _usual_signals() -> Iterator[None]:
    """Whoever runs the tests with nohup, or in the background, has their programs ignore signals as well."""
    was = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT)}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in was.items():
        signal.signal(number, handler)
