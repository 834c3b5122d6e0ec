"""Packages as `make packages` builds them, clean Debian roots to install them in, and real servers to deploy from."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.stack import Stack
from tests.e2e.conftest import Fleet
from tests.packaging.booted.builds import Build, Packages, copy_project, start_build
from tests.packaging.booted.site import Site
from tests.packaging.booted.trees import start_debian, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.packaging.booted.root import BootedRoot

_FIGURES = pytest.StashKey[list[str]]()
UPGRADED = "9.9.9"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What was measured stands at the end of the run, whether or not somebody looks for it."""
    if config.stash[_FIGURES]:
        terminalreporter.section("packages: figures")
        for line in config.stash[_FIGURES]:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> list[str]:
    """Lines for the end of the run."""
    return pytestconfig.stash[_FIGURES]


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A directory in memory. PACKAGING_SCRATCH names one that is kept, with the Debian root in it, which saves 20 s."""
    kept = os.environ.get("PACKAGING_SCRATCH")
    if kept:
        Path(kept).mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="packaging-", dir=kept or "/dev/shm"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def made(scratch: Path) -> tuple[Packages, Path]:
    """The packages in two versions, and a clean Debian root as tar: all made at once, as each uses one core."""
    kept = Path(os.environ.get("PACKAGING_SCRATCH", scratch))
    packages = Packages(
        directory=scratch / "packages", upgraded=scratch / "upgraded", checkout=scratch / "checkout"
    )
    copy_project(packages.checkout)
    started = [
        start_build(Build(version=None, kinds="deb,rpm,tar.gz"), packages.directory),
        start_build(Build(version=UPGRADED, kinds="deb"), packages.upgraded),
    ]
    debian, root_tar = start_debian(kept, scratch)
    with contextlib.ExitStack() as rest:
        for command in [*started, *debian]:
            rest.callback(command.end)
        for command in [*started, *debian]:
            command.finish()
    return packages, root_tar


@pytest.fixture(scope="session")
def packages(made: tuple[Packages, Path]) -> Packages:
    """What `make packages` has built."""
    return made[0]


@pytest.fixture(scope="session")
def clean_tree(made: tuple[Packages, Path], scratch: Path) -> Path:
    """A Debian root without Python, in which nothing was installed; not to be changed."""
    return unpack(made[1], scratch / "clean")


@pytest.fixture(scope="session")
def installed_tree(made: tuple[Packages, Path], packages: Packages, scratch: Path) -> Path:
    """A Debian tree with our package, installed and enabled where no systemd runs, as images are built."""
    tree = unpack(made[1], scratch / "installed")
    packages.install_in(tree)
    return tree


@pytest.fixture(scope="session")
def stack(scratch: Path) -> Iterator[Stack]:
    """A control endpoint and an S3 server."""
    directory = scratch / "servers"
    directory.mkdir()
    with Stack(directory) as running:
        # A command that an agent was just given when it ended comes again after so many seconds.
        running.start_control("--redeliver-after", "5")
        running.start_s3()
        yield running


@pytest.fixture(scope="session")
def site(stack: Stack, scratch: Path) -> Iterator[Site]:
    """Boots hosts, and ends those that are left."""
    site = Site(stack=stack, fleet=Fleet(stack), scratch=scratch)
    yield site
    for host in site.booted:
        host.end()


@pytest.fixture(scope="session")
def installed_host(site: Site, installed_tree: Path) -> BootedRoot:
    """A host that was booted with the agent enabled. Shared: tests leave it with an agent that runs."""
    return site.boot(installed_tree)
