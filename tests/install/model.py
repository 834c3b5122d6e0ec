"""A host as Install should leave it, in plain Python: what docs/install-algorithm.md says, without a file system.

It knows no journal, no inodes and no order of steps, only outcomes: what is there, whose it is, and what one more
Install makes of that. Nothing here is shared with the agent, so that a mistake would have to be made twice.
"""

from __future__ import annotations

import itertools
import os
import stat
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.install.trees import Found

FILE, LINK, DIRECTORY = "file", "link", "directory"
TOP = "dest"
_numbers = itertools.count()


class Acl(NamedTuple):
    """An access control list with one named entry."""

    user: int
    named: int
    group: int
    mask: int
    other: int

    @property
    def shown(self) -> int:
        """The mode of what has it."""
        return self.user << 6 | self.mask << 3 | self.other

    @property
    def mode_without(self) -> int:
        """The mode that gives the same to those without a name."""
        return self.user << 6 | (self.group & self.mask) << 3 | self.other

    def after_chmod(self, mode: int) -> Acl:
        """What it becomes when its file is given this mode."""
        return self._replace(user=mode >> 6 & 7, mask=mode >> 3 & 7, other=mode & 7)


def acl_for(mode: int, named: int) -> Acl:
    """That of something with this mode, and one named entry more."""
    group = mode >> 3 & 7
    return Acl(mode >> 6 & 7, named, group, group | named, mode & 7)


Facts: TypeAlias = tuple[str, str, int, int, Acl | None, Acl | None]


class Thing(NamedTuple):
    """What has a path.

    Attributes:
        content: of a file; the target of a link.
        mode: of a file or directory, as it is shown.
        body: names of one file have the same.
        access, default: lists; None = there is none.
    """

    kind: str
    content: str = ""
    mode: int = 0
    uid: int = 0
    body: int = 0
    access: Acl | None = None
    default: Acl | None = None

    @property
    def looks(self) -> tuple[str, str]:
        """What nobody may ever see halfway."""
        return self.kind, self.content

    @property
    def facts(self) -> Facts:
        """All that a host tells of it alone."""
        return self.kind, self.content, self.mode, self.uid, self.access, self.default

    def with_mode(self, mode: int) -> Thing:
        """The same after a chmod."""
        return self._replace(mode=mode, access=self.access and self.access.after_chmod(mode))


def thing_of(found: Found) -> Thing:
    """What was found on a host; each is a file of its own."""
    content, mode = (found.content or b"").decode(), stat.S_IMODE(found.mode)
    if stat.S_ISDIR(found.mode):
        return Thing(DIRECTORY, "", mode, found.uid, 0, *map(_acl_of, found.acls))
    if stat.S_ISLNK(found.mode):
        return Thing(LINK, content, 0, found.uid)
    return Thing(FILE, content, mode, found.uid, new_body(), *map(_acl_of, found.acls))


def _acl_of(value: bytes | None) -> Acl | None:
    if value is None:
        return None
    entries = {tag: bits for tag, bits, _id in struct.iter_unpack("<HHI", value[4:])}
    return Acl(*(entries[tag] for tag in (0x01, 0x02, 0x04, 0x10, 0x20)))


def new_body() -> int:
    """The number of one more file."""
    return next(_numbers)


class Revision(NamedTuple):
    """What is to be installed.

    Attributes:
        tree: below `app` and `etc`, as `trees.write_tree` takes it; what begins with neither is not installed.
        parts: which of the two the AppSpec names.
        file_mode, directory_mode, uid: what `permissions` gives; None = nothing.
        has_label: whether it gives an SELinux context to files.
        hands_down: whether it gives a default entry for a user to directories.
    """

    tree: dict[str, Any]
    parts: tuple[str, ...]
    file_mode: int | None = None
    directory_mode: int | None = None
    uid: int | None = None
    has_label: bool = False
    hands_down: bool = False

    def appspec(self) -> str:
        """What asks for that."""
        files = ", ".join(f"{{source: {part}, destination: '@DEST@/{part}'}}" for part in self.parts)
        owner = "" if self.uid is None else f", owner: '{self.uid}'"
        mode = "" if self.file_mode is None else f", mode: '{self.file_mode:o}'"
        context = ", context: {type: etc_t}" if self.has_label else ""
        lines = []
        if owner or mode or context:
            lines.append(f"  - {{object: '@DEST@', type: [file]{owner}{mode}{context}}}")
        mode = "" if self.directory_mode is None else f", mode: '{self.directory_mode:o}'"
        acls = ", acls: ['d:u:nobody:rx']" if self.hands_down else ""
        if owner or mode or acls:
            lines.append(f"  - {{object: '@DEST@', type: [directory]{owner}{mode}{acls}}}")
        return "\n".join([f"files: [{files}]", *(["permissions:", *lines] if lines else [])])

    def destinations(self) -> Iterator[str]:
        """Where its files and links go."""
        for path in self.tree:
            if path.partition("/")[0] in self.parts and not path.endswith("/"):
                yield f"{TOP}/{path}"

    def directories(self, part: str) -> Iterator[tuple[str, list[str]]]:
        """Each directory of a part, and the names of files and links in it."""
        found: dict[str, list[str]] = {part: []}
        for path in sorted(self.tree):
            if path != f"{part}/" and path.startswith(f"{part}/"):
                above, _slash, name = path.rstrip("/").rpartition("/")
                while above not in found:
                    found[above] = []
                    above = above.rpartition("/")[0]
                if path.endswith("/"):
                    found.setdefault(path.rstrip("/"), [])
                else:
                    found[path.rpartition("/")[0]].append(name)
        return iter(sorted(found.items(), key=lambda item: item[0].split("/")))


class NotModelled(Exception):
    """What Install makes of this, only its own tests say."""


@dataclass(kw_only=True)
class Record:
    """What the last Install of a group has left; paths as the AppSpec spells them."""

    created: set[str] = field(default_factory=set)
    files: dict[str, Thing] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)

    def paths(self) -> set[str]:
        """All of them."""
        return self.created | self.files.keys()


class Outcome(NamedTuple):
    """What one Install makes of a host.

    Attributes:
        there: path → what is there afterwards.
        record: of the group.
        files: paths of files and links of the revision.
        has_retained: whether anything of others was kept by the rule RETAIN.
        moments: kind → how many moments of it an observer is told of, at least.
        moments_of_undo: the same of an undo, when everything has its place.
    """

    there: dict[str, Thing]
    record: Record
    files: set[str]
    has_retained: bool
    moments: dict[str, int]
    moments_of_undo: dict[str, int]


@dataclass(kw_only=True)
class ModelHost:
    """Paths below the top of a host, and what each group has installed there."""

    there: dict[str, Thing] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)

    def kind(self, path: str) -> str:
        """What is there; empty when nothing is."""
        return self.there[path].kind if path in self.there else ("" if path else DIRECTORY)

    def names_in(self, directory: str) -> set[str]:
        """All that is in it."""
        prefix = directory + "/"
        return {path[len(prefix) :].partition("/")[0] for path in self.there if path.startswith(prefix)}

    def resolve(self, path: str) -> tuple[str, str, bool]:
        """Where a path leads, what is there, and whether its last component is a link that was followed."""
        real, followed = "", False
        for name in path.split("/"):
            at = f"{real}/{name}".lstrip("/")
            if real and self.kind(real) != DIRECTORY:
                return at, "", False
            real, followed = at, False
            if self.kind(at) == LINK:
                target, kind, _ = self._target(at, depth=0)
                if kind != DIRECTORY:
                    return at, LINK, False
                self._check_trust(at, target)
                real, followed = target, True
        return real, self.kind(real), followed

    def _check_trust(self, link: str, target: str) -> None:
        """Which links are followed where others own anything, tests/security knows."""
        above = link
        while above:
            if {self.there[above].uid, self.there[target].uid} != {os.geteuid()}:
                raise NotModelled
            above = above.rpartition("/")[0]

    def _target(self, link: str, *, depth: int) -> tuple[str, str, bool]:
        if depth > 8:
            return link, LINK, False
        at = link.rpartition("/")[0]
        for name in self.there[link].content.split("/"):
            if self.kind(at) != DIRECTORY:
                return at, "", False
            at = at.rpartition("/")[0] if name == ".." else f"{at}/{name}"
            if self.kind(at) == LINK:
                at, kind, _ = self._target(at, depth=depth + 1)
                if kind != DIRECTORY:
                    return at, kind, False
        return at, self.kind(at), False

    def is_as_left(self, path: str, left: Thing) -> bool:
        """Whether what is there has the content, or target, that an Install has left."""
        return path in self.there and self.there[path].looks == left.looks

    def groups_claiming(self, path: str, besides: str) -> set[str]:
        """The other groups that have installed this path, and whose file is still there."""
        owners = set()
        for group, record in self.records.items():
            for spelled in record.paths():
                above, _slash, name = spelled.rpartition("/")
                if group == besides or f"{self.resolve(above)[0]}/{name}" != path:
                    continue
                left = record.files.get(spelled)
                if left is None or self.is_as_left(path, left):
                    owners.add(group)
        return owners
