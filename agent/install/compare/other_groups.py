"""What other deployment groups have installed on this host, and what they are just installing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from agent.deployments.group_files import GroupFiles
from agent.errors import CommandFailure
from agent.install.journal.entries import Change, NewDirectory
from agent.install.journal.journal import Journal
from agent.install.records.manifest import decode_record, is_as_left
from agent.install.records.previous import fitting_records
from agent.listings import Sections
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from agent.install.records.manifest import Record

log = get_logger()

_CLEANUP, _JOURNAL = "-cleanup", "-journal"


class Claim(NamedTuple):
    """Another group has installed something at a path.

    Attributes:
        group_id: of that group.
        record: how its Install left it; None when that is not known.
    """

    group_id: str
    record: Record | None


class Overlap(NamedTuple):
    """Another group's Install, neither complete nor undone, makes something where this one is to make something.

    Attributes:
        path: without links.
        group_id: of the other group.
        journal: of its Install; while that lasts, the file is there.
    """

    path: bytes
    group_id: str
    journal: Path

    def failure(self) -> CommandFailure:
        """What to tell of it."""
        message = (
            f"Deployment group {self.group_id} is just installing {os.fsdecode(self.path)}, and this Install would put"
            " something there, too, or below it. Nothing was changed. Deploy again when that Install has ended. If no"
            f" agent is at work on it, `agentctl recover --deployment-group {self.group_id}` puts it in order."
        )
        return CommandFailure("install-overlap", message)


def claims_on(directory: Path, group_id: str, paths: set[bytes]) -> dict[bytes, list[Claim]]:
    """The claims of other groups on these paths; paths without any are left out.

    Reads the records of all other groups, so ask about all paths at once, and only when there are some.

    Args:
        directory: where the records lie.
        group_id: whose claims don't count.
        paths: without links, but for the last component.
    """
    claims: dict[bytes, list[Claim]] = {}
    if not paths:
        return claims
    names = {path.rpartition(b"/")[2] for path in paths}
    reals: dict[bytes, bytes] = {}
    for files in _others(directory, group_id, _CLEANUP):
        found: dict[bytes, bytes] = {}
        records: dict[bytes, Record] = {}
        try:
            found.update(_listed(files, names, paths, reals))
            records = _records(files, found)
        except FileNotFoundError:
            pass  # nobody claims anything there any more
        except OSError as error:
            log.warning("claims_unreadable", group_id=files.group_id, error=error.strerror or str(error))
        for listed, real in found.items():
            claims.setdefault(real, []).append(Claim(files.group_id, records.get(listed)))
    return claims


def find_overlap(directory: Path, group_id: str, concerns: Callable[[bytes, bytes], bool]) -> Overlap | None:
    """The first thing that another group's Install is just making, and that concerns this one; None when nothing is.

    What an Install makes is nobody's until it has succeeded: it may still take it away again, with all
    that is in it. Before its journal says what it will make, it has made nothing that others can see.

    Args:
        directory: where the journals lie.
        group_id: whose own journal doesn't count.
        concerns: whether a name in a directory, given by its real path, is of any concern.

    Raises:
        CommandFailure: `install-journal-unreadable`.
    """
    for files in _others(directory, group_id, _JOURNAL):
        for parent, name in _made(files.journal):
            if concerns(parent, name):
                return Overlap(parent.rstrip(b"/") + b"/" + name, files.group_id, files.journal)
    return None


def others_install(directory: Path, group_id: str) -> bool:
    """Whether an Install of another group is neither complete nor undone."""
    return any(True for _files in _others(directory, group_id, _JOURNAL))


def _others(directory: Path, group_id: str, suffix: str) -> Iterator[GroupFiles]:
    """The files of the other groups that have one with this suffix."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in sorted(names):
        other = name.removesuffix(suffix)
        # Records that wait for their Install to succeed begin with a dot.
        if other not in {name, group_id} and not name.startswith("."):
            yield GroupFiles(directory=directory, group_id=other)


def _made(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Directory and name of all that the Install with this journal makes, but for what is in its new directories."""
    try:
        journal = Journal(path)
    except CommandFailure as failure:
        if isinstance(failure.__cause__, FileNotFoundError):
            return  # it has ended meanwhile
        raise
    if not journal.is_switching:
        return
    for entry in journal.entries(b"nrc"):
        if isinstance(entry, Change):
            yield entry.directory, entry.name
        elif isinstance(entry, NewDirectory):
            parent, _slash, name = entry.path.rpartition(b"/")
            yield parent or b"/", name


def _listed(
    files: GroupFiles, names: set[bytes], paths: set[bytes], reals: dict[bytes, bytes]
) -> Iterator[tuple[bytes, bytes]]:
    """Each of the paths that the group lists, as it spells it, and without links.

    Args:
        files: of the group.
        names: last components of the paths, since most lines have others.
        paths: those that matter.
        reals: real paths of directories, as far as they are known.
    """
    with open(files.cleanup, "rb") as lines:
        for line in lines:
            path = line.rstrip(b"\n")
            parent, _slash, name = path.rpartition(b"/")
            if name not in names or not path.startswith(b"/"):
                continue
            real = reals.get(parent)
            if real is None:
                real = reals[parent] = os.path.realpath(parent or b"/").rstrip(b"/")
            if real + b"/" + name in paths:
                yield path, real + b"/" + name


def _records(files: GroupFiles, listed: Collection[bytes]) -> dict[bytes, Record]:
    """How the group's last Install left these paths, as far as its manifest tells."""
    if not listed:
        return {}
    sections = Sections(fitting_records(files).listed)
    for _directory in sections.directories():
        pass
    records = {}
    for path in listed:
        parent, _slash, name = path.rpartition(b"/")
        fields = sections.of(parent or b"/").get(name)
        if fields:
            records[path] = decode_record(fields)
    return records


ClaimsOn: TypeAlias = "Callable[[set[bytes]], dict[bytes, list[Claim]]]"
"""Which claims other groups have on these paths, which are without links."""


def owners_besides(claims_on: ClaimsOn, paths: set[bytes]) -> dict[bytes, str]:
    """Path → the group besides ours whose file is there, too, untouched; paths of ours alone are left out."""
    owners: dict[bytes, str] = {}
    for path, claims in claims_on(paths).items():
        for claim in claims:
            if _is_still_there(path, claim.record):
                owners[path] = claim.group_id
                break
    return owners


def _is_still_there(path: bytes, record: Record | None) -> bool:
    """Whether that is what another group has left. Somebody may have installed something else over it."""
    if record is None or not record.digest:
        return True
    try:
        return is_as_left(path, os.lstat(path), record)
    except FileNotFoundError:
        return False
    except OSError:
        return True
