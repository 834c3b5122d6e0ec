"""What somebody does on a host, and what that makes of the model of it."""

from __future__ import annotations

import os
import shutil
import stat
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from tests.install.model import DIRECTORY, FILE, LINK, TOP, ModelHost, Thing, new_body

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BY_HAND = "by hand"
_NOWHERE = "nowhere"


class Kind(Enum):
    """What can be done."""

    EDIT = "write into a file"
    REPLACE = "rename another file over a file or link"
    REMOVE = "remove whatever is there"
    MODE = "give it another mode"
    MOVE = "move it"
    NAME = "give a file one more name"
    ADD = "make a file"
    LINK = "make a link"
    MAKE = "make a directory"


class Deed(NamedTuple):
    """What somebody does.

    Attributes:
        chance: picks one of the paths that are there.
        path: another one, below the top, where something new is made if nothing is there.
        content, mode: of what is written.
    """

    kind: Kind
    chance: int
    path: str
    content: str
    mode: int


def is_about_files(deed: Deed) -> bool:
    """Whether it can be done to a single file."""
    return deed.kind in {Kind.EDIT, Kind.REPLACE, Kind.REMOVE}


def do_to_file(deed: Deed, path: Path) -> None:
    """Do it to a file."""
    if deed.kind is Kind.REMOVE:
        path.unlink()
    elif deed.kind is Kind.REPLACE:
        beside = path.with_name(".being-written")
        beside.write_text(deed.content)
        beside.chmod(deed.mode)
        beside.rename(path)
    else:
        path.write_text(deed.content)


class Somebody:
    """Works on a host.

    Args:
        base: what the paths of the model are below.
        model: of the host.
    """

    def __init__(self, base: Path, model: ModelHost) -> None:
        self._base = base
        self._model = model

    def act(self, deed: Deed) -> None:
        """Do it, if it can be done, to the host and to the model."""
        other = f"{TOP}/{deed.path}"
        if deed.kind in {Kind.ADD, Kind.LINK, Kind.MAKE}:
            if self._is_free(other):
                self._make(deed, other)
            return
        paths = sorted(path for path in self._model.there if path != TOP)
        if not paths:
            return
        path = paths[deed.chance % len(paths)]
        if deed.kind is Kind.REMOVE:
            self._remove(path)
        elif deed.kind in {Kind.MOVE, Kind.NAME}:
            if self._is_free(other) and not other.startswith(path + "/"):
                self._name(deed, path, other)
        else:
            self._change(deed, path)

    def _name(self, deed: Deed, path: str, other: str) -> None:
        there = self._model.there
        if deed.kind is Kind.MOVE:
            self._move(path, other)
        elif there[path].kind == FILE:
            self._real(other).hardlink_to(self._real(path))
            there[other] = there[path]

    def _change(self, deed: Deed, path: str) -> None:
        thing = self._model.there[path]
        if deed.kind is Kind.MODE and thing.kind != LINK:
            self._real(path).chmod(deed.mode)
            self._note(path, thing.with_mode(deed.mode))
        elif deed.kind is Kind.EDIT and thing.kind == FILE:
            self._real(path).write_text(deed.content)
            mode = stat.S_IMODE(self._real(path).lstat().st_mode)  # it may have lost its setuid bit
            self._note(path, thing._replace(content=deed.content, mode=mode))
        elif deed.kind is Kind.REPLACE and thing.kind != DIRECTORY:
            self._make(deed, path)

    def _note(self, path: str, thing: Thing) -> None:
        """It has become that, under all of its names."""
        there = self._model.there
        names: Iterable[str] = [path]
        if thing.kind == FILE:
            # Not all that may be names of one file are.
            inode = self._real(path).lstat().st_ino
            files = [name for name in there if there[name].kind == FILE]
            names = [name for name in files if self._real(name).lstat().st_ino == inode]
        for name in names:
            there[name] = thing

    def _is_free(self, path: str) -> bool:
        """Whether nothing is there, in a directory that is there; the first two are made for that."""
        for made in (TOP, f"{TOP}/app"):
            if path.startswith(made + "/") and made not in self._model.there:
                self._make_directory(made)
        above = path.rpartition("/")[0]
        return path not in self._model.there and self._model.kind(above) == DIRECTORY

    def _make(self, deed: Deed, path: str) -> None:
        if deed.kind is Kind.MAKE:
            self._make_directory(path)
        elif deed.kind is Kind.LINK:
            self._real(path).symlink_to(_NOWHERE)
            self._model.there[path] = Thing(LINK, _NOWHERE, 0, os.geteuid())
        else:
            do_to_file(deed._replace(kind=Kind.REPLACE), self._real(path))
            thing = Thing(FILE, deed.content, deed.mode, os.geteuid(), new_body())
            self._model.there[path] = self._inherited(path, thing)

    def _make_directory(self, path: str) -> None:
        self._real(path).mkdir()
        self._real(path).chmod(0o755)
        self._model.there[path] = self._inherited(path, Thing(DIRECTORY, "", 0o755, os.geteuid()))

    def _inherited(self, path: str, thing: Thing) -> Thing:
        """With what the directory hands down that it is made in."""
        above = self._model.there.get(path.rpartition("/")[0])
        if above is None or above.default is None:
            return thing
        default = above.default if thing.kind == DIRECTORY else None
        return thing._replace(access=above.default, default=default).with_mode(thing.mode)

    def _remove(self, path: str) -> None:
        if self._model.kind(path) == DIRECTORY:
            shutil.rmtree(self._real(path))
        else:
            self._real(path).unlink()
        for name in self._below(path):
            del self._model.there[name]

    def _move(self, path: str, other: str) -> None:
        self._real(path).rename(self._real(other))
        for name in self._below(path):
            self._model.there[other + name[len(path) :]] = self._model.there.pop(name)

    def _below(self, path: str) -> list[str]:
        """It, and all that is in it."""
        return [name for name in self._model.there if name == path or name.startswith(path + "/")]

    def _real(self, path: str) -> Path:
        return self._base / path
