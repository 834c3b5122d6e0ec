"""What the message of a failed script says, and that it is true."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.appspec import HookScript
from agent.lifecycle.exit_meaning import Exited
from agent.lifecycle.outcome import exit_failure
from agent.lifecycle.script_file import ScriptFile

if TYPE_CHECKING:
    from tests.lifecycle.conftest import Event

OWN = pwd.getpwuid(os.geteuid())
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")


def exited(beginning: bytes = b"#!/bin/sh\n", **facts: Any) -> Exited:
    """How a script has ended."""
    file = ScriptFile(path=Path("/archive/h.sh"), beginning=beginning)
    known = {"code": 1, "program": "by /bin/sh", "path_variable": "/bin", "file": file, "is_readable": True}
    return Exited(**{**known, **facts})


def message_of(beginning: bytes = b"#!/bin/sh\n", **facts: Any) -> str:
    return exit_failure(HookScript(location="h.sh", line=7), exited(beginning, **facts)).message


def test_a_failure_names_line_and_program_and_ends_with_the_last_errors(event: Event) -> None:
    """That is what somebody looks for first, and the console cuts off nothing at the end."""
    message = event.fail_one(
        '#!/bin/bash -e\nfor n in 1 2 3 4; do echo "oops $n" >&2; echo; done\nexit 5\n'
    ).message
    assert message.startswith("Script at specified location: h.sh failed with exit code 5. ")
    assert "line 7 of the AppSpec file" in message
    assert f"run by /bin/bash -e as {OWN.pw_name}. " in message
    assert message.endswith("Last of its standard error: oops 2 | oops 3 | oops 4.")


def test_the_last_errors_are_found_behind_much_other_output(event: Event) -> None:
    """The tail in the report holds 2,048 characters, and a script may go on to print."""
    message = event.fail_one("#!/bin/bash\necho oops >&2\nsleep 0.1\nseq 10000\nexit 5\n").message
    assert message.endswith(": oops.")


def test_the_errors_of_an_earlier_script_are_not_the_last_ones(event: Event) -> None:
    """A warning of the script before has nothing to do with it."""
    event.write("a.sh", "#!/bin/sh\necho earlier >&2\n")
    event.write("b.sh", "#!/bin/sh\nexit 1\n")
    assert "earlier" not in event.fail(HookScript(location="a.sh"), HookScript(location="b.sh")).message


def test_a_script_that_was_never_started_has_not_said_what_another_one_did(event: Event) -> None:
    """`Last of its standard error` of a script that is not there sends people after the wrong one."""
    event.write("a.sh", "#!/bin/sh\necho a warning >&2\n")
    failure = event.fail(HookScript(location="a.sh"), HookScript(location="gone.sh"))
    assert "hook-script-missing" == failure.error_id
    assert "a warning" not in failure.message
    assert "a warning" in failure.log


def test_of_a_script_that_says_nothing_on_standard_error_the_last_output_is_shown(event: Event) -> None:
    """Many programs complain on standard output, and one that asks a question does so there, too."""
    message = event.fail_one("#!/bin/sh\necho starting; echo 'ERROR: no licence'; exit 3\n").message
    assert message.endswith("Last of its standard output: starting | ERROR: no licence.")
    silent = event.fail_one("#!/bin/sh\nexit 3\n").message
    assert "Last of its" not in silent


def test_the_message_of_a_killed_script_has_single_blanks() -> None:
    """What is put together from parts shows its seams."""
    for kills in (None, 0, 1):
        message = message_of(code=-9, oom_kills=kills)
        assert "  " not in message
        assert message == message.strip()


def test_a_script_that_an_earlier_revision_lacks_is_to_be_put_back_there(event: Event) -> None:
    """To correct the new revision, which is what the message of a missing script says, would be in vain."""
    event.options.update(event="ApplicationStop", scripts_of="d-OLD")
    failure = event.fail(HookScript(location="stop.sh", line=9))
    message = failure.message
    assert "hook-script-missing" == failure.error_id
    assert "named in line 9 of the AppSpec file of that earlier revision" in message
    assert (
        f"Put a script back at {event.archive}/stop.sh, or deploy with failures of ApplicationStop" in message
    )
    assert "add the script to the revision" not in message


@pytest.mark.parametrize(
    ("happening", "way_out"),
    [
        ("ApplicationStop", "failures of ApplicationStop ignored"),
        ("BeforeBlockTraffic", "failures of ApplicationStop ignored"),
        ("AfterAllowTraffic", "Repair the script in that deployment's archive."),
    ],
)
def test_a_script_of_an_earlier_revision_is_named_with_its_own_path(
    event: Event, happening: str, way_out: str
) -> None:
    """The log is in the new deployment's directory, the script is not."""
    event.options.update(event=happening, scripts_of="d-OLD")
    message = event.fail_one("#!/bin/sh\nexit 1\n", location="h.sh").message
    assert "deployment d-OLD" in message
    assert str(event.archive / "h.sh") in message
    assert way_out in message


def test_a_local_deployment_has_a_way_out_of_its_own(event: Event) -> None:
    """The service's option to ignore failures of ApplicationStop is none of its options; it has one of its own."""
    event.options.update(event="ApplicationStop", scripts_of="d-OLD", deployment_id="d-123456789-local")
    message = event.fail_one("#!/bin/sh\nexit 1\n").message
    assert "leave ApplicationStop out (agentctl deploy --events)" in message
    assert "--ignore-application-stop-failures" in message
    assert "ignored" not in message


def test_what_a_slash_before_a_location_means_is_said(event: Event) -> None:
    """People give the path of the host, and see that nothing is missing there."""
    message = event.fail(HookScript(location="/bin/sh", line=3)).message
    assert "stands for the root of the revision" in message
    assert "That of the host is there" in message


def test_codes_of_programs_that_are_no_shells_are_not_interpreted() -> None:
    """Python may exit with 137 or 127 for a reason of its own."""
    for code in (126, 127, 137):
        message = message_of(b"#!/usr/bin/python3\n", code=code)
        assert message.count(str(code)) == 1
        assert "signal" not in message
        assert "PATH" not in message


def test_a_program_that_env_does_not_find_is_named() -> None:
    """`python` has gone from many distributions, and 127 alone says nothing."""
    message = message_of(b"#!/usr/bin/env -S no-such-python -u\n", code=127)
    assert "has env look for no-such-python, which is in no directory of PATH (/bin)" in message


def test_where_a_profile_or_sudo_sets_path_the_agents_is_not_shown() -> None:
    """It would be another one than the script had."""
    message = message_of(code=127, path_variable=None)
    assert "PATH was" not in message
    assert "sudo or the login profile sets PATH" in message


@pytest.mark.parametrize(
    ("oom_kills", "says"),
    [
        (None, "look for 'Out of memory'"),
        (0, "not the kernel for lack of memory"),
        (2, "2 more in oom_kill"),
    ],
)
def test_whether_memory_ran_out_is_a_fact(oom_kills: int | None, says: str) -> None:
    """The kernel counts whom it kills, so there is no need for a guess."""
    assert says in message_of(code=-9, oom_kills=oom_kills)
    assert says in message_of(code=137, oom_kills=oom_kills)


def test_what_a_script_was_when_it_started_counts(event: Event) -> None:
    """A script that replaces itself, as by `git pull`, is not blamed for what is there now."""
    message = event.fail_one("#!/bin/bash\nprintf '#!/bin/sh\\r\\n' > x; mv x \"$0\"; exit 3\n").message
    assert "Windows" not in message
    assert "run by /bin/bash" in message
    assert "written to" not in message


def test_a_script_that_is_changed_while_it_runs_is_told_of(event: Event) -> None:
    """A shell reads on where it was, in the middle of some other command."""
    message = event.fail_one('#!/bin/bash\necho "exit 4" >> "$0"\n').message
    assert "exit code 4" in message
    assert "was written to while it ran" in message


def test_a_refusal_of_sudo_is_not_the_scripts_failure(event: Event) -> None:
    """Both end with 1, and the script is what people look at."""
    sudo = event.write("bin/sudo", "#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    event.inherited["PATH"] = f"{sudo.parent}:{event.inherited['PATH']}"
    failure = event.fail_one("#!/bin/sh\nexit 1\n", sudo=True)
    assert failure.error_id == "hook-sudo-refused"
    assert failure.message.endswith("sudo: a password is required.")


def test_a_script_that_fails_under_sudo_is_the_scripts_failure(event: Event) -> None:
    """Its exit code is passed on."""
    sudo = event.write("bin/sudo", '#!/bin/bash\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
    event.inherited["PATH"] = f"{sudo.parent}:{event.inherited['PATH']}"
    failure = event.fail_one("#!/bin/sh\nexit 1\n", sudo=True)
    assert failure.error_id == "hook-failed"
    assert "through sudo" in failure.message


@pytest.mark.parametrize("profile", ["exit 0", "exec true", "exit 3"])
def test_a_profile_that_ends_the_shell_is_no_success(
    event: Event, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    """The script never ran, whatever the exit code says."""
    facts = list(OWN)
    facts[5], facts[6] = str(event.directory), "/bin/bash"
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: pwd.struct_passwd(facts))
    (event.directory / ".profile").write_text(profile + "\n")
    failure = event.fail_one("#!/bin/sh\necho ran\n", login=True)
    assert failure.error_id == "hook-login-ended"
    assert "ran" not in failure.log.splitlines()[-1]


@pytest.mark.root
@needs_root
def test_an_interpreter_that_its_user_may_not_get_to_is_named(event: Event) -> None:
    """As a Python below /root, which is there for everybody who looks as root."""
    closed = event.directory / "closed"
    closed.mkdir(mode=0o700)
    (closed / "true").write_bytes(Path("/bin/true").read_bytes())
    (closed / "true").chmod(0o755)
    failure = event.fail_one(f"#!{closed}/true\n", runas="nobody")
    assert failure.error_id == "hook-not-permitted"
    assert f"nobody may not enter {closed}, in which its interpreter {closed}/true lies" in failure.message
    closed.chmod(0o755)
    (closed / "true").chmod(0o700)
    failure = event.fail_one(f"#!{closed}/true\n", runas="nobody")
    assert f"nobody may not execute its interpreter {closed}/true" in failure.message


def test_output_that_could_not_be_written_is_not_called_whole(event: Event) -> None:
    """On a full disk, or below a path that is none, somebody would look for lines that never came."""
    (event.directory / "logs").write_text("in the way")
    message = event.fail_one("#!/bin/sh\necho lost >&2\nexit 1\n").message
    assert "The whole output" not in message
    assert "could not all be written" in message
    assert message.endswith(": lost.")


@pytest.mark.root
@needs_root
def test_a_closed_directory_is_not_blamed_on_a_profile(event: Event) -> None:
    """The login shell has come to the script, and was not let in."""
    closed = event.archive / "closed"
    closed.mkdir(mode=0o700)
    event.write("closed/h.sh", "#!/bin/sh\n")
    entry = next(
        (user for user in pwd.getpwall() if user.pw_uid and user.pw_shell in ("/bin/sh", "/bin/bash")), None
    )
    if entry is None:
        pytest.skip("no user but root has a shell here")
    failure = event.fail(HookScript(location="closed/h.sh", runas=entry.pw_name, login=True))
    assert failure.error_id == "hook-not-permitted"
    assert f"may not enter {closed}" in failure.message


def test_a_timeout_names_the_program_and_ends_with_the_last_errors(event: Event) -> None:
    """What it said last is mostly what it waited for."""
    script = "#!/bin/bash\necho waiting for the database >&2\nsleep 1000\n"
    message = event.fail_one(script, timeout_s=0.5).message
    assert "failed to complete in 0.5 seconds" in message
    assert "line 7 of the AppSpec file and was run by /bin/bash as " in message
    assert message.endswith(": waiting for the database.")


def test_a_very_long_path_variable_leaves_room_for_the_rest() -> None:
    """A report holds 8,192 characters, and what the script said last is worth more than directory two hundred."""
    path = ":".join(f"/opt/packages/{number}/bin" for number in range(300))
    for beginning in (b"#!/bin/sh\n", b"#!/usr/bin/env no-such-program\n"):
        message = message_of(beginning, code=127, path_variable=path)
        assert "/opt/packages/0/bin:" in message
        assert "… (of 300 directories)" in message
        assert len(message) < 1200
