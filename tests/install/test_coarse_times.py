"""Archives on file systems that count whole seconds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent.archive_index import ArchiveIndex, digest_in, identity_of, index_of
from agent.listings import content_digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.install.host import Host

SECOND_NS = 10**9
CONTENT = b"key=AAAA"


def digest_after(host: Host, written_ns: Callable[[int], int]) -> bytes | None:
    """The digest that counts when the index was written at that time, which is told the file's ctime."""
    path = host.request({"app/conf": CONTENT.decode()}).archive / "app/conf"
    time_ns = written_ns(path.stat().st_ctime_ns)
    os.utime(index_of(path.parents[1]), ns=(time_ns, time_ns))
    entries = ArchiveIndex(path.parents[1]).of(os.fsencode(path.parent))
    return digest_in(entries.get(b"conf"), identity_of(path.stat()))


def test_an_edit_in_the_second_of_unpacking_is_not_overlooked(host: Host) -> None:
    """A script that edits a file at once leaves size, time and ctime as they were there, so it has to be read."""
    assert digest_after(host, lambda ctime_ns: ctime_ns // SECOND_NS * SECOND_NS) is None


def test_files_unpacked_in_earlier_seconds_need_not_be_read(host: Host) -> None:
    """An edit after the index was written would give them a later ctime."""
    later = digest_after(host, lambda ctime_ns: (ctime_ns // SECOND_NS + 1) * SECOND_NS)
    assert content_digest(CONTENT) == later


def test_fine_times_cost_nothing(host: Host) -> None:
    """The usual case: every edit changes the ctime."""
    assert content_digest(CONTENT) == digest_after(host, lambda ctime_ns: ctime_ns | 1)
