"""Scripts run in the session of their user, as PAM opens it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.appspec import HookScript
from agent.errors import CommandFailure
from agent.lifecycle.adoption import adopting_orphans
from agent.lifecycle.context import HookProcess, ScriptPatience
from agent.lifecycle.ending import end_abandoned_hook
from agent.lifecycle.environment import EnvironmentPolicy, HookEnvironment
from agent.lifecycle.pam import load_pam
from agent.lifecycle.session import SessionPlan
from agent.lifecycle.session_script import SessionScript, fork_keeper
from agent.lifecycle.streams import ScriptStreams
from tests.lifecycle.isolation import run_isolated
from tests.lifecycle.private_etc import ETC, SERVICE, add_user, in_private_etc, rules
from tests.lifecycle.traces import read
from tests.waiting import is_running, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.lifecycle.conftest import Event

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root opens sessions of users"),
]


def printed_in_session(event: Event, prepare: Callable[[], None], content: str, **fields: Any) -> str:
    """What a script of user `app` prints."""

    def prepare_all() -> None:
        add_user("app")
        prepare()

    entry = {"runas": "app", **fields}
    printed: str = in_private_etc(prepare_all, lambda: event.printed(content, **entry))
    return printed


def failure_in_session(
    event: Event, prepare: Callable[[], None], content: str = "#!/bin/sh\n", **fields: Any
) -> tuple[str, int, str, str]:
    """Id, code, message and log of what goes wrong with a script of user `app`."""

    def act() -> list[Any]:
        failure = event.fail_one(content, **{"runas": "app", **fields})
        return [failure.error_id, int(failure.code), failure.message, failure.log]

    def prepare_all() -> None:
        add_user("app")
        prepare()

    error_id, code, message, log = in_private_etc(prepare_all, act)
    return error_id, code, message, log


def helper(event: Event, name: str, content: str) -> Path:
    """A program for pam_exec."""
    path = event.directory / name
    path.write_text(content)
    path.chmod(0o755)
    return path


def test_a_script_has_the_variables_and_limits_of_its_users_session(event: Event) -> None:
    """Proxies stand in /etc/environment, limits of files in limits.conf; `su` has always brought them along."""

    def prepare() -> None:
        (ETC / "environment").write_text('FROM_FILE="two words"\nhttp_proxy=http://proxy:3128\n')
        (ETC / "default/locale").write_text("LANG=C.UTF-8\n")
        (ETC / "security/limits.conf").write_text("app - nofile 1234\n")
        rules(SERVICE + "session optional pam_umask.so umask=0037\n")

    script = '#!/bin/bash\necho "$FROM_FILE|$http_proxy|$LANG|$(ulimit -n)|$(umask)|$(id -un)"\n'
    assert printed_in_session(event, prepare, script) == "two words|http://proxy:3128|C.UTF-8|1234|0037|app"


def test_without_rules_of_our_own_those_of_su_count(event: Event) -> None:
    """What an administrator has set up for `su` is what hooks with runas have always had."""

    def prepare() -> None:
        (ETC / "pam.d/codedeploy-agent").unlink()
        (ETC / "environment").write_text("FROM_FILE=yes\n")

    assert printed_in_session(event, prepare, "#!/bin/sh\necho $FROM_FILE\n") == "yes"


def test_root_has_a_session_too(event: Event) -> None:
    """`runas: root` went through `su` like every other."""

    def prepare() -> None:
        (ETC / "environment").write_text("FROM_FILE=yes\n")

    assert printed_in_session(event, prepare, "#!/bin/sh\necho $FROM_FILE\n", runas="root") == "yes"


def test_a_login_script_has_a_session_and_the_profile_wins(event: Event) -> None:
    """The profile comes after the session, as at every login."""

    def prepare() -> None:
        (ETC / "environment").write_text("FROM_FILE=yes\nEDITOR=session\n")
        (ETC / "profile").write_text("EDITOR=profile; export EDITOR\n")

    printed = printed_in_session(event, prepare, "#!/bin/sh\necho $FROM_FILE $EDITOR\n", login=True)
    assert printed == "yes profile"


def test_a_script_without_runas_has_no_session(event: Event) -> None:
    """It ran without `su`, too, with what the agent's service has."""

    def prepare() -> None:
        (ETC / "environment").write_text("FROM_FILE=yes\n")

    assert printed_in_session(event, prepare, '#!/bin/sh\necho "[$FROM_FILE]"\n', runas=None) == "[]"


def test_what_a_deployment_says_wins_over_the_session(event: Event) -> None:
    """A DEPLOYMENT_ID in /etc/environment must not mislead a script, nor another HOME."""
    event.deployment = {"DEPLOYMENT_ID": "d-NEW"}

    def prepare() -> None:
        (ETC / "environment").write_text(
            "DEPLOYMENT_ID=x\nMODE=x\nHOME=/x\nPATH=/opt/session:/usr/bin:/bin\n"
        )

    script = '#!/bin/sh\necho "$DEPLOYMENT_ID $MODE $HOME $PATH"\n'
    printed = printed_in_session(event, prepare, script, environment={"MODE": "fast"})
    assert printed == "d-NEW fast /nonexistent /opt/session:/usr/bin:/bin"


def test_no_credentials_get_in_through_the_session(event: Event) -> None:
    """Keys in /etc/environment are for people who log in, and hooks never had the agent's."""
    event.options["environment"] = HookEnvironment(
        inherited=event.inherited, deployment={}, additions={}, policy=EnvironmentPolicy(strips_loader=True)
    )

    def prepare() -> None:
        (ETC / "environment").write_text(
            "AWS_ACCESS_KEY_ID=k\nAWS_SECRET_ACCESS_KEY=s\nLD_LIBRARY_PATH=/x\nNOTIFY_SOCKET=/n\nFINE=yes\n"
        )

    script = '#!/bin/sh\nenv | grep -E "^(AWS|LD_|NOTIFY|FINE)" | sort\n'
    assert printed_in_session(event, prepare, script) == "FINE=yes"


def test_an_allowlist_counts_for_the_session_too(event: Event) -> None:
    """`restrict_hook_env_to_allowlist` says what hooks get, wherever it comes from."""
    event.options["environment"] = HookEnvironment(
        inherited=event.inherited, deployment={}, additions={}, policy=EnvironmentPolicy(only_basics=True)
    )

    def prepare() -> None:
        (ETC / "environment").write_text("OTHER=x\nLANG=C.UTF-8\n")

    assert printed_in_session(event, prepare, '#!/bin/sh\necho "$LANG $OTHER"\n') == "C.UTF-8 "


def close_for_the_night() -> None:
    """Nobody but root may log in."""
    rules("account required pam_nologin.so\nsession required pam_permit.so\n")
    (ETC / "nologin").write_text("Down for the night.\n")


def remove_all_rules() -> None:
    """No service has a file."""
    for path in (ETC / "pam.d").iterdir():
        path.unlink()


REFUSALS: dict[str, tuple[Callable[[], None], str, tuple[str, ...]]] = {
    "expired": (
        lambda: rules(
            "account required pam_unix.so\nauth required pam_permit.so\nsession required pam_permit.so\n"
        ),
        "*:19000:0:99999:7::1:",
        ("pam_acct_mgmt", "account has expired", "chage -E -1 app"),
    ),
    "password_expired": (
        lambda: rules(
            "account required pam_unix.so\nauth required pam_permit.so\nsession required pam_permit.so\n"
        ),
        "x:0:0:99999:7:::",
        ("pam_acct_mgmt", "password has expired", "chage -l app"),
    ),
    "nologin": (
        close_for_the_night,
        "*:19000:0:99999:7:::",
        ("pam_acct_mgmt", "Down for the night.", "/etc/nologin"),
    ),
    "module_missing": (
        lambda: rules("account required pam_permit.so\nsession required pam_gone.so\n"),
        "*:19000:0:99999:7:::",
        ("pam_open_session", "not installed"),
    ),
    "denied": (
        lambda: rules("account required pam_permit.so\nsession required pam_deny.so\n"),
        "*:19000:0:99999:7:::",
        ("pam_open_session", "/etc/pam.d/codedeploy-agent"),
    ),
    "no_service": (
        remove_all_rules,
        "*:19000:0:99999:7:::",
        ("service su", "no file in /etc/pam.d"),
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refused_session_says_who_refused_what_and_why(event: Event, name: str) -> None:
    """The script never ran; the account, a rule or a package has to be put right, and the message says which."""
    prepare, shadow, says = REFUSALS[name]

    def act() -> list[Any]:
        failure = event.fail_one("#!/bin/sh\necho ran\n", runas="app")
        return [failure.error_id, int(failure.code), failure.message, failure.log]

    def prepare_all() -> None:
        add_user("app", shadow=shadow)
        prepare()

    error_id, code, message, log = in_private_etc(prepare_all, act)
    assert (error_id, code) == ("hook-session-refused", 4)
    assert message.startswith("Script at specified location: h.sh run as user app can't be started")
    assert [] == [text for text in ("user app", *says) if text not in message], message
    assert "ran" not in log.splitlines()[-1]


def test_a_module_that_hangs_is_ended_at_the_timeout(event: Event) -> None:
    """A directory service that does not answer must not hold up a deployment for ever, nor be blamed on the script."""
    pids = event.directory / "pids"
    hangs = helper(event, "hangs", f"#!/bin/sh\necho $$ > {pids}\nexec sleep 1000\n")
    error_id, code, message, _ = failure_in_session(
        event, lambda: rules(SERVICE + f"session required pam_exec.so {hangs}\n"), timeout_s=1
    )
    assert (error_id, code) == ("hook-session-timed-out", 3)
    assert "never started" in message
    wait_until(lambda: not is_running(int(read(pids))))


def test_a_module_that_ends_the_process_is_no_success(event: Event) -> None:
    """A module may crash, or call exit(0): neither says anything of a script that never ran."""
    kills = helper(event, "kills", "#!/bin/sh\nkill -SEGV $PPID\nsleep 1000\n")
    error_id, code, message, _ = failure_in_session(
        event, lambda: rules(SERVICE + f"session required pam_exec.so {kills}\n")
    )
    assert (error_id, code) == ("hook-session-broken", 4)
    assert "11 (SIGSEGV)" in message


def test_the_session_is_closed_after_the_script_however_that_ended(event: Event) -> None:
    """Keys, mounts and entries of a session must not pile up with every deployment."""
    told = event.directory / "told"
    tells = helper(event, "tells", f'#!/bin/sh\necho "$PAM_TYPE $PAM_USER $PAM_RUSER" >> {told}\n')

    def prepare() -> None:
        rules(SERVICE + f"session required pam_exec.so {tells}\n")

    both = "open_session app root\nclose_session app root\n"
    assert printed_in_session(event, prepare, f"#!/bin/sh\ncat {told}\n") == "open_session app root"
    assert read(told) == both
    told.unlink()
    assert failure_in_session(event, prepare, "#!/bin/sh\nexit 3\n")[0] == "hook-failed"
    assert read(told) == both
    told.unlink()
    assert failure_in_session(event, prepare, "#!/bin/sh\nkill -9 $$\n")[0] == "hook-killed"
    assert read(told) == both
    told.unlink()
    assert failure_in_session(event, prepare, "#!/bin/sh\nsleep 1000\n", timeout_s=1)[0] == "hook-timed-out"
    assert read(told) == both
    told.unlink()
    assert failure_in_session(event, prepare, "#!/no/such\n")[0] == "hook-interpreter-missing"
    assert read(told) == both


def test_a_session_that_does_not_close_keeps_nobody_waiting(event: Event) -> None:
    """The script has done its work, and that is what counts."""
    event.options["patience"] = ScriptPatience(session_s=0.3)
    pids = event.directory / "pids"
    hangs = helper(
        event,
        "hangs",
        f'#!/bin/sh\n[ "$PAM_TYPE" = open_session ] || {{ echo $$ > {pids}; exec sleep 1000; }}\n',
    )
    began = time.monotonic()
    assert printed_in_session(
        event,
        lambda: rules(SERVICE + f"session required pam_exec.so {hangs}\n"),
        "#!/bin/sh\necho done\n",
        timeout_s=500,
    )
    assert time.monotonic() - began < 100
    wait_until(lambda: not is_running(int(read(pids))))


def test_a_session_process_that_nothing_can_end_keeps_nobody_waiting(event: Event) -> None:
    """It waits for a dead disk, where no signal reaches it. The script has done its work."""
    freezer = Path("/sys/fs/cgroup/freezer", f"test-{os.getpid()}")
    try:
        freezer.mkdir()
    except OSError:
        pytest.skip("there is no way here to make a process that no signal ends")
    event.options["patience"] = ScriptPatience(session_s=0.3)
    freezes = helper(
        event,
        "freezes",
        "#!/bin/sh\n"
        '[ "$PAM_TYPE" = open_session ] && exit\n'
        f"echo $PPID > {freezer}/cgroup.procs && echo FROZEN > {freezer}/freezer.state\n",
    )
    try:
        printed = printed_in_session(
            event,
            lambda: rules(SERVICE + f"session required pam_exec.so {freezes}\n"),
            "#!/bin/sh\necho done\n",
            timeout_s=500,
        )
        assert printed == "done"
        assert (freezer / "cgroup.procs").read_text()
    finally:
        (freezer / "freezer.state").write_text("THAWED")
        wait_until(lambda: not (freezer / "cgroup.procs").read_text())
        freezer.rmdir()


def test_what_modules_have_to_say_is_in_the_log(event: Event) -> None:
    """A password that is about to expire is worth knowing before it has."""

    def prepare() -> None:
        rules(SERVICE + "session required pam_echo.so Mind the gap, %u.\n")

    printed = printed_in_session(event, prepare, "#!/bin/sh\necho ran\n")
    assert sorted(printed.splitlines()) == ["Mind the gap, app.", "ran"]


def test_a_script_whose_session_process_is_killed_keeps_its_result(event: Event) -> None:
    """The kernel may pick that process when memory runs out; the script is none the worse for it."""
    kill = '#!/bin/sh\nkill -9 $PPID\nwhile [ "$(ps -o comm= -p $PPID)" = hook-session ]; do :; done\n'
    error_id, _, message, _ = failure_in_session(event, lambda: None, kill + "exit 3\n", runas="root")
    assert (error_id, "exit code 3" in message) == ("hook-failed", True)
    assert printed_in_session(event, lambda: None, kill + "echo ran\n", runas="root").endswith("ran")


class LateScript:
    """A script whose process is there, and waits before it becomes the script; in the session that it is to have."""

    def __init__(self, directory: Path) -> None:
        self.ran, self._go, self._is_there = (directory / name for name in ("ran", "go", "is there"))
        streams = ScriptStreams()
        plan = SessionPlan(
            worker=os.getpid(),
            service="codedeploy-agent",
            user="app",
            uid=4242,
            gid=4242,
            groups=(4242,),
            environment={},
            start=self._start,
            announce=lambda: None,
            closing_s=5.0,
        )
        library = load_pam()
        assert library is not None
        ours, self._keeper = fork_keeper(library, plan, streams)
        self.process = SessionScript(
            self._keeper,
            ours,
            script=HookScript(location="h.sh"),
            service="su",
            closing_s=5.0,
            explain=_explain,
        )
        wait_until(self._is_there.exists)

    def _start(
        self, _variables: Mapping[str, str], become_user: Callable[[str | None], None]
    ) -> subprocess.Popen[bytes]:
        def become_late() -> None:
            self._is_there.touch()
            wait_until(self._go.exists)
            become_user(None)

        self.ran.touch()
        self.ran.chmod(0o666)
        command = ["/bin/sh", "-c", f"echo yes > {self.ran}; exit 3"]
        return subprocess.Popen(command, preexec_fn=become_late, start_new_session=True)  # noqa: PLW1509

    def kill_keeper(self) -> None:
        os.kill(self._keeper, signal.SIGKILL)
        wait_until(lambda: not is_running(self._keeper))

    def go_on(self) -> None:
        self._go.touch()


def _explain(error: int) -> CommandFailure:
    return CommandFailure("hook-not-startable", str(error))


def test_a_script_that_is_about_to_start_when_its_session_process_is_killed_keeps_its_result(
    event: Event,
) -> None:
    """It would else run after a report that says that it was not started."""

    def act() -> int:
        with adopting_orphans():
            late = LateScript(event.directory)
            late.kill_keeper()
            later = threading.Timer(0.2, late.go_on)
            later.start()
            wait_until(lambda: late.process.poll() is not None)
            later.join()
        code = late.process.poll()
        assert code is not None
        return code

    assert 3 == in_private_etc(lambda: add_user("app"), act)


def test_a_script_that_nobody_can_be_told_of_does_not_start(event: Event) -> None:
    """Its worker has given it up, or was killed."""

    def act() -> str:
        with adopting_orphans():
            late = LateScript(event.directory)
            late.kill_keeper()
            late.process.reap()
            late.process.finish()
            late.go_on()
            with contextlib.suppress(ChildProcessError):
                while True:
                    os.wait()
        return read(late.ran)

    assert "" == in_private_etc(lambda: add_user("app"), act)


def test_what_modules_say_at_length_spoils_no_report(event: Event) -> None:
    """They may say more than one message between processes of ours holds."""

    def prepare() -> None:
        (ETC / "said").write_text(chr(0x1F600) * 500)
        rules("account optional pam_echo.so file=/etc/said\n" * 30 + "account required pam_deny.so\n")

    error_id, _, message, _ = failure_in_session(event, prepare)
    assert error_id == "hook-session-refused"
    assert chr(0x1F600) in message


def test_a_user_may_not_signal_the_process_of_the_session(event: Event) -> None:
    """It is root's, and keeps the result."""
    script = "#!/bin/sh\nkill -9 $PPID 2>/dev/null || echo refused\n"
    assert printed_in_session(event, lambda: None, script) == "refused"


def test_a_background_process_outlives_the_session(event: Event) -> None:
    """It may be the application."""
    pids = event.directory / "pids"
    pids.touch(mode=0o666)
    pids.chmod(0o666)
    script = f"#!/bin/sh\nsleep 1000 >/dev/null 2>&1 &\necho $! > {pids}\n"
    printed_in_session(event, lambda: None, script)
    pid = int(read(pids))
    assert is_running(pid)
    os.kill(pid, signal.SIGKILL)


def test_a_timeout_ends_all_that_a_script_in_a_session_has_started(event: Event) -> None:
    """What left the script's session or was orphaned is found as everywhere else; nothing of ours is listed."""
    pids = event.directory / "pids"
    pids.touch()
    pids.chmod(0o666)
    script = (
        f"#!/bin/bash\n(setsid sleep 1001 & echo $! >> {pids})\ntrap '' TERM\n"
        f"sleep 1002 & echo $! >> {pids}\necho $$ >> {pids}\nwait\nwhile :; do sleep 1; done\n"
    )
    event.options["patience"] = ScriptPatience(term_s=0.5)
    error_id, _, message, _ = failure_in_session(event, lambda: None, script, timeout_s=1)
    assert error_id == "hook-timed-out"
    assert "sleep 1001" in message
    assert "could not be ended" not in message
    assert not any(is_running(int(pid)) for pid in read(pids).split())
    assert "hook-session" not in message
    assert "python" not in message


def test_a_script_that_signals_its_group_reaches_nothing_of_ours(event: Event) -> None:
    """`kill 0` is how scripts clean up after themselves."""
    script = "#!/bin/bash\ntrap 'exit 7' TERM\nkill 0\nsleep 5\n"
    error_id, _, message, _ = failure_in_session(event, lambda: None, script)
    assert (error_id, "exit code 7" in message) == ("hook-failed", True)


def test_a_limit_that_a_session_sets_is_named_when_it_keeps_the_script_from_starting(event: Event) -> None:
    """Somebody meant 4096, and it is found nowhere else."""

    def prepare() -> None:
        (ETC / "security/limits.conf").write_text("app - nofile 4\n")

    error_id, _, message, _ = failure_in_session(event, prepare, "#!/bin/sh\necho ran\n")
    assert error_id == "hook-not-startable"
    assert "nofile in /etc/security/limits.conf" in message


def test_no_module_sees_the_agents_credentials(event: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules may run any program with the environment of whoever opens the session."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    seen = event.directory / "seen"
    tells = helper(
        event, "tells", f"#!/bin/sh\ntr '\\0' '\\n' < /proc/$PPID/environ > /dev/null; env > {seen}\n"
    )
    printed_in_session(
        event, lambda: rules(SERVICE + f"session required pam_exec.so {tells}\n"), "#!/bin/sh\necho ran\n"
    )
    assert "secret" not in read(seen)


def test_groups_that_the_session_gives_are_the_scripts(event: Event) -> None:
    """pam_group hands out groups by time and place."""

    def prepare() -> None:
        (ETC / "security/group.conf").write_text("*;*;app;Al0000-2400;games\n")
        rules(SERVICE.replace("auth required pam_permit.so", "auth required pam_group.so"))

    assert set(printed_in_session(event, prepare, "#!/bin/sh\nid -Gn\n").split()) == {"app", "games"}


def test_a_host_without_pam_reads_the_two_files(event: Event) -> None:
    """Small images have no libpam; what stands in the files is meant for everybody."""
    event.write("h.sh", '#!/bin/sh\necho "$FROM_FILE|$LANG|$QUOTED|$COMMENTED"\n')
    printed = printed_without_pam(event, 'event.run(HookScript(location="h.sh", runas="app")).tail')
    assert "[stdout]yes|C.UTF-8|a b|x\n" in printed


def test_a_process_that_cannot_get_ready_for_its_script_is_explained(event: Event) -> None:
    """Whatever goes wrong in it before it becomes the script, Python only tells that something did."""
    event.write("h.sh", "#!/bin/sh\n")
    wanted = 'event.fail(HookScript(location="h.sh", runas="app"))'
    facts = f"((failure := {wanted}).error_id, failure.script_name, failure.code.value)"
    printed = printed_without_pam(event, facts, on_started="run_out_of_memory()")
    assert "('hook-not-startable', 'h.sh', 4)" == printed.strip()


def printed_without_pam(event: Event, expression: str, *, on_started: str = "None") -> str:
    """The value of this expression as it is printed, on a host without libpam."""
    code = f"""
import sys
from pathlib import Path
from agent.appspec import HookScript
from tests.lifecycle.conftest import Event
def run_out_of_memory():
    raise MemoryError
event = Event(directory=Path({str(event.directory)!r}))
event.options["on_started"] = lambda hook: {on_started}
print({expression})
"""

    def prepare() -> None:
        add_user("app")
        (ETC / "environment").write_text(
            "FROM_FILE=yes\nexport QUOTED='a b'\nCOMMENTED=x # not this\nnonsense\n"
        )
        (ETC / "default/locale").write_text('LANG="C.UTF-8"\n')
        library = next(Path("/usr/lib").rglob("libpam.so.0"))
        subprocess.run(["mount", "--bind", "/dev/null", library.resolve()], check=True)

    def act() -> str:
        return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    return str(in_private_etc(prepare, act))


def test_a_worker_that_is_killed_while_pam_is_busy_leaves_no_process(event: Event) -> None:
    """What PAM had started for it is found like what a script has started."""
    pids = event.directory / "pids"
    slow = helper(event, "slow", f"#!/bin/sh\necho $PPID $$ > {pids}\nexec sleep 1000\n")
    noted = event.directory / "noted"
    event.options["on_started"] = lambda hook: noted.write_text(f"{hook.pid} {hook.start_ticks}")

    def act() -> list[str]:
        worker = os.fork()
        if worker == 0:
            try:
                event.run_one("#!/bin/sh\n", runas="app")
            finally:
                os._exit(0)
        wait_until(lambda: read(pids))
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        pid, ticks = map(int, read(noted).split())
        ending = end_abandoned_hook(HookProcess(pid=pid, start_ticks=ticks))
        return [*ending.survivors, *(found for found in read(pids).split() if is_running(int(found)))]

    def prepare() -> None:
        add_user("app")
        rules(SERVICE + f"session required pam_exec.so {slow}\n")

    assert in_private_etc(prepare, act) == []


def test_the_session_of_a_script_whose_worker_was_killed_ends_with_the_script(event: Event) -> None:
    """It is closed properly, and nothing of ours stays behind."""
    told = event.directory / "told"
    tells = helper(event, "tells", f'#!/bin/sh\necho "$PAM_TYPE $PPID" >> {told}\n')
    go = event.directory / "go"

    def act() -> bool:
        worker = os.fork()
        if worker == 0:
            try:
                event.run_one(
                    f"#!/bin/sh\ntouch {told}.started\nuntil [ -e {go} ]; do sleep 0.05; done\n", runas="app"
                )
            finally:
                os._exit(0)
        wait_until(lambda: Path(f"{told}.started").exists())
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        keeper = int(read(told).split()[1])
        assert is_running(keeper)
        go.touch()
        wait_until(lambda: not is_running(keeper))
        return True

    def prepare() -> None:
        event.directory.chmod(0o777)
        add_user("app")
        rules(SERVICE + f"session required pam_exec.so {tells}\n")

    assert in_private_etc(prepare, act)
    assert [line.split()[0] for line in read(told).splitlines()] == ["open_session", "close_session"]


def test_a_script_in_a_session_is_ended_when_its_worker_was_killed(event: Event) -> None:
    """What is on record leads to all of it, and what is ours is not listed as something of the script's."""
    noted, started = event.directory / "noted", event.directory / "started"
    event.options["on_started"] = lambda hook: noted.write_text(f"{hook.pid} {hook.start_ticks}")

    def act() -> list[Any]:
        worker = os.fork()
        if worker == 0:
            try:
                event.run_one(
                    f"#!/bin/bash\ntrap '' TERM\nsetsid sleep 1003 &\ntouch {started}\nwait\n", runas="app"
                )
            finally:
                os._exit(0)
        wait_until(started.exists)
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        pid, ticks = map(int, read(noted).split())
        ending = end_abandoned_hook(
            HookProcess(pid=pid, start_ticks=ticks), patience=ScriptPatience(term_s=0.5)
        )
        return [list(ending.ended), list(ending.survivors), is_running(pid)]

    def prepare() -> None:
        event.directory.chmod(0o777)
        add_user("app")

    ended, survivors, is_kept = in_private_etc(prepare, act)
    assert sorted(text.partition(" ")[2].partition(" ")[2].split()[0] for text in ended) == [
        "/bin/bash",
        "sleep",
    ]
    assert (survivors, is_kept) == ([], False)


def test_a_script_stays_in_the_control_group_of_the_agent(event: Event) -> None:
    """systemd-logind moves whoever opens a session, and ends what it finds there with it where KillUserProcesses is set."""
    groups = event.directory / "groups"
    moves = helper(
        event, "moves", f"#!/bin/sh\nmkdir -p {groups}/session\necho $PPID > {groups}/session/cgroup.procs\n"
    )
    name = f"lifecycle-{os.getpid()}"

    def mount() -> None:
        subprocess.run(["mount", "-t", "cgroup", "-o", f"none,name={name}", "none", groups], check=True)

    def has_gone() -> bool:
        return f"name={name}:" not in read(Path("/proc/self/cgroup"))

    def forget() -> None:
        """The hierarchy would stay for as long as the machine runs: a group in it takes a moment to go."""
        (groups / "session").rmdir()
        for _ in range(20):
            subprocess.run(["umount", groups], check=True)
            try:
                wait_until(has_gone, within_s=1)
            except AssertionError:
                mount()
            else:
                return

    def prepare() -> None:
        add_user("app")
        groups.mkdir()
        mount()
        rules(SERVICE + f"session required pam_exec.so type=open_session {moves}\n")

    def act() -> list[str]:
        script = f"#!/bin/sh\ngrep -h name={name} /proc/self/cgroup /proc/$PPID/cgroup\n"
        try:
            return event.printed(script, runas="app").splitlines()
        finally:
            forget()

    own, keeper = in_private_etc(prepare, act)
    assert own.endswith(f"name={name}:/")
    assert keeper.endswith(f"name={name}:/session")


def test_a_deployment_that_is_stopped_does_not_wait_for_pam(event: Event) -> None:
    """Whoever stops it wants the host back now."""
    pids = event.directory / "pids"
    hangs = helper(event, "hangs", f"#!/bin/sh\necho $PPID $$ > {pids}\nexec sleep 1000\n")
    event.cancelled = lambda: read(pids) != ""
    error_id, _, _, _ = failure_in_session(
        event, lambda: rules(SERVICE + f"session required pam_exec.so {hangs}\n")
    )
    assert error_id == "hook-cancelled"
    wait_until(lambda: not any(is_running(int(pid)) for pid in read(pids).split()))


@pytest.mark.parametrize("length", [3_000, 120_000])
def test_a_path_of_any_length_spoils_no_report(event: Event, length: int) -> None:
    """It goes from one process of ours to the other, and some package managers add to it again and again."""
    event.inherited["PATH"] = "/usr/bin:/bin:" + "/x\udcff" * (length // 3)
    error_id, _, message, _ = failure_in_session(event, lambda: None, "#!/bin/sh\nno-such-command\n")
    assert error_id == "hook-failed"
    assert ("PATH was /usr/bin:" in message) == (length < 4096)


MODULE = """
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
int pam_sm_open_session(void *h, int f, int c, const char **v) {
  sigset_t all;
  switch (v[0][0]) {
    case 'e': exit(0);
    case 'c': signal(SIGCHLD, SIG_IGN); break;
    case 'b': sigfillset(&all); sigprocmask(SIG_BLOCK, &all, 0); break;
    case 'u': if (setuid(65534)) abort(); break;
  }
  return 0;
}
int pam_sm_close_session(void *h, int f, int c, const char **v) { return 0; }
"""


@pytest.mark.parametrize(
    ("does", "script", "error_id", "says"),
    [
        ("exits", "exit 0", "hook-session-broken", "exit(0)"),
        ("user_changed", "exit 0", "hook-session-broken", "user 65534"),
        ("children_ignored", "exit 3", "hook-failed", "exit code 3"),
        ("blocks_signals", "kill $$; sleep 1; exit 3", "hook-killed", "15 (SIGTERM)"),
    ],
)
def test_a_module_that_does_as_it_likes_spoils_no_report(
    event: Event, does: str, script: str, error_id: str, says: str
) -> None:
    """It runs inside a process of ours, as root; what it does there must not turn into a success, or another user."""
    module = event.directory / "pam_odd.so"
    source = event.directory / "odd.c"
    source.write_text(MODULE)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", module, source], check=True)
    letter = does[0]
    found, _, message, _ = failure_in_session(
        event, lambda: rules(SERVICE + f"session required {module} {letter}\n"), f"#!/bin/sh\n{script}\n"
    )
    assert found == error_id
    assert says in message


@pytest.mark.parametrize("user", [None, "root"])
def test_a_script_that_fails_is_no_success_where_ends_of_children_are_ignored(
    event: Event, user: str | None
) -> None:
    """Whoever starts `agentctl deploy` may ignore SIGCHLD, and the kernel then drops every exit status."""

    def child() -> list[str]:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        failure = event.fail_one("#!/bin/sh\nexit 3\n", runas=user)
        return [failure.error_id, failure.message]

    error_id, message = run_isolated(child)
    assert error_id == "hook-failed"
    assert "exit code 3" in message
