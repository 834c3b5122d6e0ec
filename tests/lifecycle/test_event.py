"""All scripts of one event together."""

from __future__ import annotations

import os
import re
import resource
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.appspec import HookScript
from agent.errors import CommandFailure
from agent.lifecycle.accounts import find_account
from agent.lifecycle.context import ScriptPatience
from agent.lifecycle.environment import DEFAULT_PATH
from agent.lifecycle.script_process import DirectScript
from tests.lifecycle.isolation import run_isolated
from tests.lifecycle.traces import read

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lifecycle.conftest import Event

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
FACTS = """#!/bin/bash
read -r pid _ _ _ group session _ < /proc/$$/stat
echo "$([ $group = $$ ] && echo group leader) $([ $session = $$ ] && echo session leader)"
readlink /proc/$$/fd/0
ls /proc/$$/fd | tr '\\n' ' '
"""


def test_scripts_run_in_the_order_of_the_appspec(event: Event) -> None:
    """Stop the old before the new is started."""
    for name in "abc":
        event.write(f"{name}.sh", f"#!/bin/bash\necho {name}\n")
    log = event.run(*(HookScript(location=f"{name}.sh") for name in "cab"))
    expected = "LifecycleEvent - AfterInstall\n" + "".join(f"Script - {n}.sh\n[stdout]{n}\n" for n in "cab")
    assert expected == log.tail


def test_the_first_failure_ends_the_event(event: Event) -> None:
    """What comes after builds on what came before; the report holds the output of both."""
    event.write("a.sh", "#!/bin/bash\necho a\n")
    event.write("c.sh", "#!/bin/bash\necho c\n")
    failure = event.fail(*(HookScript(location=f"{name}.sh") for name in "abc"))
    assert (failure.error_id, failure.script_name) == ("hook-script-missing", "b.sh")
    assert failure.log == "LifecycleEvent - AfterInstall\nScript - a.sh\n[stdout]a\n"


def test_users_are_looked_up_before_the_first_script_runs(event: Event) -> None:
    """A typing error in the last entry must not be found after half of the work."""
    ran = event.directory / "ran"
    event.write("a.sh", f"#!/bin/bash\ntouch {ran}\n")
    failure = event.fail(
        HookScript(location="a.sh"), HookScript(location="b.sh", runas="no-such-user", line=9)
    )
    assert (failure.error_id, failure.script_name) == ("hook-user-unknown", "b.sh")
    assert not ran.exists()


def test_both_logs_have_the_lines_that_tools_know(event: Event) -> None:
    """Log shippers parse the formats of the existing agents."""
    event.run_one("#!/bin/bash\necho out\n")
    lines = ["LifecycleEvent - AfterInstall", r"Script - h\.sh", r"\[stdout\]out"]
    assert re.fullmatch("".join(f"{TIME} {line}\n" for line in lines), read(event.scripts_log))
    pattern = "".join(rf"\[{TIME}\.\d{{3}}\] \[d-NEW\]{line}\n" for line in lines)
    assert re.fullmatch(pattern, read(event.deployments_log))


def test_the_log_of_all_deployments_can_be_switched_off(event: Event) -> None:
    """`enable_deployments_log: false`."""
    event.options["deployments_log"] = None
    event.run_one("#!/bin/bash\necho out\n")
    assert not event.deployments_log.exists()
    assert "[stdout]out\n" in read(event.scripts_log)


def test_output_is_in_the_log_while_the_script_runs(event: Event) -> None:
    """People follow a long deployment with `tail -f`."""
    event.additions["LOG"] = str(event.scripts_log)
    script = '#!/bin/bash\necho started\nuntil grep -q "stdout.started" "$LOG"; do sleep 0.01; done\n'
    event.run_one(script, timeout_s=10)


def test_bytes_are_logged_as_they_were_printed(event: Event) -> None:
    """Colours and other encodings are for whoever looks at the file."""
    event.run_one("#!/bin/bash\nprintf '\\x1b[31m\\xe9\\0\\x1b[0m\\n'\n")
    assert b"[stdout]\x1b[31m\xe9\x00\x1b[0m\n" in event.scripts_log.read_bytes()


def test_a_log_that_cannot_be_written_does_not_fail_the_deployment(event: Event) -> None:
    """A full disk is bad enough; the report still has the output."""
    event.scripts_log.parent.write_text("in the way of the directory")
    event.options["deployments_log"] = Path("/dev/full")
    assert event.run_one("#!/bin/bash\necho out\n").tail.endswith("[stdout]out\n")


def test_a_named_pipe_in_the_place_of_the_log_keeps_no_script_waiting(event: Event) -> None:
    """Whoever writes to one waits for a reader, who never comes."""
    event.scripts_log.parent.mkdir()
    os.mkfifo(event.scripts_log)
    event.write("h.sh", "#!/bin/sh\nhead -c 1000000 /dev/zero | tr '\\0' '\\n'; echo done\n")
    assert event.run(HookScript(location="h.sh")).tail.endswith("[stdout]done\n")


def test_a_script_leads_a_session_of_its_own_with_nothing_open_but_its_streams(event: Event) -> None:
    """A leaked lock or socket would be held by the application for ever."""
    assert event.printed(FACTS).splitlines()[:3] == ["group leader session leader", "/dev/null", "0 1 2 255 "]


def test_a_script_runs_where_the_agent_does(event: Event) -> None:
    """Scripts with relative paths rely on it."""
    assert str(Path.cwd()) == event.printed("#!/bin/bash\npwd -P\n")


def test_a_script_runs_in_the_root_where_the_agents_own_directory_has_gone(event: Event) -> None:
    """Every shell would complain about getcwd otherwise."""
    gone = event.directory / "gone"
    gone.mkdir()

    def child() -> str:
        os.chdir(gone)
        gone.rmdir()
        return event.printed("#!/bin/bash\npwd -P\n")

    assert run_isolated(child) == "/"


def test_a_script_sees_its_environment_and_nothing_else(event: Event) -> None:
    """What each layer holds is decided elsewhere; here nothing may be lost or added."""
    event.inherited = {"PATH": DEFAULT_PATH, "A": "inherited"}
    event.deployment = {"DEPLOYMENT_ID": "d-NEW"}
    event.additions = {"B": "grün", "LD_PRELOAD": "/evil.so"}
    printed = event.printed("#!/bin/bash\nenv\n", environment={"C": "line\nend"})
    assert {"A=inherited", "DEPLOYMENT_ID=d-NEW", "B=grün", "C=line", "end"} <= set(printed.splitlines())
    assert "LD_PRELOAD" not in printed


def test_a_symlink_out_of_the_archive_is_refused(event: Event) -> None:
    """A revision must not choose which of the host's programs run."""
    (event.archive / "h.sh").symlink_to("/bin/true")
    failure = event.fail(HookScript(location="h.sh"))
    assert failure.error_id == "hook-location-outside-archive"
    assert "symlink to" in failure.message


def test_a_symlink_within_the_archive_works(event: Event) -> None:
    """Revisions share one script among several events."""
    event.write("real.sh", "#!/bin/bash\necho ran\n")
    (event.archive / "h.sh").symlink_to("real.sh")
    assert event.run(HookScript(location="h.sh")).tail.endswith("[stdout]ran\n")


def test_a_dangling_symlink_says_where_it_leads(event: Event) -> None:
    """The name is there, so "does not exist" alone would not be believed."""
    (event.archive / "h.sh").symlink_to("gone.sh")
    failure = event.fail(HookScript(location="h.sh"))
    assert failure.error_id == "hook-script-missing"
    assert "gone.sh, which does not exist" in failure.message


def test_a_failure_in_an_earlier_revisions_script_says_whose_it_is(event: Event) -> None:
    """People repair the stop script in the new revision and wonder why nothing changes."""
    event.options["scripts_of"] = "d-OLD"
    message = event.fail_one("#!/bin/bash\nexit 1\n").message
    assert "d-OLD" in message
    assert "d-NEW" in message


def test_a_script_that_an_earlier_revision_lacks_says_whose_revision_that_is(event: Event) -> None:
    """People look for the missing script in the revision that they deploy, and there it is."""
    event.options["scripts_of"] = "d-OLD"
    event.write("scripts/stop_server.sh", "#!/bin/bash\n")
    failure = event.fail(HookScript(location="stop-server.sh"))
    assert failure.error_id == "hook-script-missing"
    assert "the revision has scripts/stop_server.sh" in failure.message
    assert "At AfterInstall the scripts of the earlier deployment d-OLD run" in failure.message
    assert "not those of d-NEW" in failure.message


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize("make", [os.mkfifo, make_socket])
def test_what_is_no_file_is_not_opened(event: Event, make: Callable[[Path], object]) -> None:
    """Reading a named pipe that nobody writes to never ends, and no timeout would be running yet."""
    make(event.archive / "h.sh")
    failure = event.fail(HookScript(location="h.sh", line=7))
    assert (failure.error_id, failure.script_name, failure.code) == ("hook-script-not-a-file", "h.sh", 4)
    assert "line 7" in failure.message


def test_a_script_that_puts_something_else_in_its_place_ends_in_a_result(event: Event) -> None:
    """Whoever explains its exit code looks into the file again."""
    assert event.fail_one('#!/bin/bash\nrm "$0"; mkfifo "$0"; exit 3\n').error_id == "hook-failed"
    (event.archive / "h.sh").unlink()
    assert event.fail_one('#!/bin/bash\nrm "$0"; exit 3\n').error_id == "hook-failed"


def test_windows_line_ends_are_only_blamed_where_they_matter(event: Event) -> None:
    """Python does not mind them, so there the reason is another one."""
    failure = event.fail_one("#!/usr/bin/env python3\nimport sys\r\nsys.exit(3)\r\n")
    assert "failed with exit code 3. " in failure.message
    assert "Windows" not in failure.message


def test_both_logs_are_rotated_by_size(event: Event) -> None:
    """A deployment that prints without end must not fill the disk."""
    event.options["max_log_bytes"] = 10_000
    event.write("h.sh", "#!/bin/bash\nseq -f %090g $1 $(($1 + 39))\n")
    event.run(*(HookScript(location="h.sh", args=(str(start),)) for start in range(1, 241, 40)))
    for log in (event.scripts_log, event.deployments_log):
        files = sorted(log.parent.iterdir(), reverse=True)
        assert len(files) > 2
        assert max(file.stat().st_size for file in files) <= 10_000
        printed = [line for file in files for line in read(file).splitlines() if "[stdout]" in line]
        assert [int(line.partition("[stdout]")[2]) for line in printed] == list(range(1, 241))


def test_a_script_that_is_being_written_is_waited_for(event: Event) -> None:
    """Another process that forked at the wrong moment has it open for an instant."""
    path = event.write("h.sh", "#!/bin/bash\necho ran\n")
    script = 'exec 3>>"$1"; echo; read -r line; exec 3>&-'
    with subprocess.Popen(
        ["/bin/bash", "-c", script, "sh", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdin and writer.stdout  # noqa: PT018
        writer.stdout.readline()
        event.options["patience"] = ScriptPatience(busy_s=0.2)
        failure = event.fail(HookScript(location="h.sh"))
        assert failure.error_id == "hook-script-busy"
        writer.stdin.close()
    assert event.run(HookScript(location="h.sh")).tail.endswith("[stdout]ran\n")


def test_much_output_takes_neither_memory_nor_the_reports_end(event: Event) -> None:
    """A verbose package manager must not get the worker killed on a small host, nor who records its output."""
    event.write(
        "h.sh", "#!/bin/bash\nhead -c 20000000 /dev/zero\nyes 123456789 | head -c 20000000\necho end\n"
    )

    def child() -> tuple[str, int, int]:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peaks: list[int] = []
        event.options["on_ended"] = lambda: peaks.append(peak_kib_of("hook-output"))
        tail = event.run(HookScript(location="h.sh")).tail
        return tail, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, peaks[0] - before

    tail, grown_kib, recorder_grown_kib = run_isolated(child)
    assert tail.endswith("[stdout]123456789\n[stdout]end\n")
    assert grown_kib < 20_000
    assert recorder_grown_kib < 20_000


def peak_kib_of(name: str) -> int:
    """The most memory that our child of this name has ever had."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    status = next(
        text for pid in children if f"Name:\t{name}\n" in (text := read(Path(f"/proc/{pid}/status")))
    )
    return int(status.partition("VmHWM:")[2].split()[0])


def test_asking_whose_scripts_run_costs_no_heavy_import() -> None:
    """A command without scripts must be over in milliseconds."""
    heavy = ("psutil", "subprocess", "structlog", "ctypes", "yaml", "requests")
    modules = ("choice", "diagnostics", "environment")
    code = "import sys\n" + "".join(f"import agent.lifecycle.{name}\n" for name in modules)
    code += f"print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_a_script_without_runas_keeps_the_agents_user() -> None:
    """No look-up, no change of user: this must work for any user that the agent runs as."""
    assert find_account(HookScript(location="h.sh")) is None


@pytest.mark.parametrize("refused", ["LD_PRELOAD", "AWS_SECRET_ACCESS_KEY"])
def test_a_variable_that_is_refused_is_named_in_the_log(
    event: Event, capfd: pytest.CaptureFixture[str], refused: str
) -> None:
    """Whoever set it must find out why the script does not see it."""
    event.additions[refused] = "x"
    event.run_one("#!/bin/bash\n")
    assert refused in capfd.readouterr().err


def test_an_exit_code_that_nobody_has_is_no_success() -> None:
    """Popen takes 0 for it, and a script that failed would have succeeded."""
    process = subprocess.Popen(["/bin/sh", "-c", "exit 3"])
    os.waitpid(process.pid, 0)
    with pytest.raises(CommandFailure) as raised:
        DirectScript(process, HookScript(location="h.sh"), None).poll()
    assert raised.value.error_id == "hook-result-unknown"
