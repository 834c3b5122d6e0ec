"""A bundle over HTTP onto the disk: streamed, resumed where it broke off, and checked against what was announced."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NoReturn, Protocol
from urllib.parse import urlsplit

from agent.bundle.answers import AnswerSenseless, Part, Validators, part_of, validators_of
from agent.bundle.digests import DigestThread
from agent.bundle.failures import content_mismatch, disk_full, not_written
from agent.bundle.inflate import has_checksums
from agent.bundle.perseverance import Perseverance
from agent.bundle.session import Session, proxy_for, translated_errors
from agent.bundle.trouble import StartAnew, Trouble, TryAgain
from agent.files import write_all
from agent.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import requests

    from agent.bundle.digests import Announced, Mismatch
    from agent.bundle.sources import BundleSources

log = get_logger()

_PIECE_BYTES = 256 * 1024
_NO_VALIDATORS = Validators(etag=None, version=None)


class Remote(Protocol):
    """A bundle that can be asked for over HTTP."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    @property
    def address(self) -> str:
        """URL that is asked."""

    def open(self, session: Session, *, start: int, etag: str | None) -> requests.Response:
        """An answer with the bundle, or with a part of it; its body isn't read yet.

        Args:
            session: to ask with.
            start: how many bytes are there already; 0 = all of it is wanted.
            etag: the (quoted) ETag of those.

        Raises:
            TryAgain: nothing wrong with the request.
            StartAnew: the bundle is another one by now.
            CommandFailure: no use in trying again.
        """

    def digests(self, headers: Mapping[str, str]) -> tuple[Announced, ...]:
        """What the whole bundle's digests are, as far as an answer with these headers says."""


class Download:
    """One bundle's way to the disk, over as many attempts as it takes.

    Attributes:
        size_bytes: received so far.
        doubt: what speaks against this being the right bundle, without being certain.
    """

    def __init__(self, remote: Remote, sources: BundleSources, descriptor: int) -> None:
        self.size_bytes = 0
        self.doubt: Mismatch | None = None
        self._remote = remote
        self._sources = sources
        self._descriptor = descriptor
        self._validators = _NO_VALIDATORS
        self._digests = DigestThread(())
        self._total: int | None = None
        # An object's size never changes; one that has another ETag is another object.
        self._totals: dict[str, int] = {}
        self._takes_ranges = True
        self._mismatched_sha256: str | None = None
        self._perseverance = Perseverance(remote.name, self._way, sources)

    @property
    def etag(self) -> str | None:
        """As the server sent it, quotes included."""
        return self._validators.etag

    @property
    def sha256(self) -> str:
        """Of what was received, in hexadecimal."""
        return self._digests.sha256()

    def run(self) -> None:
        """Afterwards the bundle is in the file, whole.

        Raises:
            CommandFailure: patience is at its end, the content is not what was announced, or what the remote raises.
        """
        with Session(self._sources) as session, contextlib.ExitStack() as ending:
            ending.callback(lambda: self._digests.close())  # noqa: PLW0108 - the last ones, not the first
            self._perseverance.run(lambda: self._attempt(session))

    def _way(self) -> str:
        proxy = proxy_for(self._remote.address, self._sources.proxy_uri)
        return "" if proxy is None else f" through {proxy}"

    def _attempt(self, session: Session) -> None:
        try:
            if not (self._takes_ranges and self._validators.can_resume):
                self._forget()
            self._receive_part(session)
            # A server may hand out less at a time than it was asked for.
            while self._total is not None and self.size_bytes < self._total:
                before = self.size_bytes
                self._receive_part(session)
                if self.size_bytes <= before:
                    self._contradiction("a part of the bundle is empty")
            self._verify()
        except StartAnew as error:
            if error.trouble is Trouble.REPLACED:
                self._perseverance.note_other_object()
            self._forget()
            raise
        finally:
            self._perseverance.note_arrived(self.size_bytes, self._total)

    def _receive_part(self, session: Session) -> None:
        start = self.size_bytes
        with self._remote.open(session, start=start, etag=self.etag if start else None) as response:
            part = self._accepted(response)
            self._perseverance.note_answer()
            self._receive(response, part)

    def _accepted(self, response: requests.Response) -> Part:
        """Make this answer's body what comes next in the file, if that is what it is."""
        try:
            part = part_of(response.status_code, response.headers)
        except AnswerSenseless as error:
            self._contradiction(f"its answer can't be used: {error}")
        validators = validators_of(response.headers)
        self._check_total(validators, part)
        if part.start == 0:
            self._begin(response, validators, part)
        elif part.start != self.size_bytes:
            self._contradiction(
                f"it was asked for what follows byte {self.size_bytes}, and sends what follows {part.start}"
            )
        elif validators.etag is None or not validators.are_of(self._validators):
            self._takes_ranges = validators.etag is not None and self._takes_ranges
            raise StartAnew(
                f"the object was replaced in the middle of the transfer (its ETag was {self.etag}, and is"
                f" {validators.etag or 'not said'})",
                Trouble.REPLACED if validators.etag else Trouble.CONTRADICTION,
            )
        elif self._total is None:
            self._total = part.total
        if part.end is not None and self._total is not None and part.end > self._total:
            self._contradiction(f"it sends a part up to byte {part.end} of a bundle of {self._total}")
        return part

    def _check_total(self, validators: Validators, part: Part) -> None:
        if part.total is None or validators.etag is None or not validators.can_resume:
            return
        known = self._totals.setdefault(validators.etag, part.total)
        if known != part.total:
            self._contradiction(
                f"it says that the bundle with the ETag {validators.etag} has {part.total} bytes, and said {known} before"
            )

    def _begin(self, response: requests.Response, validators: Validators, part: Part) -> None:
        if self._validators.etag is not None and validators.etag != self._validators.etag:
            self._perseverance.note_other_object()
        self._forget()
        self._validators, self._total = validators, part.total
        self._digests = DigestThread(self._remote.digests(response.headers))
        self._check_room()

    def _forget(self) -> None:
        """Afterwards nothing has arrived."""
        self._digests.close()
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._digests = DigestThread(())
        self._validators, self._total = _NO_VALIDATORS, None
        self.size_bytes = 0

    def _receive(self, response: requests.Response, part: Part) -> None:
        while True:
            with translated_errors(urlsplit(self._remote.address).netloc):
                piece = response.raw.read(_PIECE_BYTES, decode_content=False)
            if not piece:
                break
            if part.end is not None and self.size_bytes + len(piece) > part.end:
                self._contradiction(f"it sends more than the {part.end} bytes that it announced")
            write_all(self._descriptor, piece)
            self._digests.update(piece)
            self.size_bytes += len(piece)
            self._perseverance.check_wanted()
        if part.end is not None and self.size_bytes != part.end:
            raise TryAgain(
                f"the transfer ended after {self.size_bytes} of {part.total or part.end} bytes",
                Trouble.INTERRUPTED,
            )

        if not self.size_bytes and part.end is None:
            raise TryAgain("the answer has no length, and ended before its first byte", Trouble.INTERRUPTED)

    def _contradiction(self, what: str) -> NoReturn:
        """Nothing of this server's ranges is believed any more."""
        self._takes_ranges = False
        raise StartAnew(
            f"{urlsplit(self._remote.address).netloc} contradicts itself: {what}", Trouble.CONTRADICTION
        )

    def _verify(self) -> None:
        """Hold what has arrived against what was announced of it."""
        mismatches = self._digests.mismatches()
        self.doubt = next(iter(mismatches), None)
        if not any(each.announced.is_certain for each in mismatches) and self._checks_itself():
            return
        if not mismatches:
            return
        # It may have been damaged on its way: once more, from the beginning.
        if self._mismatched_sha256 is not None:
            if self._mismatched_sha256 == self.sha256 and self._is_archive_of_other_store(mismatches):
                return
            raise content_mismatch(
                self._remote.name,
                self._way(),
                str(mismatches[0]),
                is_same=self._mismatched_sha256 == self.sha256,
            )
        self._mismatched_sha256 = self.sha256
        self._takes_ranges = False
        raise StartAnew(f"what has arrived is damaged: {mismatches[0]}", Trouble.INTERRUPTED)

    def _is_archive_of_other_store(self, mismatches: Sequence[Mismatch]) -> bool:
        """Whether what has come twice may be right all the same: some stores make ETags that only look like digests."""
        is_zip = os.pread(self._descriptor, 4, 0) == b"PK\3\4"
        return is_zip and not any(each.announced.is_certain for each in mismatches)

    def _checks_itself(self) -> bool:
        """Whether unpacking will find damage: then an ETag that may be no digest needn't decide."""
        return has_checksums(os.pread(self._descriptor, 16, 0))

    def _check_room(self) -> None:
        room = os.fstatvfs(self._descriptor)
        free = room.f_bavail * room.f_frsize
        if self._total is not None and self._total > free:
            raise disk_full(
                f"the bundle {self._remote.name}", f"{self._total} bytes are", f"{free} bytes are"
            )


def download(remote: Remote, destination: Path, sources: BundleSources) -> Download:
    """Afterwards `destination` is the bundle; until then it is what it was before.

    Raises:
        CommandFailure: the download failed, or the disk is full.
    """
    beside = destination.with_name(f".{destination.name}.part")
    try:
        descriptor = os.open(
            beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
        )
        try:
            result = Download(remote, sources, descriptor)
            result.run()
            os.rename(beside, destination)
        finally:
            os.close(descriptor)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)
    except OSError as error:
        raise not_written(destination, error) from error
    return result
