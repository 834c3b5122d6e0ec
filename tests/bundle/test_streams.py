"""Decompression piece by piece, in a thread, and without the fast library."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
import zlib
from typing import TYPE_CHECKING

import pytest

from agent.bundle.inflate import Decompressor, ZlibDecompressor, deflate_decompressor, gzip_decompressor
from agent.bundle.read_ahead import read_ahead
from agent.protocol import BundleType
from agent.threads import ThreadTask
from tests.bundle.packing import file, tgz_bytes
from tests.bundle.threads import thread_count
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.bundle.conftest import Deployment

PLAIN = random.Random(7).randbytes(200_000) + bytes(2_000_000) + b"end"
DEFLATED = gzip.compress(PLAIN, mtime=0)


@pytest.mark.parametrize(
    "decompressor", [gzip_decompressor, lambda: ZlibDecompressor(31)], ids=["isal", "zlib"]
)
@pytest.mark.parametrize("chunk_bytes", [77, 7777, 65536, 1 << 22])
def test_both_libraries_give_the_same_in_any_pieces(
    decompressor: Callable[[], Decompressor], chunk_bytes: int
) -> None:
    """A host without the fast library must unpack the same files."""
    compressed, found = DEFLATED + b"rest", []
    worker = decompressor()
    at = 0
    while not worker.eof:
        given = b""
        if worker.needs_input:
            given, at = compressed[at : at + chunk_bytes], at + chunk_bytes
            assert given
        piece = worker.decompress(given, 100_000)
        assert len(piece) <= 100_000
        found.append(piece)

    assert PLAIN == b"".join(found)
    assert b"rest" == worker.unused_data + compressed[at:]


@pytest.mark.parametrize(
    "decompressor", [deflate_decompressor, lambda: ZlibDecompressor(-15)], ids=["isal", "zlib"]
)
def test_output_is_bounded_however_much_there_is(decompressor: Callable[[], Decompressor]) -> None:
    """A bomb must not fill the memory before anybody can count."""
    compressor = zlib.compressobj(wbits=-15)
    compressed = compressor.compress(bytes(10_000_000)) + compressor.flush()

    assert 10 == len(decompressor().decompress(compressed, 10))


def test_reading_ahead_keeps_order_and_errors() -> None:
    """A damaged bundle must fail where it is damaged, after what came before."""

    def chunks() -> Iterator[bytes]:
        yield from (b"1", b"2", b"3")
        raise ValueError("damaged")

    ahead = read_ahead(chunks())

    assert [b"1", b"2", b"3"] == [next(ahead) for _ in range(3)]
    with pytest.raises(ValueError, match="damaged"):
        next(ahead)


def test_a_reader_that_stops_early_leaves_no_thread() -> None:
    """The worker goes on to start scripts: nothing may read a closed descriptor meanwhile."""

    def chunks() -> Iterator[bytes]:
        while True:
            yield b"x"

    before = thread_count()
    ahead = read_ahead(chunks())
    assert b"x" == next(ahead)
    assert before < thread_count()
    ahead.close()

    wait_until(lambda: thread_count() <= before, "the thread has ended")


def test_where_no_thread_can_be_had_nothing_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer, and comes to the same."""

    def chunks() -> Iterator[bytes]:
        yield from (b"1", b"2")
        raise ValueError("damaged")

    monkeypatch.setattr(ThreadTask, "start", lambda _task: None)
    ahead = read_ahead(chunks())

    assert [b"1", b"2"] == [next(ahead), next(ahead)]
    with pytest.raises(ValueError, match="damaged"):
        next(ahead)


def test_no_descriptor_or_thread_is_left_open(deployment: Deployment) -> None:
    """A worker unpacks once, but `agentctl` and tests do so many times."""
    content = tgz_bytes(*(file(f"d{number}/f") for number in range(300)))
    threads = thread_count()
    deployment.unpack(content, BundleType.TGZ)
    before = len(os.listdir("/proc/self/fd"))

    deployment.unpack(content, BundleType.TGZ)

    assert before == len(os.listdir("/proc/self/fd"))
    wait_until(lambda: thread_count() <= threads, "its threads have ended")


def test_memory_stays_flat_however_large_the_bundle_is(tmp_path: Path) -> None:
    """Small hosts deploy large bundles; the kernel must not have to kill anything for it."""
    bundle = tmp_path / "bundle.tar"
    bundle.write_bytes(tgz_bytes(file("zeros", bytes(100_000_000)), file("noise", os.urandom(20_000_000))))
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from agent.bundle.unpack import unpack_bundle; from agent.bundle import ArchiveLimits\n"
        "from agent.protocol import BundleType\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "unpack_bundle(Path(sys.argv[1]), BundleType.TGZ, Path(sys.argv[2]), ArchiveLimits(), ())\n"
        "print(peak() - before)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, bundle, tmp_path / "archive"], check=True, capture_output=True
    )

    assert int(done.stdout) < 24 * 1024  # KiB
