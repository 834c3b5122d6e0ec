"""A host to install on: destinations, archives and the instructions directory below one directory."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.install.posix import batched
from tests.install.again import TREE, forget_states, install_until_known
from tests.install.batched_pair import Pair
from tests.install.children import no_library
from tests.install.host import Host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.install.posix.batched import Library

MEMORY = Path("/dev/shm")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """An empty directory that everybody may enter; in memory where that is possible, because disks are slow."""
    if not os.access(MEMORY, os.W_OK | os.X_OK):
        yield tmp_path
        return
    directory = Path(tempfile.mkdtemp(prefix="install-test-", dir=MEMORY))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def host(place: Path) -> Host:
    """A host on which nothing was ever deployed."""
    return Host(place)


@pytest.fixture(params=[True, False], ids=["states known", "states not known"])
def known(request: pytest.FixtureRequest, host: Host) -> Host:
    """A host with the revision, and whatever is known of it after a slow Install or a quick one."""
    host.dest.mkdir()
    install_until_known(host, TREE)
    if not request.param:
        forget_states(host)
    return host


@pytest.fixture(params=["compiled", "python"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether what is usual is done for a whole directory by the compiled library, or by Python as on hosts without it."""
    if request.param == "python":
        monkeypatch.setattr(batched, "library", no_library)
    elif batched.library() is None:
        pytest.skip("the library was not compiled: there is no C compiler")


@pytest.fixture
def compiled() -> Library:
    """The compiled library itself."""
    found = batched.library()
    if found is None:
        pytest.skip("the library was not compiled: there is no C compiler")
    return found


@pytest.fixture
def pair(place: Path) -> Iterator[Pair]:
    """A directory of an archive and one of the host, for its functions."""
    pair = Pair(place)
    yield pair
    pair.close()
