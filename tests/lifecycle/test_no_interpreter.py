"""Scripts that name no interpreter in their first two bytes."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.lifecycle.private_etc import add_user, in_private_etc

if TYPE_CHECKING:
    from tests.lifecycle.conftest import Event

BASH_ONLY = b"""
#!/bin/bash
pids=(1 2)
if [[ -n ${pids[0]} ]]; then
  echo "stopping ${pids[@]}"
fi
"""
WHO = "\nreadlink /proc/$$/exe; :\n"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


def program_for(event: Event, login_shell: str, content: str) -> str:
    """The program that runs this script for a user with this shell."""
    printed: str = in_private_etc(
        lambda: add_user("app", login_shell=login_shell), lambda: event.printed(content, runas="app")
    )
    return printed


@pytest.mark.root
@needs_root
def test_a_blank_line_before_the_interpreter_leaves_it_to_the_users_shell(event: Event) -> None:
    """`su` asked the user's shell, so scripts with arrays and a blank first line have always worked for root."""
    printed = in_private_etc(
        lambda: add_user("bashful", login_shell="/bin/bash"),
        lambda: event.printed(BASH_ONLY.decode(), runas="bashful"),
    )
    assert printed == "stopping 1 2"


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(
    ("login_shell", "start", "expected"),
    [
        ("/bin/bash", "", "bash"),
        ("/bin/bash", "# a comment", "bash"),
        ("/bin/ksh93", "", "ksh93"),
        ("/bin/tcsh", "# a comment", "tcsh"),
        ("/bin/tcsh", "", "sh"),
        ("/bin/sh", "", "sh"),
        ("/bin/dash", "", "sh"),
        ("/bin/zsh", "", "sh"),
        ("/usr/bin/fish", "", "sh"),
        ("/bin/mksh", "", "sh"),
        ("/bin/rbash", "", "sh"),
        ("/usr/sbin/nologin", "", "sh"),
        ("/bin/false", "", "sh"),
        ("/usr/bin/git-shell", "", "sh"),
        ("/no/such/bash", "", "sh"),
    ],
)
def test_the_program_is_what_su_would_have_made_of_it(
    event: Event, login_shell: str, start: str, expected: str
) -> None:
    """Each shell has a way of its own with files that the kernel can't start, and shells that run none are passed over."""
    found = program_for(event, login_shell, f"{start}{WHO}")
    wanted = shutil.which(expected)
    assert wanted is not None
    assert found == os.path.realpath(wanted)


def test_without_runas_it_is_the_standard_shell(event: Event) -> None:
    """As with every agent so far, whatever root's shell is."""
    assert event.printed(WHO) == os.path.realpath("/bin/sh")


@pytest.mark.root
@needs_root
def test_a_failure_says_which_program_ran_it_and_why(event: Event) -> None:
    """Nobody who has written `#!/bin/bash` into line 2 thinks of another program."""
    says = in_private_etc(
        lambda: add_user("app", login_shell="/bin/zsh"),
        lambda: event.fail_one(BASH_ONLY, runas="app").message,
    )
    assert says.startswith("Script at specified location: h.sh run as user app failed with exit code ")
    assert "line 7 of the AppSpec file" in says
    assert "run by /bin/sh, because its first two bytes are not `#!` (that comes in line 2)" in says


def test_a_byte_order_mark_is_named(event: Event) -> None:
    """Editors hide it, and a shell only says `#!/bin/bash: not found`."""
    says = event.fail_one(b"\xef\xbb\xbf#!/bin/bash\n[[ a == b ]]\n").message
    assert "byte order mark (EF BB BF)" in says
    assert "run by /bin/sh" in says


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le", "utf-32"])
def test_a_script_in_a_wide_encoding_is_named_as_such(event: Event, encoding: str) -> None:
    """It is no program for another kind of machine."""
    failure = event.fail_one("#!/bin/bash\necho hi\n".encode(encoding))
    assert failure.error_id == "hook-script-encoding"
    assert encoding[:6].upper() in failure.message


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le"])
def test_text_in_a_wide_encoding_is_known_without_any_mark(event: Event, encoding: str) -> None:
    """PowerShell leaves the mark out, too, if it is told to."""
    failure = event.fail_one("echo hi\n".encode(encoding))
    assert failure.error_id == "hook-script-encoding"


@pytest.mark.parametrize(
    ("content", "error_id", "says"),
    [
        ("#!\nexit 3\n", "hook-failed", "nothing follows the `#!` in its first line"),
        ("#!bash\n", "hook-interpreter-missing", "Write its whole path, or #!/usr/bin/env bash"),
        ("#!/tmp\n", "hook-not-permitted", "its interpreter /tmp is a directory"),
        ("\ufeff#!/bin/bash\r\nexit 3\n", "hook-failed", "Windows line ends (the first in line 1)"),
        ("\ufeff#!/bin/bash\r\nexit 3\n", "hook-failed", "byte order mark (EF BB BF)"),
    ],
)
def test_what_is_wrong_with_a_first_line_is_said(
    event: Event, content: str, error_id: str, says: str
) -> None:
    """Each needs another correction."""
    failure = event.fail_one(content)
    assert failure.error_id == error_id
    assert says in failure.message
