"""Somebody at a terminal, with one of the shells that completions are made for."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.daemon.agent_process import AGENTCTL, clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROJECT = Path(__file__).parents[2]
COMPLETIONS = PROJECT / "packaging/completions"
COMMANDS = ("agentctl", "codedeploy-agent", "codedeploy-local")
PATIENCE_S = 30.0
_TAB, _TO_BEGIN, _ENTER = "\t", "\x01", "\r"


class Terminal:
    """An interactive shell that has the completions, and what it has shown so far."""

    def __init__(self, shell: str, directory: Path) -> None:
        self.programs = directory / "programs"
        self._shell = shell
        self._shown = ""
        home = directory / "home"
        home.mkdir()
        _install(self.programs, directory / "completions")
        environment = clean_environment(
            HOME=str(home),
            PATH=f"{self.programs}:/usr/bin:/bin",
            PS1="$ ",
            TERM="dumb" if shell == "bash" else "xterm",
            XDG_CONFIG_HOME=str(home),
            XDG_DATA_HOME=str(home),
        )
        self._process, self._terminal = _start(shell, environment, home)
        for line in _preparations(shell, directory / "completions"):
            self._type(line + _ENTER)
        self._wait_for("<ready>", typed=" printf '<%s>' ready" + _ENTER)

    def completed(self, line: str) -> list[str]:
        """The words that stand there after this line and TAB."""
        typed = f"{line}{_TAB}{_TO_BEGIN} printf '<%s>' BEGIN {_ENTER}"
        shown = self._wait_for(r"<BEGIN>[^\r\n]*", typed=typed)
        return re.findall(r"<([^<>]*)>", shown)[1:]

    @property
    def shown(self) -> str:
        """All that the terminal has shown, escape sequences included."""
        return self._shown

    def close(self) -> None:
        """Nothing of it is left."""
        self._process.kill()
        self._process.wait(PATIENCE_S)
        os.close(self._terminal)

    def _type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def _wait_for(self, pattern: str, *, typed: str) -> str:
        """The first new text on the terminal with this pattern."""
        before = len(self._shown)
        self._type(typed)
        end = time.monotonic() + PATIENCE_S
        while True:
            found = re.search(pattern, self._shown[before:])
            # Nothing has come for a moment: the line is complete.
            if not select.select([self._terminal], [], [], 0.1 if found else 1)[0]:
                if found:
                    return found[0]
                assert time.monotonic() < end, f"{self._shell} has only shown {self._shown[before:]!r}"
                continue
            self._shown += os.read(self._terminal, 65536).decode("utf-8", "replace")


def _install(programs: Path, completions: Path) -> None:
    programs.mkdir()
    completions.mkdir()
    (programs / "agentctl").symlink_to(AGENTCTL)
    for command in COMMANDS[1:]:
        (programs / command).symlink_to(PROJECT / "packaging/commands" / command)
    for command in COMMANDS:
        # By the names that the shells look for.
        shutil.copy(COMPLETIONS / f"{command}.bash", completions / command)
        shutil.copy(COMPLETIONS / f"{command}.zsh", completions / f"_{command}")
        shutil.copy(COMPLETIONS / f"{command}.fish", completions / f"{command}.fish")


def _start(shell: str, environment: Mapping[str, str], home: Path) -> tuple[subprocess.Popen[bytes], int]:
    options = {"bash": ("--norc", "--noprofile"), "zsh": ("-f",), "fish": ("--no-config",)}[shell]
    terminal, shells_side = pty.openpty()
    try:
        process = subprocess.Popen(
            # fish wants the terminal to be its own.
            ["setsid", "--ctty", shell, *options, "-i"],
            stdin=shells_side,
            stdout=shells_side,
            stderr=shells_side,
            env=environment,
            cwd=home,
        )
    finally:
        os.close(shells_side)
    return process, terminal


def _preparations(shell: str, completions: Path) -> Iterator[str]:
    """What a login does, after which the shell finds the completions by itself; bash is told to load them."""
    if shell == "bash":
        yield from (f"source {completions}/{command}" for command in COMMANDS)
    elif shell == "zsh":
        yield f"fpath=({completions} $fpath); autoload -U compinit; compinit -u -D"
    else:
        yield f"set --prepend fish_complete_path {completions}; function fish_prompt; printf '$ '; end"


@contextlib.contextmanager
def terminal_with(shell: str, directory: Path) -> Iterator[Terminal]:
    """A terminal with this shell; skips the test where that is not installed."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    terminal = Terminal(shell, directory)
    try:
        yield terminal
    finally:
        terminal.close()
