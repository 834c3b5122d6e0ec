"""A host with a user's home, and the program that races."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.install.conftest import place
from tests.security.install.surroundings import SharedHost

__all__ = ["place"]


@pytest.fixture(scope="session")
def racer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The racing program, compiled once."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler for the program that races")
    program = tmp_path_factory.mktemp("racer") / "racer"
    source = Path(__file__).with_name("racer.c")
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)
    return program


@pytest.fixture
def host(place: Path) -> SharedHost:
    """A host on which nothing was ever deployed."""
    return SharedHost(place)
