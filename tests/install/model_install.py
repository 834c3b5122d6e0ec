"""What one Install makes of a host, in plain Python."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from agent.protocol import FileExistsBehavior
from tests.install.model import (
    DIRECTORY,
    FILE,
    LINK,
    TOP,
    Acl,
    ModelHost,
    NotModelled,
    Outcome,
    Record,
    Thing,
    acl_for,
    new_body,
)

if TYPE_CHECKING:
    from tests.install.model import Revision


_NAMED = 5

# Moments that each Install has once.
_ALWAYS = ("journal", "install.json", "switch", "cleanup file", "manifest", "commit", "publish", "published")


class Refused(Exception):
    """This Install is not possible: something is in its way."""


def outcome_of(host: ModelHost, group: str, revision: Revision, rule: FileExistsBehavior) -> Outcome:
    """What an Install makes of the host as it is, which stays so.

    Raises:
        Refused: it is not possible, and nothing changes.
        NotModelled: nobody can tell here.
    """
    return _Planning(host, group, revision, rule).outcome()


class _Place(NamedTuple):
    """A directory that the revision needs.

    Attributes:
        path: as the AppSpec spells it.
        standing: "new", "ours" or "foreign".
        above: the one that it lies in.
    """

    path: str
    real: str
    standing: str
    above: _Place | None


class _Planning:
    """One Install, thought through before anything is done."""

    def __init__(self, host: ModelHost, group: str, revision: Revision, rule: FileExistsBehavior) -> None:
        self._host = host
        self._group = group
        self._revision = revision
        self._rule = rule
        self._owned: dict[str, dict[str, Thing]] = {}
        self._owned_directories: set[str] = set()
        self._known: dict[str, _Place | None] = {"": _Place("", "", "foreign", None)}
        self._files: dict[str, tuple[str, str]] = {}  # real → path as spelled, and in the archive
        self._directories: dict[str, tuple[str, str]] = {}  # real → path as spelled, standing
        self._refused = False
        self._turned_away: set[str] = set()
        self._read_record(host.records.get(group, Record()))
        self._vanishing = self._vanishing_directories()

    def outcome(self) -> Outcome:
        for part in self._revision.parts:
            for directory, names in self._revision.directories(part):
                self._plan_directory(f"{TOP}/{directory}", directory, names)
        if self._refused:
            raise Refused
        there = dict(self._host.there)
        self._remove_old(there)
        record = Record(created=set(), files={})
        for real, (spelled, standing) in sorted(self._directories.items(), key=lambda item: len(item[0])):
            if standing != "foreign":
                if self._host.kind(real) not in {"", DIRECTORY}:
                    del there[real]
                there[real] = self._directory(real)
                record.created.add(spelled)
        self._put_files(there, record)
        gone = self._owned_directories - self._by_real()
        for real in sorted(gone, key=len, reverse=True):
            if real in there and there[real].kind == DIRECTORY and not ModelHost(there=there).names_in(real):
                del there[real]
        if self._revision.has_label:
            record.labels = set(record.files)
        moments = self._moments(there, record, len(gone))
        return Outcome(
            there,
            record,
            set(self._files),
            bool(self._turned_away),
            moments,
            self._moments_of_undo(moments, there),
        )

    def _moments(self, there: dict[str, Thing], record: Record, leftover_directories: int) -> Counter[str]:
        """What surely has to be done, and how often."""
        moments = Counter(_ALWAYS)
        old, copied = self._host.there, set()
        moments["rmdir"] = leftover_directories
        moments["label"] = len(record.labels)
        for real, (_path, standing) in self._directories.items():
            above = real.rpartition("/")[0]
            is_new, is_outer = standing == "new", self._directories.get(above, ("", ""))[1] != "new"
            moments["mkdir"] += is_new
            moments["rename"] += is_new and is_outer
            moments["remove hidden"] += is_new and real in old
            given = self._revision
            gets = given.directory_mode is not None or given.uid is not None or given.hands_down
            moments["attributes"] += real != TOP and (
                (is_new and gets) or (standing == "ours" and old[real].facts != there[real].facts)
            )
        for real in self._files:
            now = there[real]
            stands_in_new = self._directories[real.rpartition("/")[0]][1] == "new"
            if self._changes(real, there):
                moments["link"] += now.kind == LINK
                moments["copy"] += now.kind == FILE and now.body not in copied
                copied.add(now.body)
                moments["rename"] += not stands_in_new
                moments["remove hidden"] += real in old
            else:
                moments["adjust"] += self._is_adjusted(old[real], now, there)
        moments["remove"] = sum(
            f"{directory}/{name}" in old
            and old[f"{directory}/{name}"].kind != DIRECTORY
            and self._goes(f"{directory}/{name}", left)
            for directory, names in self._owned.items()
            for name, left in names.items()
        )
        return +moments

    def _changes(self, real: str, there: dict[str, Thing]) -> bool:
        """Whether a file or link surely has to be made anew."""
        return real not in self._host.there or self._host.there[real].looks != there[real].looks

    def _is_adjusted(self, was: Thing, now: Thing, there: dict[str, Thing]) -> bool:
        """Whether a file surely keeps its content, and gets another mode."""
        return (
            now.kind == FILE
            and was.mode != now.mode
            and was.uid == now.uid
            and was.access is None is now.access
            and not (was.mode | now.mode) & 0o6000
            and sum(thing.kind == FILE and thing.body == was.body for thing in self._host.there.values()) == 1
            and sum(thing.kind == FILE and thing.body == now.body for thing in there.values()) == 1
        )

    def _moments_of_undo(self, moments: Counter[str], there: dict[str, Thing]) -> Counter[str]:
        """What has to be done to put everything back."""
        old = self._host.there
        new = {real for real, (_path, standing) in self._directories.items() if standing == "new"}
        changed = [
            real for real in self._files if real.rpartition("/")[0] not in new and self._changes(real, there)
        ]
        replaced = sum(real in old for real in changed)
        return +Counter(
            {
                "restore old": replaced + sum(real in old for real in new),
                "remove new": len(new),
                "hide new": len(changed) - replaced,
                "restore file": moments["adjust"],
                "discard": len(changed),
                "restore directory": bool(changed or new or moments["adjust"]),
            }
        )

    def _read_record(self, record: Record) -> None:
        """What is still there of what the last Install has left, by real paths."""
        directories = record.created | {path.rpartition("/")[0] for path in record.files}
        for path in sorted(directories, key=len):
            real, kind, _is_link = self._host.resolve(path)
            if kind != DIRECTORY:
                continue
            if self._is_moved(path, record.created):
                raise NotModelled
            if path in record.created:
                self._owned_directories.add(real)
            for spelled, left in record.files.items():
                above, _slash, name = spelled.rpartition("/")
                if above == path:
                    self._owned.setdefault(real, {})[name] = left

    def _is_moved(self, path: str, created: set[str]) -> bool:
        """Whether a link stands where a directory had been created, or above."""
        while path:
            if path in created and self._host.resolve(path)[2]:
                return True
            path = path.rpartition("/")[0]
        return False

    def _vanishing_directories(self) -> set[str]:
        """Directories of ours that hold nothing but what is ours."""
        vanishing: set[str] = set()
        for real in sorted(self._owned_directories, key=len, reverse=True):
            known = self._owned.get(real, {})
            names = self._host.names_in(real)
            if all(f"{real}/{name}" in vanishing for name in names - known.keys()) and not any(
                self._host.kind(f"{real}/{name}") == DIRECTORY for name in names & known.keys()
            ):
                vanishing.add(real)
        return vanishing

    def _place(self, path: str) -> _Place | None:
        """How a directory stands that the revision needs; None where there can't be one."""
        if path not in self._known:
            self._known[path] = self._look(path)
        return self._known[path]

    def _look(self, path: str) -> _Place | None:
        above, _slash, name = path.rpartition("/")
        parent = self._place(above)
        if parent is None:
            return None
        real = f"{parent.real}/{name}".lstrip("/")
        found, kind, is_link = self._host.resolve(real)
        if parent.standing == "new":
            standing = "new"
        elif real in self._vanishing:
            standing = "ours"
        elif kind == DIRECTORY and not is_link:
            standing = "foreign"
        elif not kind or name in self._owned.get(parent.real, {}):
            standing = "new"
        else:
            place = self._place(found) if kind == DIRECTORY else None
            self._refused = self._refused or place is None
            return place and place._replace(path=path)
        return _Place(path, real, standing, parent)

    def _plan_directory(self, path: str, source: str, names: list[str]) -> None:
        place = self._place(path)
        if place is None:
            return
        self._note(place)
        for name in names:
            real = f"{place.real}/{name}"
            if real in self._files or real in self._directories:
                self._refused = True
            elif self._may_install(place, name):
                self._files[real] = (f"{path}/{name}", f"{source}/{name}")

    def _note(self, place: _Place) -> None:
        """Plan a directory, and those above it."""
        if place.above is None or place.real in self._directories:
            return
        self._directories[place.real] = (place.path, place.standing)
        self._note(place.above)
        if place.real in self._files:
            self._refused = True

    def _may_install(self, place: _Place, name: str) -> bool:
        """Whether a file may have this name; what can't is turned away."""
        real = f"{place.real}/{name}"
        if place.standing == "new":
            return True
        if self._host.kind(real) == DIRECTORY:
            may = real in self._owned_directories and not self._blocks(real)
        elif place.standing == "ours" or not self._host.kind(real):
            return True
        else:
            may = name in self._owned.get(place.real, {}) or self._rule is FileExistsBehavior.OVERWRITE
        if not may:
            if self._rule is not FileExistsBehavior.RETAIN:
                self._refused = True
            self._turned_away.add(real)
        return may

    def _blocks(self, real: str) -> bool:
        """Whether a directory of ours holds anything that must not go with it."""
        for name in self._host.names_in(real):
            inner, left = f"{real}/{name}", self._owned.get(real, {}).get(name)
            if inner in self._owned_directories and self._host.kind(inner) == DIRECTORY:
                if self._blocks(inner):
                    return True
            elif (
                left is None
                or not self._host.is_as_left(inner, left)
                or self._host.groups_claiming(inner, self._group)
            ):
                return True
        return False

    def _by_real(self) -> set[str]:
        """Directories that the revision has anything to do with."""
        return {place.real for place in self._known.values() if place is not None}

    def _remove_old(self, there: dict[str, Thing]) -> None:
        """Take away what only the previous revision has, and that is still as it was left."""
        for directory, names in self._owned.items():
            for name, left in names.items():
                if self._goes(f"{directory}/{name}", left):
                    del there[f"{directory}/{name}"]

    def _goes(self, path: str, left: Thing) -> bool:
        return (
            path not in self._files
            and path not in self._by_real()
            and self._host.is_as_left(path, left)
            and not self._host.groups_claiming(path, self._group)
        )

    def _put_files(self, there: dict[str, Thing], record: Record) -> None:
        bodies: dict[str, int] = {}
        for real, (spelled, source) in self._files.items():
            if there.get(real, Thing("")).kind == DIRECTORY:
                for path in [path for path in there if path == real or path.startswith(real + "/")]:
                    del there[path]
            value = self._revision.tree[source]
            described = value if isinstance(value, dict) else {"content": value}
            if "link" in described:
                there[real] = Thing(LINK, described["link"], 0, self._uid())
            else:
                first = described.get("same_as", source)
                found = self._revision.tree[first]
                content = found["content"] if isinstance(found, dict) else found
                own_mode = found.get("mode", 0o644) if isinstance(found, dict) else 0o644
                mode = own_mode if self._revision.file_mode is None else self._revision.file_mode
                body = bodies.setdefault(first, new_body())
                access = self._handed_down(real.rpartition("/")[0])
                access = access and access.after_chmod(mode)
                there[real] = Thing(FILE, content, mode, self._uid(), body, access)
            record.files[spelled] = there[real]

    def _uid(self) -> int:
        return os.geteuid() if self._revision.uid is None else self._revision.uid

    def _directory(self, real: str) -> Thing:
        """What one of ours is in the end: made anew in the one above, and given what `permissions` says."""
        inherited = self._handed_down(real.rpartition("/")[0])
        mode = 0o755 if inherited is None else inherited.mode_without
        if real == TOP:
            return _directory(mode, os.geteuid(), inherited, inherited)
        access = default = inherited
        given = self._revision.directory_mode
        if given is not None:
            mode, access = given, access and access.after_chmod(given)
        if self._revision.hands_down:
            access, default = None, acl_for(mode, _NAMED)
        return _directory(mode, self._uid(), access, default)

    def _handed_down(self, real: str) -> Acl | None:
        """What files and directories get that are made in this one."""
        if self._directories.get(real, ("", "foreign"))[1] != "foreign":
            return self._handed_down(real.rpartition("/")[0])
        return self._host.there[real].default if real in self._host.there else None


def _directory(mode: int, uid: int, access: Acl | None, default: Acl | None) -> Thing:
    return Thing(DIRECTORY, "", mode if access is None else access.shown, uid, 0, access, default)
