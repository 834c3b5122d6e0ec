"""Scripts that run as other users."""

from __future__ import annotations

import os
import pwd
import subprocess
from typing import TYPE_CHECKING

import pytest

from agent.appspec import HookScript
from tests.lifecycle.isolation import run_isolated

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
