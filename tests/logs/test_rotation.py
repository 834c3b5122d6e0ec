"""Log files that many processes write to."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from agent.rotation import RotatingFile
from tests.daemon.agent_process import clean_environment

WRITERS = 4
LINES = 3000

WRITER = """
import sys
from pathlib import Path
from agent.rotation import RotatingFile
name, count = sys.argv[2], int(sys.argv[3])
file = RotatingFile(Path(sys.argv[1]), max_bytes=20_000, kept_files=200)
sys.stdin.read(1)
for number in range(count):
    file.write(f"{name} {number} {'x' * (number % 80)} end\\n".encode())
"""


def all_lines(path: Path) -> list[str]:
    """Of all files, oldest first."""
    numbered = sorted(path.parent.glob(f"{path.name}.*"), key=lambda file: -int(file.suffix[1:]))
    return [line for file in (*numbered, path) for line in file.read_text().splitlines()]


def test_no_line_of_many_processes_is_lost_or_torn_and_each_ones_order_is_kept(tmp_path: Path) -> None:
    """Sixteen workers and a daemon share one log; it is rotated under their hands."""
    path = tmp_path / "log"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, path, f"writer-{number}", str(LINES)],
            stdin=subprocess.PIPE,
            env=clean_environment(),
            cwd=Path(__file__).parents[2],
        )
        for number in range(WRITERS)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"!")
        writer.stdin.flush()
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.close()
        assert 0 == writer.wait(60)
    written: defaultdict[str, list[int]] = defaultdict(list)
    for line in all_lines(path):
        name, number, *_, end = line.split()
        assert ("end", f"{name} {number} {'x' * (int(number) % 80)} end") == (end, line)
        written[name].append(int(number))
    assert {f"writer-{number}": list(range(LINES)) for number in range(WRITERS)} == dict(written)
    assert len(list(tmp_path.glob("log.*"))) > 10
    # A writer that has just looked at the size may add one line each.
    assert max(file.stat().st_size for file in tmp_path.glob("log*")) <= 20_000 + WRITERS * 120


def test_a_full_file_makes_room_and_the_oldest_goes(tmp_path: Path) -> None:
    """A log must not fill the disk."""
    file = RotatingFile(tmp_path / "log", max_bytes=10, kept_files=3)
    for number in range(6):
        file.write(f"line {number}\n".encode())
    file.close()
    assert {"log": "line 5\n", "log.1": "line 4\n", "log.2": "line 3\n"} == {
        path.name: path.read_text() for path in tmp_path.glob("log*")
    }


def test_a_line_longer_than_the_limit_gets_a_file_of_its_own(tmp_path: Path) -> None:
    """Better too long a file than no line."""
    file = RotatingFile(tmp_path / "log", max_bytes=10, kept_files=3)
    for line in (b"short\n", b"much too long a line\n", b"short\n"):
        file.write(line)
    file.close()
    assert ["short\n", "much too long a line\n", "short\n"] == [
        (tmp_path / name).read_text() for name in ("log.2", "log.1", "log")
    ]


def test_whoever_rotates_it_by_other_means_gets_a_new_file(tmp_path: Path) -> None:
    """The usual tool moves it away; lines must not go on into the old one."""
    path = tmp_path / "log"
    file = RotatingFile(path)
    file.write(b"one\n")
    path.rename(tmp_path / "log-20230101")
    file.write(b"two\n")
    file.close()
    assert ("one\n", "two\n") == ((tmp_path / "log-20230101").read_text(), path.read_text())


def test_an_open_file_is_used_again_and_none_is_left_open(tmp_path: Path) -> None:
    """A daemon logs for months."""
    before = len(os.listdir("/proc/self/fd"))
    file = RotatingFile(tmp_path / "log", max_bytes=100)
    for number in range(100):
        file.write(f"line {number}\n".encode())
        assert before + 1 == len(os.listdir("/proc/self/fd"))
    file.close()
    assert before == len(os.listdir("/proc/self/fd"))


def test_a_link_in_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    """The log directory may belong to somebody less trusted than the agent."""
    target = tmp_path / "target"
    target.touch()
    (tmp_path / "log").symlink_to(target)
    with pytest.raises(OSError, match="symbolic link"):
        RotatingFile(tmp_path / "log").write(b"line\n")
    assert "" == target.read_text()


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_file_gets_the_mode_that_was_asked_for(tmp_path: Path, mode: int) -> None:
    """What hooks print may be secret."""
    file = RotatingFile(tmp_path / "log", mode=mode)
    file.write(b"line\n")
    file.close()
    umask = os.umask(0)
    os.umask(umask)
    assert mode & ~umask == (tmp_path / "log").stat().st_mode & 0o777


def test_who_may_read_a_log_cannot_keep_it_from_being_rotated(tmp_path: Path) -> None:
    """Everybody may read the agent's: with one `flock`, any user could stop the daemon and all that hooks print."""
    path = tmp_path / "log"
    file = RotatingFile(path, max_bytes=10)
    file.write(b"one line\n")
    with path.open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_EX)
        file.write(b"another line\n")
    file.close()
    assert ["one line", "another line"] == all_lines(path)
    assert [0o600] == [stat.S_IMODE(lock.stat().st_mode) for lock in tmp_path.glob(".*")]


def test_a_named_pipe_in_the_place_of_a_log_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Lines are dropped then, as on a full disk; the daemon must not stop."""
    path = tmp_path / "log"
    os.mkfifo(path)
    with pytest.raises(OSError, match="No such device or address"):
        RotatingFile(path).write(b"line\n")
