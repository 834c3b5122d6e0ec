"""Every subcommand where the host around it is not as it should be: one sentence, the right exit code, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.daemon.agent_process import AGENTCTL, Agent, clean_environment
from tests.waiting import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    Done = subprocess.CompletedProcess[str]

REVISION = "version: 0.0\nos: linux\n"

# How each is called, and its exit code on a host on which all is well and nothing runs.
SUBCOMMANDS: dict[str, tuple[list[str], int]] = {
    "deploy": (["deploy", "-l", "REVISION"], 0),
    "drain": (["drain"], 0),
    "drain --undo": (["drain", "--undo"], 0),
    "explain": (["explain"], 0),
    "explain an id": (["explain", "worker-lost"], 0),
    "plan": (["plan", "REVISION"], 0),
    "plan --json": (["plan", "REVISION", "--json"], 0),
    "recover": (["recover"], 0),
    "status": (["status"], 3),
    "status --json": (["status", "--json"], 3),
    "stop": (["stop"], 0),
    "version": (["version"], 0),
    "wait-idle": (["wait-idle"], 0),
    "whoami": (["whoami"], 0),
}
WITH_CONFIGURATION = [name for name in SUBCOMMANDS if not name.startswith(("explain", "version"))]


class Host:
    """A host on which nothing runs, and a revision."""

    def __init__(self, directory: Path) -> None:
        self.agent = Agent(directory / "agent", {})
        self.agent.state.mkdir()
        self.revision = directory / "revision"
        self.revision.mkdir()
        (self.revision / "appspec.yml").write_text(REVISION)

    def command(self, name: str, config_file: Path | None = None) -> list[str]:
        words = [str(self.revision) if word == "REVISION" else word for word in SUBCOMMANDS[name][0]]
        config = ["-c", str(config_file or self.agent.config_file)] if name in WITH_CONFIGURATION else []
        return [str(AGENTCTL), *words, *config]

    def call(self, name: str, config_file: Path | None = None) -> Done:
        return run(self.command(name, config_file))


def run(command: list[str], *, before: str = 'exec "$@"', **environment: str) -> Done:
    """The command, called by a shell that can do things before."""
    return subprocess.run(
        ["/bin/sh", "-c", before, "sh", *command],
        env=clean_environment(**environment),
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def check_readable(done: Done) -> None:
    """Whatever is said is said by this program, to people."""
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert "Usage:" not in done.stderr
    assert "internal-error" not in done.stderr


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_an_output_that_nobody_reads_to_its_end_changes_nothing(host: Host, name: str) -> None:
    """`agentctl deploy | head -1`: a deployment must not break off in the middle because of that."""
    # The reader has gone before anything is written.
    done = run(host.command(name), before='{ "$@"; echo "code $?" >&2; } | true')
    check_readable(done)
    assert f"code {SUBCOMMANDS[name][1]}" == done.stderr.splitlines()[-1]
    assert "can't be written" not in done.stderr


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_an_output_on_a_full_disk_is_said_and_fails_what_only_answers(host: Host, name: str) -> None:
    """A script that keeps the answer in a file must not take half of one for the whole; work goes on all the same."""
    done = run(host.command(name), before='exec "$@" >/dev/full')
    check_readable(done)
    expected = {"explain": 1, "explain an id": 1, "version": 1, "whoami": 1, "plan": 4, "plan --json": 4}
    assert expected.get(name, SUBCOMMANDS[name][1]) == done.returncode
    if name != "wait-idle":
        assert "agentctl: standard output can't be written: No space left on device." in done.stderr


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_without_standard_streams_everything_works(host: Host, name: str) -> None:
    """Started by something that has closed them: no file of ours may get their numbers."""
    done = run(host.command(name), before='exec "$@" <&- >&- 2>&-')
    assert SUBCOMMANDS[name][1] == done.returncode


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_without_a_home_and_a_locale_everything_works(host: Host, name: str) -> None:
    """As cron, systemd or a container starts it."""
    done = run(host.command(name), before='unset HOME TMPDIR LANG PATH; LC_ALL=C exec "$@"')
    check_readable(done)
    assert SUBCOMMANDS[name][1] == done.returncode, done.stderr


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_in_a_directory_that_has_been_removed_everything_works(host: Host, tmp_path: Path, name: str) -> None:
    """Left over from a deployment that somebody has cleaned up."""
    gone = tmp_path / "gone"
    gone.mkdir()
    done = run(host.command(name), before=f'cd {gone} && rmdir {gone} && exec "$@"')
    check_readable(done)
    assert SUBCOMMANDS[name][1] == done.returncode, done.stderr


@pytest.mark.parametrize("words", [["deploy"], ["deploy", "-l", "revision"], ["plan"], ["plan", "revision"]])
def test_a_revision_in_a_directory_that_has_been_removed_is_bad_input(
    host: Host, tmp_path: Path, words: list[str]
) -> None:
    """It is named by where we are, and that is nowhere."""
    gone = tmp_path / "gone"
    gone.mkdir()
    command = [str(AGENTCTL), *words, "-c", str(host.agent.config_file)]
    done = run(command, before=f'cd {gone} && rmdir {gone} && exec "$@"')
    check_readable(done)
    assert (2, "") == (done.returncode, done.stdout)
    assert "the working directory has been removed" in done.stderr


BAD_CONFIGURATIONS = ["a directory", "binary", "below a file", "not there", "a link to nowhere", "wrong"]


@pytest.mark.parametrize("what", BAD_CONFIGURATIONS)
@pytest.mark.parametrize("name", [*WITH_CONFIGURATION, "run"])
def test_a_configuration_that_cannot_be_used_is_named(
    host: Host, tmp_path: Path, name: str, what: str
) -> None:
    """With its path, the reason, and an id."""
    path = tmp_path / "configuration.yml"
    if what == "a directory":
        path.mkdir()
    elif what == "binary":
        path.write_bytes(b"\x7fELF\x00\x01\x02" + bytes(range(128, 256)))
    elif what == "below a file":
        (tmp_path / "file").touch()
        path = tmp_path / "file" / "configuration.yml"
    elif what == "a link to nowhere":
        path.symlink_to(tmp_path / "nowhere")
    elif what == "wrong":
        path.write_text(f"pid_dir: {tmp_path}/state\nroot_dir: {tmp_path}/root\nmax_revisions: many\n")
    done = run([str(AGENTCTL), "run", "-c", str(path)]) if name == "run" else host.call(name, path)
    check_readable(done)
    assert (4 if name.startswith("status") else 2) == done.returncode
    assert f"agentctl: {path} can't be used:" in done.stderr or f"  {path} can't be used:" in done.stderr
    assert "[configuration-invalid]" in done.stderr


# -- as somebody who may not look ------------------------------------------------------------------

# Not the console script: another user may have no way to the interpreter, which lies where root put it.
AS_NOBODY = """
import importlib, os, pkgutil, sys
import agent.cli, agent.cli.main, encodings.ascii, encodings.utf_8_sig, encodings.idna
for module in pkgutil.iter_modules(agent.cli.__path__):
    importlib.import_module("agent.cli." + module.name)
for name in ("agent.worker.runs.download", "agent.worker.runs.install", "difflib", "shutil"):
    importlib.import_module(name)
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
os.chdir("/")
agent.cli.main.main()
"""


def as_nobody(*words: object) -> Done:
    return run([sys.executable, "-c", AS_NOBODY, *map(str, words)])


@pytest.fixture
def open_host(tmp_path: Path, host: Host) -> Host:
    """A host whose directories others may pass. Directories of tests are closed to others."""
    directory = tmp_path
    while directory.owner() == tmp_path.owner() and directory.name.startswith(("test_", "pytest-")):
        directory.chmod(0o755)
        directory = directory.parent
    host.agent.config_file.chmod(0o644)
    return host


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="root only: looks at root's files as another user")
@pytest.mark.parametrize("name", WITH_CONFIGURATION)
def test_a_configuration_that_may_not_be_read_is_named(open_host: Host, name: str) -> None:
    """`sudo` was forgotten; that the agent has never run is not the answer."""
    open_host.agent.config_file.chmod(0o600)
    done = as_nobody(*open_host.command(name)[1:])
    check_readable(done)
    assert (4 if name.startswith("status") else 2) == done.returncode, done.stderr
    assert "It can't be read (Permission denied). Try again with sudo" in done.stderr


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="root only: looks at root's files as another user")
@pytest.mark.parametrize("name", ["drain", "drain --undo", "recover", "status", "stop", "wait-idle"])
def test_a_state_that_may_not_be_read_is_not_an_idle_host(open_host: Host, name: str) -> None:
    """Absent and hidden are two things."""
    (open_host.agent.root / "deployment-instructions").mkdir(parents=True)
    open_host.agent.root.chmod(0o700)
    open_host.agent.state.chmod(0o700)
    done = as_nobody(*open_host.command(name)[1:])
    check_readable(done)
    assert 4 == done.returncode, done.stdout + done.stderr
    assert "Permission denied; try again with sudo" in done.stdout + done.stderr
    assert str(open_host.agent.directory) in done.stdout + done.stderr


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="root only: looks at root's files as another user")
@pytest.mark.parametrize(("name", "code"), [("deploy", 2), ("plan", 4)])
@pytest.mark.parametrize("kind", ["a file", "a directory", "below a closed directory"])
def test_a_bundle_that_may_not_be_read_is_named_before_anything_is_done(
    open_host: Host, tmp_path: Path, name: str, code: int, kind: str
) -> None:
    """By its path; the application goes on."""
    bundle = tmp_path / "closed" / "bundle.zip"
    bundle.parent.mkdir()
    if kind == "a directory":
        bundle.mkdir()
    else:
        bundle.touch()
    bundle.chmod(0)
    bundle.parent.chmod(0o700 if kind == "below a closed directory" else 0o755)
    option = ["-l"] if name == "deploy" else []
    words = ["-t", "directory" if kind == "a directory" else "zip", "-c", open_host.agent.config_file]
    done = as_nobody(name, *option, bundle, *words)
    check_readable(done)
    assert (code, "") == (done.returncode, done.stdout), done.stderr
    assert f"agentctl: {bundle}: " in done.stderr
    assert "Permission denied; try again with sudo" in done.stderr


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="root only: looks at root's files as another user")
@pytest.mark.parametrize("name", ["plan", "whoami"])
def test_an_identity_that_may_not_be_read_is_not_an_absent_one(open_host: Host, name: str) -> None:
    """Hooks would be told of no region, as if this host had no name, and nobody would know why."""
    done = as_nobody(*open_host.command(name)[1:])
    check_readable(done)
    assert f"{open_host.agent.identity_file} can't be " in done.stderr
    assert "Permission denied" in done.stderr
    if name == "whoami":
        assert (2, "") == (done.returncode, done.stdout)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="root only: mounts a file system")
def test_a_state_on_a_read_only_disk_is_named(host: Host) -> None:
    """The disk has had an error: the agent did not start, and could not even keep why."""
    state = host.agent.state
    mount = f"mount -t tmpfs tmpfs {state} && mount -o remount,ro {state}"
    done = run(["unshare", "-m", "/bin/sh", "-c", f'{mount} && exec "$@"', "sh", *host.command("status")])
    check_readable(done)
    assert 3 == done.returncode, done.stderr
    assert f"{state} is mounted read-only" in done.stdout


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="root only: mounts /proc, and looks as another user")
@pytest.mark.parametrize("name", ["status", "stop", "drain", "wait-idle"])
@pytest.mark.parametrize("hidepid", [1, 2])
def test_an_agent_that_proc_does_not_show_to_this_user_is_not_gone(
    open_host: Host, name: str, hidepid: int
) -> None:
    """/proc with hidepid: processes of others look as if they were not there, or can't be looked at."""
    agent = open_host.agent.start()
    hidden = f'mount -t proc -o hidepid={hidepid} proc /proc && exec "$@"'
    words = [sys.executable, "-c", AS_NOBODY, *open_host.command(name)[1:]]
    try:
        done = run(["unshare", "-m", "/bin/sh", "-c", hidden, "sh", *words])
    finally:
        agent.end()
    check_readable(done)
    said = done.stdout + done.stderr
    if name == "wait-idle":
        # It looks at commands only, and those can be read.
        assert 0 == done.returncode, said
    else:
        assert 4 == done.returncode, said
        assert "does not run" not in said
        assert "not running" not in said
    if name == "status":
        assert "Last deployments:" in said


def test_the_agent_itself_runs_without_streams_home_and_working_directory(host: Host, tmp_path: Path) -> None:
    """Whatever starts it."""
    gone = tmp_path / "gone"
    gone.mkdir()
    before = f'cd {gone} && rmdir {gone} && unset HOME && exec "$@" <&- >&- 2>&-'
    command = [str(AGENTCTL), "run", "-c", str(host.agent.config_file)]
    process = subprocess.Popen(["/bin/sh", "-c", before, "sh", *command], env=host.agent.environment)
    try:
        wait_until(lambda: host.agent.status().get("state") == "polling", "it polls")
        process.terminate()
        assert 0 == process.wait(PATIENCE_S)
    finally:
        process.kill()
        process.wait()
