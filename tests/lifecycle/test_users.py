"""Scripts that run as other users."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from agent.appspec import HookScript
from agent.errors import CommandFailure
from agent.lifecycle.context import ScriptPatience
from agent.lifecycle.ending import end_processes
from agent.lifecycle.outcome import Ended, Silence, timeout_failure
from agent.logs import get_logger
from tests.lifecycle.isolation import run_isolated
from tests.lifecycle.traces import read
from tests.waiting import is_running

if TYPE_CHECKING:
    from tests.lifecycle.conftest import Event

NOBODY = pwd.getpwnam("nobody")
OWN = pwd.getpwuid(os.geteuid())
FAKE_SUDO = """#!/bin/bash
echo "sudo $*" >&2
[ "$1" = -n ] || exit 99
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")


@pytest.mark.root
@needs_root
def test_a_script_becomes_its_user_entirely(event: Event) -> None:
    """User, group and all groups: whatever of root's stays is a hole."""
    script = "#!/bin/bash\nid -un; id -gn; id -Gn\nsed -n 's/^CapEff:\\t//p' /proc/self/status\n"
    expected = subprocess.run(
        ["id", "-Gn", "nobody"], check=True, capture_output=True, text=True
    ).stdout.strip()
    user, group, groups, capabilities = event.printed(script, runas="nobody").splitlines()
    assert ("nobody", expected.split()[0], expected) == (user, group, groups)
    assert int(capabilities, 16) == 0


@pytest.mark.root
@needs_root
def test_a_script_has_the_environment_of_its_user(event: Event) -> None:
    """Tools look for their settings in HOME, and nobody's shell does not matter."""
    event.inherited["HOME"] = "/root"
    script = '#!/bin/bash\necho "$HOME $USER $LOGNAME $SHELL $PATH"\n'
    expected = f"{NOBODY.pw_dir} nobody nobody {NOBODY.pw_shell} {event.inherited['PATH']}"
    assert expected == event.printed(script, runas="nobody")


@pytest.mark.root
@needs_root
def test_a_script_of_another_user_may_open_its_output_by_name(event: Event) -> None:
    """`> /dev/stderr` is in half of all scripts, and must not fail for lack of permission."""
    log = event.run_one("#!/bin/bash\necho error > /dev/stderr\n", runas="nobody")
    assert log.tail.endswith("[stderr]error\n")


@pytest.mark.root
@needs_root
def test_a_user_is_named_in_the_failure(event: Event) -> None:
    """The first thing to look at is whether that user may do it."""
    failure = event.fail_one("#!/bin/bash\nexit 5\n", runas="nobody")
    assert "Script at specified location: h.sh run as user nobody failed with exit code 5" in failure.message


@pytest.mark.root
@needs_root
def test_a_script_that_only_root_may_execute_is_made_executable_for_its_user(event: Event) -> None:
    """Archives keep modes such as 0744."""
    path = event.write("h.sh", "#!/bin/bash\necho ran\n", mode=0o744)
    log = event.run(HookScript(location="h.sh", runas="nobody"))
    assert log.tail.endswith("[stdout]ran\n")
    assert path.stat().st_mode & 0o777 == 0o755


@pytest.mark.root
@needs_root
def test_a_script_that_its_user_may_not_read_is_explained(event: Event) -> None:
    """It is made executable, but a shell has to read it, too, and only says `exit code 2`."""
    event.write("h.sh", "#!/bin/sh\necho ran\n", mode=0o700)
    failure = event.fail(HookScript(location="h.sh", runas="nobody"))
    assert failure.error_id == "hook-failed"
    assert "but not read it" in failure.message


@pytest.mark.root
@needs_root
def test_an_agent_that_is_not_root_ends_what_it_has_started_through_sudo(event: Event) -> None:
    """It may not signal the processes of another user itself."""
    event.directory.chmod(0o777)
    event.write("h.sh", "#!/bin/sh\nsetsid sleep 1000 & echo $! > $P\nsleep 1000\n")
    pids = event.directory / "pids"
    event.additions["P"] = str(pids)
    event.cancelled = lambda: read(pids) != ""

    def child() -> list[str]:
        # That user may not be able to read what is loaded later.
        get_logger().warning("about_to_become_nobody")
        if missing := missing_for_sudo_of_nobody():
            return ["skip", missing]
        os.setgroups([])
        os.setgid(NOBODY.pw_gid)
        os.setuid(NOBODY.pw_uid)
        failure = event.fail(HookScript(location="h.sh", sudo=True))
        return [failure.error_id, failure.message + failure.log]

    error_id, message = run_isolated(child)
    if error_id == "skip":
        pytest.skip(message)
    assert error_id == "hook-cancelled", message
    assert "could not be ended" not in message
    assert "sleep 1000" in message
    assert not is_running(int(read(pids)))


def missing_for_sudo_of_nobody() -> str:
    """Allow it, in a mount namespace of our own so that nobody else sees it; why not, where it can't be had."""
    private_mounts, new_namespace = "--make-rprivate", 0x00020000
    if shutil.which("sudo") is None or ctypes.CDLL(None).unshare(new_namespace) != 0:
        return "no sudo, or no mount namespaces"
    for command in (
        ["mount", private_mounts, "/"],
        ["mount", "-t", "tmpfs", "-o", "mode=755", "none", "/etc/sudoers.d"],
    ):
        if subprocess.run(command, check=False, capture_output=True).returncode:
            return "may not mount here"
    rules = Path("/etc/sudoers.d/rules")
    rules.write_text("nobody ALL=(ALL) NOPASSWD:SETENV: ALL\n")
    rules.chmod(0o440)
    return ""


@pytest.mark.root
@needs_root
def test_what_could_not_be_ended_is_not_said_to_have_been() -> None:
    """It is still there, and holds whatever it held."""
    script, own = HookScript(location="h.sh"), psutil.Process()

    class Own:
        def find(self) -> list[psutil.Process]:
            return [own]

    def child() -> list[str]:
        os.setgid(NOBODY.pw_gid)
        os.setuid(NOBODY.pw_uid)
        ending = end_processes(
            Own(), time.sleep, patience=ScriptPatience(term_s=0.02, kill_s=0.02), sudo=None
        )
        ended = Ended(running=ending.ended, survivors=ending.survivors, silent_s=Silence.ENTIRE)
        return [*ending.running, timeout_failure(script, ended).message]

    running, message = run_isolated(child)
    assert f"These could not be ended, look at them: {running}." in message
    assert "and ended" not in message


@pytest.mark.root
@needs_root
def test_a_directory_that_the_user_may_not_enter_is_named(event: Event) -> None:
    """A bare "Permission denied" on a script that everybody may execute leaves people helpless."""
    event.archive.chmod(0o700)
    failure = event.fail_one("#!/bin/bash\n", runas="nobody")
    assert failure.error_id == "hook-not-permitted"
    assert str(event.archive) in failure.message


@pytest.mark.root
@needs_root
def test_a_timeout_ends_the_processes_of_another_user(event: Event) -> None:
    """A shell in between, such as su, would die and leave them running."""
    failure = event.fail_one("#!/bin/bash\nsetsid sleep 1000 &\nsleep 1000\n", runas="nobody", timeout_s=0.5)
    assert failure.error_id == "hook-timed-out"
    assert "could not be ended" not in failure.message


@pytest.mark.root
@needs_root
def test_a_file_system_that_forbids_execution_is_explained(event: Event) -> None:
    """Hardened hosts mount /opt or /var with noexec."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "noexec,mode=755", "none", event.archive],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("may not mount here")
    try:
        assert event.fail_one("#!/bin/bash\n").error_id == "hook-noexec-mount"
    finally:
        subprocess.run(["umount", event.archive], check=True)


@pytest.mark.root
@needs_root
def test_an_agent_that_is_not_root_refuses_other_users(event: Event) -> None:
    """It can't become them, and must say so before anything has run."""
    event.directory.chmod(0o777)

    def child() -> str:
        os.setgid(NOBODY.pw_gid)
        os.setuid(NOBODY.pw_uid)
        failure = event.fail(HookScript(location="h.sh", runas="root"))
        return f"{failure.error_id}: {failure.message}"

    told = run_isolated(child)
    assert told.startswith("hook-user-not-permitted: ")
    assert "nobody" in told
    assert "only root" in told


def test_a_user_may_be_the_agents_own(event: Event) -> None:
    """An agent that is not root serves AppSpecs that name its own user."""
    script = '#!/bin/bash\necho "$(id -un) $HOME $USER"\n'
    assert f"{OWN.pw_name} {OWN.pw_dir} {OWN.pw_name}" == event.printed(script, runas=OWN.pw_name)


def test_a_user_may_be_given_by_number(event: Event) -> None:
    """Containers and images know users by number."""
    assert OWN.pw_name == event.printed("#!/bin/bash\necho $USER\n", runas=str(OWN.pw_uid))


def test_a_user_is_never_part_of_a_command_line(event: Event) -> None:
    """`nobody; touch x` is no user, and no command."""
    failure = event.fail_one("#!/bin/bash\n", runas="nobody; touch /tmp/lifecycle-evil")
    assert failure.error_id == "hook-user-unknown"


def test_sudo_keeps_the_deployments_variables_and_never_asks(event: Event) -> None:
    """By itself, sudo drops the environment, and would wait for a password for ever."""
    sudo = event.write("bin/sudo", FAKE_SUDO)
    event.inherited["PATH"] = f"{sudo.parent}:{event.inherited['PATH']}"
    event.deployment = {"DEPLOYMENT_ID": "d-NEW"}
    log = event.run_one(
        '#!/bin/bash\necho "$1"\n', sudo=True, runas=OWN.pw_name, args=("x",), environment={"MODE": "fast"}
    )
    expected = f"sudo -n -u {OWN.pw_name} --preserve-env=DEPLOYMENT_ID,MODE -- {event.archive}/h.sh x"
    assert f"[stderr]{expected}\n" in log.tail
    assert "[stdout]x\n" in log.tail


def test_a_host_without_sudo_says_so(event: Event) -> None:
    """Minimal images have none."""
    empty = event.directory / "empty"
    empty.mkdir()
    event.inherited["PATH"] = str(empty)
    failure = event.fail_one("#!/bin/bash\n", sudo=True)
    assert failure.error_id == "hook-sudo-missing"
    assert str(empty) in failure.message


@pytest.fixture
def profile(event: Event, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the agent's own user, with a profile yet to be written."""
    facts = list(OWN)
    facts[5], facts[6] = str(event.directory), "/bin/bash"
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: pwd.struct_passwd(facts))
    return event.directory / ".profile"


def test_a_login_script_finds_what_the_profile_of_its_user_sets(event: Event, profile: Path) -> None:
    """nvm, rbenv and the like put themselves into PATH there."""
    profile.write_text('export FROM_PROFILE=yes PATH="/opt/nvm:$PATH"\n')
    script = '#!/bin/sh\necho "$FROM_PROFILE ${PATH%%:*} $# $2"\n'
    assert event.printed(script, login=True, args=("a", "b c")) == "yes /opt/nvm 2 b c"


def test_what_a_deployment_sets_wins_over_the_profile(event: Event, profile: Path) -> None:
    """`environment:` is the last word, and its values stand on no command line."""
    profile.write_text("export MODE=profile DEPLOYMENT_ID=profile\n")
    event.deployment = {"DEPLOYMENT_ID": "d-NEW"}
    script = '#!/bin/sh\necho "$DEPLOYMENT_ID $MODE"; env | grep -c _HOOK_VARIABLE_\nexit 0\n'
    odd = "a'b\"$(exit) `x` c"
    assert event.printed(script, login=True, environment={"MODE": odd}) == f"d-NEW {odd}\n0"


def test_a_login_script_runs_where_all_scripts_do(event: Event, profile: Path) -> None:
    """A profile is read, and that is all: the directory stays, and no terminal appears."""
    profile.touch()
    printed = event.printed("#!/bin/sh\npwd -P; tty\nexit 0\n", login=True)
    assert printed == f"{Path.cwd()}\nnot a tty"


def test_a_login_script_without_first_line_runs(event: Event, profile: Path) -> None:
    """As every other script does."""
    profile.touch()
    assert event.printed("echo ran\n", login=True) == "ran"


@pytest.mark.parametrize(
    ("first_line", "expected"),
    [
        ("#!/no/such/interpreter", "hook-interpreter-missing"),
        ("#!/bin/bash\r", "hook-windows-line-ends"),
        ("#! /bin/bash -e\r", None),
        ("#!\t/bin/bash\t-e", None),
    ],
)
def test_a_shell_in_between_hides_no_reason(
    event: Event, profile: Path, first_line: str, expected: str | None
) -> None:
    """A shell would only say `not found`, of a script that is there, and exit with 127."""
    profile.touch()
    event.write("h.sh", first_line + "\n:\n")
    try:
        event.run(HookScript(location="h.sh", login=True))
        found = None
    except CommandFailure as failure:
        found = failure.error_id if failure.error_id != "hook-failed" else None
    assert expected == found


def test_a_shell_in_between_hides_no_directory(event: Event, profile: Path) -> None:
    """A location that stops short of the file name."""
    profile.touch()
    event.write("d/h.sh", "#!/bin/bash\n")
    assert event.fail(HookScript(location="d", login=True)).error_id == "hook-script-is-directory"


@pytest.mark.root
@needs_root
def test_a_script_that_cannot_be_made_executable_is_explained(event: Event) -> None:
    """An agent that is not root may not change the mode of other users' files; code 2."""
    event.directory.chmod(0o777)
    event.write("h.sh", "#!/bin/bash\n", mode=0o644)

    def child() -> list[str | int]:
        os.setgid(NOBODY.pw_gid)
        os.setuid(NOBODY.pw_uid)
        failure = event.fail(HookScript(location="h.sh"))
        return [failure.error_id, int(failure.code), failure.message]

    error_id, code, message = run_isolated(child)
    assert (error_id, code) == ("hook-script-not-executable", 2)
    assert "Operation not permitted" in message


@pytest.mark.root
@needs_root
def test_a_login_script_of_a_user_without_a_shell_is_explained(event: Event) -> None:
    """Users of services have nologin, which would say something strange and fail."""
    failure = event.fail_one("#!/bin/sh\n", login=True, runas="nobody")
    assert failure.error_id == "hook-login-shell-unusable"
    assert NOBODY.pw_shell in failure.message


@pytest.mark.root
@needs_root
def test_a_login_script_becomes_its_user(event: Event) -> None:
    """The profile is read as that user, too: it is theirs to write."""
    entry = next(
        (entry for entry in pwd.getpwall() if entry.pw_uid and entry.pw_shell in ("/bin/sh", "/bin/bash")),
        None,
    )
    if entry is None:
        pytest.skip("no user but root has a shell here")
    assert event.printed('#!/bin/sh\nid -un; echo "$HOME"\n', login=True, runas=entry.pw_name) == (
        f"{entry.pw_name}\n{entry.pw_dir}"
    )
