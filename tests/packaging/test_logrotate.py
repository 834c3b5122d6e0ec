"""The rules for logrotate that are installed, with the real logrotate and agents that go on writing."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.settings import Settings
from tests.daemon.agent_process import clean_environment
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    LogRotate = Callable[..., str]

PROJECT = Path(__file__).parents[2]
RULES = PROJECT / "conf/logrotate"
WRITERS = 4

# A worker's log, but that it is full every few hundred lines.
WRITER = """
import sys
import time
from pathlib import Path
from agent.rotation import RotatingFile
file, name, number = RotatingFile(Path(sys.argv[1]), max_bytes=20_000, kept_files=100_000), sys.argv[2], 0
while not Path(sys.argv[3]).exists():
    file.write(f"{name} {number}\\n".encode())
    number += 1
print(number)
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the agent of this test logs to."""
    directory = tmp_path / "log"
    directory.mkdir(mode=0o755)
    return directory / "codedeploy-agent.log"


@pytest.fixture
def logrotate(tmp_path: Path, log: Path) -> LogRotate:
    """Runs logrotate over that log, with the rules as they are installed; returns what it says."""
    program = shutil.which("logrotate", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if program is None:
        pytest.skip("logrotate is not installed")
    rules = tmp_path / "rules"
    rules.write_text(RULES.read_text(encoding="utf-8").replace(str(Settings().agent_log), str(log)))
    rules.chmod(0o644)

    def run(option: str) -> str:
        done = subprocess.run(
            [program, option, "--state", tmp_path / "state", rules],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert 0 == done.returncode, done.stdout
        return done.stdout

    return run


def lines_of(directory: Path) -> Counter[str]:
    """All lines of all files, compressed ones too."""
    texts = [
        gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
        for path in directory.iterdir()
    ]
    return Counter(line for text in texts for line in text.splitlines())


def dated(log: Path) -> list[Path]:
    """What logrotate has put aside."""
    return sorted(log.parent.glob(f"{log.name}-*"))


def test_the_rules_are_for_the_file_that_the_agent_writes() -> None:
    """Rules for a file that is not there say nothing, for ever."""
    rules = RULES.read_text(encoding="utf-8")
    assert [str(Settings().agent_log)] == [line.split()[0] for line in rules.splitlines() if line[:1] == "/"]


def test_logrotate_has_nothing_to_say_against_the_rules(log: Path, logrotate: LogRotate) -> None:
    """One mistake, and it rotates no log of the host at all."""
    log.write_text("line\n")
    told = logrotate("-d")
    assert f"{log}  after 1 days (30 rotations)" in told
    assert [] == [line for line in told.splitlines() if "error" in line]
    assert ["debug mode"] == [
        "debug mode" if "debug mode" in line else line for line in told.splitlines() if "warning" in line
    ]


def test_agents_that_write_and_rotate_meanwhile_lose_no_line(
    log: Path, logrotate: LogRotate, tmp_path: Path
) -> None:
    """Daemon and workers write at all hours, and may find the log full just when logrotate comes."""
    enough = tmp_path / "enough"
    writers = {
        f"writer-{number}": subprocess.Popen(
            [sys.executable, "-c", WRITER, log, f"writer-{number}", enough],
            stdout=subprocess.PIPE,
            env=clean_environment(),
            cwd=PROJECT,
        )
        for number in range(WRITERS)
    }
    try:
        wait_until(
            lambda: log.with_name(f"{log.name}.3").exists(), "the agents have rotated the log themselves"
        )
        logrotate("--force")
        wait_until(lambda: log.exists() and log.stat().st_size, "they write to a new file")
    finally:
        enough.touch()
        written = {name: int(writer.communicate(timeout=60)[0]) for name, writer in writers.items()}
    expected = Counter(f"{name} {number}" for name, count in written.items() for number in range(count))
    assert expected == lines_of(log.parent)
    assert 1 == len(dated(log))


def test_what_was_put_aside_before_is_compressed_and_kept(log: Path, logrotate: LogRotate) -> None:
    """Thirty days of log are small; and what an agent may still hold open is left as it is."""
    log.with_name(f"{log.name}-20260101-1767225600").write_text("old\n")
    log.with_name(f"{log.name}.1").write_text("put aside by the agent\n")
    log.write_text("new\n")
    logrotate("--force")
    assert [".gz", ""] == ["".join(path.suffixes[1:]) for path in dated(log)]
    assert Counter(["old", "new", "put aside by the agent"]) == lines_of(log.parent)
    assert not log.exists()


def test_two_rotations_on_one_day_overwrite_nothing(log: Path, logrotate: LogRotate) -> None:
    """Somebody tries it out by hand."""
    for text in ("first\n", "second\n"):
        log.write_text(text)
        logrotate("--force")
        second = int(time.time())
        wait_until(lambda: int(time.time()) > second + 1, "a later second")  # noqa: B023 - called at once
    assert Counter(["first", "second"]) == lines_of(log.parent)
    assert 2 == len(dated(log))
