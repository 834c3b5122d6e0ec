"""Job records: what the agent knows about a host command from its acceptance to its report.

A record is a directory `<state>/jobs/<number>-<digest>` with a file, `record.jsonl`, that is only
ever appended to; job_state.py has what its lines say.

The worker holds the lock of the directory while it lives (`Job.hold`). A record goes when its result has been
delivered and is a line of the history; where that can't be written, as on a full disk, it stays:
the same command must not be carried out again when it is delivered again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.deployments.job_state import CommandResult, DeploymentFacts, JobState, RecordedProcess, advance
from agent.files import FileDamaged, lock_file, read_file, sync_directory, take_lock, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.protocol import HostCommand


_MAX_PATH_BYTES = 4096


class Job:
    """One record on disk."""

    def __init__(self, directory: Path, descriptor: int = -1, lock: int = -1) -> None:
        self.directory = directory
        self._descriptor = descriptor
        self._lock = lock

    @property
    def record(self) -> Path:
        """The file with the lines."""
        return self.directory / "record.jsonl"

    @property
    def number(self) -> int:
        """Place in the order of acceptance, among the records that exist."""
        return int(self.directory.name.partition("-")[0])

    def append(self, entry: str, facts: Mapping[str, Any], *, durable: bool = False) -> None:
        """Write one line; with `durable` it is on the disk afterwards.

        Raises:
            OSError: it can't be written, as on a full disk.
        """
        line = json.dumps({"entry": entry, "at": round(time.time(), 3), **facts}, default=str)
        # A line end before as well as after: a line that a full disk cut off must not spoil this one.
        write_all(self._descriptor, f"\n{line}\n".encode())
        if durable:
            os.fdatasync(self._descriptor)

    def note_worker(self, worker: RecordedProcess) -> None:
        """Say which process carries the command from now on."""
        self.append("worker", asdict(worker))

    def note_worker_end(self, code: int) -> None:
        """Say how the worker ended, which has left the command behind."""
        self.append("ended", {"code": code})

    def note_script(self, script: RecordedProcess | None) -> None:
        """Say which hook script runs from now on; None = it is over."""
        self.append("script", {"process": asdict(script) if script else None})

    def note_deployment(self, facts: DeploymentFacts) -> None:
        """Say what the command is part of."""
        self.append("deployment", asdict(facts))

    def note_step(self, step: str) -> None:
        """Say what is about to be done."""
        self.append("step", {"step": step})

    def note_result(self, result: CommandResult) -> None:
        """Keep the result, so that it can be delivered by whoever lives then."""
        self.append("result", {**asdict(result), "status": result.status.value}, durable=True)

    def read(self) -> JobState | None:
        """What the record says; None when it is gone, or was cut off before its first line was whole.

        Raises:
            FileDamaged: there are lines, and none says which command it was.
            OSError: it can't be read.
        """
        state: JobState | None = None
        try:
            *lines, cut_off = read_file(self.record).split(b"\n")
        except FileNotFoundError:
            return None
        for line in (*lines, cut_off):
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                state = advance(state, json.loads(line))
        if state is None and any(line.strip() for line in lines):
            # Whatever was done for it must not be taken for nothing.
            raise FileDamaged(self.record)
        return state

    def hold(self) -> bool:
        """Open the record and take its lock; False when a living worker has it, or has just removed it.

        Raises:
            OSError: it can't be opened for writing.
        """
        try:
            lock = take_lock(lock_file(self.directory))
            if lock is None:
                return False
            self._lock = lock
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self.record, flags, 0o644)
        except OSError as error:
            self.let_go()
            if isinstance(error, FileNotFoundError):
                return False
            raise
        return True

    def let_go(self) -> None:
        """Close our copy of the record and of its lock; a worker that was forked meanwhile keeps the lock."""
        for descriptor in (self._descriptor, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._lock = -1

    def send_to(self, connection: socket.socket) -> None:
        """Give whoever is at the other end this record with our lock; we keep it, too, until we let go.

        Raises:
            OSError: there is nobody, or no room for the message.
        """
        socket.send_fds(connection, [os.fsencode(self.directory)], [self._descriptor, self._lock])

    @classmethod
    def receive_from(cls, connection: socket.socket) -> Job | None:
        """The record that `send_to` has sent, with its lock; None when the other end has gone."""
        name, descriptors, _, _ = socket.recv_fds(connection, _MAX_PATH_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
        if len(descriptors) < 2:  # both, or there was no room for them
            for descriptor in descriptors:
                os.close(descriptor)
            return None
        return cls(Path(os.fsdecode(name)), *descriptors)

    def is_alive(self) -> bool:
        """Whether a living process holds this record.

        Raises:
            OSError: that can't be told, as by another user, or when no descriptor is left.
        """
        try:
            descriptor = os.open(lock_file(self.directory), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def remove(self) -> None:
        """Afterwards there is no such record.

        Raises:
            OSError: it can't be removed, as on a read-only disk.
        """
        # By name, and not shutil.rmtree: that needs a descriptor, and there may be none left.
        for path in (self.record, lock_file(self.directory)):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        with contextlib.suppress(FileNotFoundError):
            self.directory.rmdir()

    def remove_if_possible(self) -> bool:
        """Remove the record where one that stays does no harm; whether it has gone."""
        try:
            self.remove()
        except OSError:
            return False
        return True


class JobStore:
    """All records of this agent."""

    def __init__(self, state_directory: Path) -> None:
        self.directory = state_directory / "jobs"
        self._half_made: list[Job] = []

    def accept(self, command: HostCommand) -> Job:
        """A new record, on the disk, with its lock held by this process.

        Raises:
            OSError: it can't be written.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        # Commands that are accepted later would wait for what looks like an earlier one.
        while self._half_made:
            self._half_made[-1].remove()
            self._half_made.pop()
        last = max((job.number for job in self.jobs()), default=0)
        job = Job(self.directory / f"{last + 1:08d}-{_digest(command.identifier)}")
        job.directory.mkdir()
        try:
            job.hold()
            job.append("accepted", {"command": asdict(command)}, durable=True)
            sync_directory(self.directory)
        except OSError:
            self.discard(job)
            raise
        return job

    def discard(self, job: Job) -> None:
        """Remove a record that nobody works on: now, or before the next one is made."""
        job.let_go()
        if not job.remove_if_possible():
            self._half_made.append(job)

    def undelivered(self) -> list[Job]:
        """Every record whose command is still at work, or not yet reported; also those that can't be read.

        Raises:
            OSError: the caller may not look, or the records can't be listed.
        """
        return [job for job in self.jobs() if _is_undelivered(job)]

    def jobs(self) -> list[Job]:
        """Every record, in the order of acceptance."""
        try:
            names = sorted(os.listdir(self.directory))
        except FileNotFoundError:
            return []
        return [Job(self.directory / name) for name in names if name[:8].isdigit()]

    def find(self, identifier: str) -> Job | None:
        """The record of this host command."""
        digest = _digest(identifier)
        return next((job for job in self.jobs() if job.directory.name.endswith(digest)), None)

    def earlier(self, job: Job) -> Iterator[Job]:
        """The records that were accepted before this one."""
        return (other for other in self.jobs() if other.number < job.number)


def _is_undelivered(job: Job) -> bool:
    try:
        return job.read() is not None or job.is_alive()
    except PermissionError:
        raise
    except IsADirectoryError:
        # No worker has made that.
        return False
    except OSError:
        # Nobody knows what has become of that command, and so nobody can say that it is over.
        return True


def _digest(identifier: str) -> str:
    """A file name for an identifier that may hold anything."""
    return hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()[:20]
