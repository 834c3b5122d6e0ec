"""What other deployment groups have installed on this host, and what they are currently installing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from agent.deployments.group_files import GroupFiles
from agent.errors import CommandFailure
from agent.install.journal.entries import Addition, NewDirectory, Replacement
from agent.install.journal.journal import Journal
from agent.install.records.manifest import decode_record, is_as_left
from agent.install.records.previous import fitting_records
from agent.listings import Sections
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from agent.install.posix.places import Places
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


class InstallOverlap(CommandFailure):
    """Another group's Install, neither complete nor undone, makes something where this one is to make something.

    Attributes:
        path: of that, without links.
        group_id: of the other group.
        journal: of its Install; while that lasts, the file is there.
    """

    def __init__(self, path: bytes, group_id: str, journal: Path) -> None:
        message = (
            f"Deployment group {group_id} is currently installing {os.fsdecode(path)}, and this Install would put"
            " something there, too, or below it. Nothing was changed. Deploy again when that Install has ended. If no"
            f" agent is at work on it, `agentctl recover --deployment-group {group_id}` puts it in order."
        )
        super().__init__("install-overlap", message)
        self.path = path
        self.group_id = group_id
        self.journal = journal


class OtherGroups:
    """The other deployment groups on this host.

    Args:
        directory: where the records and journals of all groups lie.
        group_id: of ours, whose own don't count.
        places: of this Install.
    """

    def __init__(self, directory: Path, group_id: str, places: Places) -> None:
        self._directory = directory
        self._group_id = group_id
        self._places = places

    def claims_on(self, paths: set[bytes]) -> dict[bytes, list[Claim]]:
        """Their claims on these paths; paths without any are left out.

        Reads the records of all of them, so ask about all paths at once, and only when there are some.

        Args:
            paths: without links, but for the last component.

        Raises:
            OSError: the records of one of them can't be read, so that nobody knows what it claims.
        """
        claims: dict[bytes, list[Claim]] = {}
        if not paths:
            return claims
        names = {path.rpartition(b"/")[2] for path in paths}
        for files in self._others(_CLEANUP):
            found: dict[bytes, bytes] = {}
            records: dict[bytes, Record] = {}
            try:
                found.update(_listed(files, names, paths, self._places))
                records = _records(files, found)
            except FileNotFoundError:
                pass  # nobody claims anything there any more
            except OSError as error:
                error.filename = error.filename or os.fspath(files.cleanup)
                raise
            for listed, real in found.items():
                claims.setdefault(real, []).append(Claim(files.group_id, records.get(listed)))
        return claims

    def groups_claiming(self, paths: set[bytes]) -> dict[bytes, str]:
        """Path → another group whose file is there, too, untouched; paths of ours alone are left out.

        Raises:
            OSError: as `claims_on`.
        """
        owners: dict[bytes, str] = {}
        for path, claims in self.claims_on(paths).items():
            for claim in claims:
                if self._is_still_there(path, claim.record):
                    owners[path] = claim.group_id
                    break
        return owners

    def check_overlap(self, concerns: Callable[[bytes, bytes], bool]) -> None:
        """Check that nothing that another group's Install is making concerns this one (I12).

        What an Install makes is nobody's until it has succeeded: it may still take it away again, with all
        that is in it. Before its journal says what it will make, it has made nothing that others can see.

        Args:
            concerns: whether a name in a directory, given by its real path, is of any concern.

        Raises:
            InstallOverlap: something does.
            CommandFailure: `install-journal-unreadable`.
        """
        for files in self._others(_JOURNAL):
            for parent, name in _made(files.journal):
                if concerns(parent, name):
                    raise InstallOverlap(parent.rstrip(b"/") + b"/" + name, files.group_id, files.journal)

    def are_installing(self) -> bool:
        """Whether an Install of one of them is neither complete nor undone."""
        return any(True for _files in self._others(_JOURNAL))

    def _others(self, suffix: str) -> Iterator[GroupFiles]:
        """The files of those that have one with this suffix."""
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return
        for name in sorted(names):
            other = name.removesuffix(suffix)
            # Records that wait for their Install to succeed begin with a dot.
            if other not in {name, self._group_id} and not name.startswith("."):
                yield GroupFiles(directory=self._directory, group_id=other)

    def _is_still_there(self, path: bytes, record: Record | None) -> bool:
        """Whether that is what another group has left. Somebody may have installed something else over it."""
        if record is None or not record.digest:
            return True
        above, _slash, name = path.rpartition(b"/")
        try:
            dir_fd = self._places.of(above or b"/")
            status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
            return is_as_left(name, status, record, dir_fd=dir_fd)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True


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
    for entry in journal.entries(Addition, Replacement, NewDirectory):
        parent, _slash, name = entry.path.rpartition(b"/")
        yield parent or b"/", name


def _listed(
    files: GroupFiles, names: set[bytes], paths: set[bytes], places: Places
) -> Iterator[tuple[bytes, bytes]]:
    """Each of the paths that the group lists, as it spells it, and without links.

    Args:
        files: of the group.
        names: last components of the paths, since most lines have others.
        paths: those that matter.
        places: of this Install.
    """
    for path in _spelled(files, has_line_ends=any(b"\n" in path for path in paths)):
        parent, _slash, name = path.rpartition(b"/")
        if name not in names or not path.startswith(b"/"):
            continue
        try:
            real = places.resolve(parent).real.rstrip(b"/") + b"/" + name
        except OSError as error:
            # All that matters could be looked at, so it does not lie there.
            log.warning("claim_not_resolved", path=os.fsdecode(path), error=error.strerror or str(error))
            continue
        if real in paths:
            yield path, real


def _spelled(files: GroupFiles, *, has_line_ends: bool) -> Iterator[bytes]:
    """The paths that the group lists: of those with the end of a line in them, only its manifest can tell."""
    with open(files.cleanup, "rb") as lines:
        for line in lines:
            yield line.rstrip(b"\n")
    if has_line_ends:
        sections = Sections(fitting_records(files).listed)
        for directory in [path for _fields, path in sections.directories()]:
            for name in sections.of(directory):
                path = directory.rstrip(b"/") + b"/" + name
                if b"\n" in path:
                    yield path


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
