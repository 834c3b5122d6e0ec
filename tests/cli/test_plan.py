"""`agentctl plan`: what Install would do, and nothing is done."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.deployments.group import group_lock_file
from agent.files import open_lock
from tests.cli.planning_host import Host
from tests.daemon.agent_process import AGENTCTL, clean_environment
from tests.e2e.bundles import pack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import AgentCtl, Done

GROUP = "default-local-deployment-group"
LINE = re.compile(
    r"(add|replace|keep|retain|remove|stay) +(file|link|directory|special) +(\S+)(?:  \((.*)\))?"
)


@pytest.fixture
def host(agentctl: AgentCtl, tmp_path: Path) -> Host:
    base = tmp_path / "host"
    base.mkdir()
    return Host(agentctl, base)


def actions(host: Host, done: Done) -> dict[str, tuple[str, str]]:
    """Path below the destination → action and kind, from the lines for people."""
    found = [LINE.fullmatch(line) for line in done.stdout.splitlines()]
    return {
        os.path.relpath(line[3], host.destination): (line[1], line[2]) for line in found if line is not None
    }


def test_a_first_plan_adds_everything_and_changes_nothing(host: Host) -> None:
    """It is asked on a production host, with the application running."""
    revision = host.revision({"a": "12345", "sub/b": "678"})
    before = host.everything()
    done = host.plan(revision)
    assert (0, "") == (done.returncode, done.stderr)
    assert before == host.everything()
    expected = {
        ".": ("add", "directory"),
        "a": ("add", "file"),
        "sub": ("add", "directory"),
        "sub/b": ("add", "file"),
    }
    assert expected == actions(host, done)
    summary = "Plan: add 4, replace 0, keep 0, retain 0, remove 0, stay 0; 8 bytes to be written. Nothing was changed."
    assert summary in done.stdout.splitlines()
    room = rf"Room: 8 bytes and 4 inodes needed, \d+ bytes( and \d+ inodes)? free on the file system of {host.base}"
    assert re.fullmatch(room, done.stdout.splitlines()[-1])


def test_the_revision_that_is_there_is_kept_as_a_whole(host: Host) -> None:
    """Deploying it again would write nothing."""
    revision = host.revision(
        {"a": "1", "sub/b": "2"}, f"permissions:\n  - {{object: {host.destination}, mode: 750}}\n"
    )
    os.symlink("a", revision / "app/link")
    host.deploy(revision)
    before = host.everything()
    done = host.plan(revision)
    assert 0 == done.returncode
    assert {"keep"} == {action for action, _kind in actions(host, done).values()}
    assert ("keep", "link") == actions(host, done)["link"]
    assert "0 bytes to be written" in done.stdout
    assert before == host.everything()


def test_a_plan_is_what_the_next_deployment_does(host: Host) -> None:
    """A plan that only nearly comes true is worse than none."""
    first = host.revision(
        {"same": "s", "changed": "1", "gone": "g", "mine": "m", "old/x": "x", "shared/y": "y"}
    )
    host.deploy(first)
    (host.destination / "mine").write_text("edited")
    (host.destination / "shared/of-others").write_text("others")
    (host.destination / "foreign").write_text("foreign")
    second = host.revision({"same": "s", "changed": "two", "new": "n", "foreign": "f"})
    os.utime(second / "app/same", ns=(0, (first / "app/same").stat().st_mtime_ns))
    done = host.plan(second, "-b", "overwrite")
    planned = actions(host, done)
    expected = {
        ".": ("keep", "directory"),
        "same": ("keep", "file"),
        "changed": ("replace", "file"),
        "new": ("add", "file"),
        "foreign": ("replace", "file"),
        "gone": ("remove", "file"),
        "mine": ("stay", "file"),
        "old": ("remove", "directory"),
        "old/x": ("remove", "file"),
        "shared": ("stay", "directory"),
        "shared/y": ("remove", "file"),
    }
    # As long as somebody else has something in it, the destination is not ours alone.
    expected.pop(".")
    planned.pop(".", None)
    assert expected == planned
    assert f"{host.destination}/mine  (changed by hand, stays)" in done.stdout
    assert f"{host.destination}/shared  (not empty, stays)" in done.stdout
    assert "foreign  (1 bytes; not installed by this group)" in done.stdout
    inode = (host.destination / "same").stat().st_ino
    host.deploy(second, "-b", "overwrite")
    left = {name for name, (action, _kind) in planned.items() if action != "remove"} | {"shared/of-others"}
    assert left == {str(path.relative_to(host.destination)) for path in host.destination.rglob("*")}
    assert inode == (host.destination / "same").stat().st_ino


def test_an_edit_by_hand_that_would_be_lost_is_said(host: Host) -> None:
    """The next revision has the file, too, and it is ours: it is replaced whatever somebody wrote into it."""
    host.deploy(host.revision({"a": "1", "b": "1"}))
    (host.destination / "a").write_text("edited")
    done = host.plan(host.revision({"a": "2", "b": "2"}))
    assert f"{host.destination}/a  (1 bytes; changed by hand since, which will be lost)" in done.stdout
    assert f"{host.destination}/b  (1 bytes)" in done.stdout


def test_a_file_that_only_gets_another_mode_is_kept_and_that_is_said(host: Host) -> None:
    """Its content is not written, and whoever has it open goes on."""
    host.deploy(host.revision({"a": "1"}, f"permissions: [{{object: {host.destination}, mode: 700}}]\n"))
    second = host.revision({"a": "1"}, f"permissions: [{{object: {host.destination}, mode: 750}}]\n")
    done = host.plan(second)
    inode = (host.destination / "a").stat().st_ino
    host.deploy(second)
    assert f"{host.destination}/a  (mode 750; only its mode, group, ACL or time is set)" in done.stdout
    assert ("keep", "file") == actions(host, done)["a"]
    assert (inode, 0o100750) == (
        (host.destination / "a").stat().st_ino,
        (host.destination / "a").stat().st_mode,
    )


@pytest.mark.parametrize("kind", ["tar", "tgz", "zip"])
def test_bundles_of_every_kind_are_planned(host: Host, kind: str) -> None:
    """As `agentctl deploy` takes them; the type is told by the name."""
    bundle = host.base / f"app.{kind}"
    bundle.write_bytes(pack(kind, host.files({"a": "1"})))
    done = host.plan(bundle)
    assert 0 == done.returncode, done.stderr
    assert {".": ("add", "directory"), "a": ("add", "file")} == actions(host, done)
    assert [] == list(host.temporary.iterdir())


def test_files_of_others_are_retained_where_the_rule_says_so(host: Host) -> None:
    """They are named: the revision's own are then not there."""
    host.destination.mkdir()
    (host.destination / "a").write_text("mine")
    done = host.plan(host.revision({"a": "1", "b": "2"}, "file_exists_behavior: RETAIN\n"))
    assert 0 == done.returncode
    assert {"a": ("retain", "file"), "b": ("add", "file")} == actions(host, done)


def test_all_conflicts_are_told_at_once_with_owner_age_and_rule(host: Host) -> None:
    """Whoever finds one a day, deploys for a month."""
    names = [f"file-{number:02}" for number in range(45)]
    (host.destination / "x").mkdir(parents=True)
    for name in names:
        (host.destination / name).touch()
        os.utime(host.destination / name, (0, 86400 * 365))
    before = host.everything()
    done = host.plan(host.revision({**dict.fromkeys(names, ""), "x": "", "free": ""}))
    assert (1, "") == (done.returncode, done.stderr)
    lines = [line for line in done.stdout.splitlines() if line.startswith("conflict ")]
    assert [*names, "x"] == sorted(line.split()[1].removeprefix(f"{host.destination}/") for line in lines)
    owner = host.base.owner()
    age = r"last changed 1971-01-01 00:00:00 UTC, \d+ days ago"
    rule = r"rule DISALLOW, set by default \(neither the AppSpec nor the deployment asks for another\)"
    assert re.fullmatch(
        rf"conflict {host.destination}/file-00  \(a file that is there already; owner {owner}; {age}; {rule}\)",
        min(lines),
    )
    assert "x  (a directory where a file must be; " in max(lines)
    assert "46 paths are in the way" in done.stdout.splitlines()[-1]
    assert "[install-conflicts]" in done.stdout.splitlines()[-1]
    added = set(host.everything()) - set(before)
    assert all("/revision-1" in path for path in added)


def test_a_conflict_names_the_group_and_the_rule_behind_it(host: Host) -> None:
    """Two applications that share a directory, and an AppSpec that overrules the deployment."""
    host.deploy(host.revision({"a": "1"}), "-g", "other")
    revision = host.revision({"a": "2"}, "file_exists_behavior: DISALLOW\n")
    done = host.plan(revision, "-b", "OVERWRITE")
    told = host.plan_as_json(revision, "-b", "OVERWRITE")
    assert 1 == done.returncode
    assert "installed by deployment group other; rule DISALLOW, set by the AppSpec)" in done.stdout
    assert {"file_exists_behavior": "DISALLOW", "set_by": "appspec"} == told["rule"]
    assert [(str(host.destination / "a"), "other")] == [
        (conflict["path"], conflict["installed_by_group"]) for conflict in told["conflicts"]
    ]


def test_a_directory_is_a_conflict_also_for_overwrite_and_files_are_not(host: Host) -> None:
    """OVERWRITE never replaces a directory of somebody else's."""
    (host.destination / "d").mkdir(parents=True)
    (host.destination / "f").touch()
    done = host.plan(host.revision({"d": "", "f": ""}), "-b", "OVERWRITE")
    assert 1 == done.returncode
    assert [f"{host.destination}/d"] == re.findall(r"^conflict (\S+)", done.stdout, re.MULTILINE)


def test_conflicts_that_no_rule_solves_are_listed_too(host: Host) -> None:
    """Two sources for one path, here: there is nobody to blame, and no date."""
    revision = host.revision({"a": "1", "b": "2"})
    with (revision / "appspec.yml").open("a") as appspec:
        appspec.write(f"  - source: app/a\n    destination: {host.destination}\n")
    done = host.plan(revision)
    told = host.plan_as_json(revision)
    assert (1, "") == (done.returncode, done.stderr)
    conflict_line, summary = done.stdout.splitlines()
    reason = "the AppSpec installs it twice: from 'app/a' (AppSpec line 4) and from 'app/a' (AppSpec line 6)"
    assert f"conflict {host.destination}/a  ({reason})" == conflict_line
    wanting = "The AppSpec wants two things at one path, and nothing was changed."
    advice = "Leave one of them out, or change its destination."
    assert f"Install is not possible. {wanting} {advice} [install-conflicts]" == summary
    conflict = {
        "path": str(host.destination / "a"),
        "reason": reason,
        "owner": None,
        "modified_at": None,
        "installed_by_group": None,
        "is_by_rule": False,
    }
    assert (False, "install-conflicts") == (told["possible"], told["error"]["id"])
    assert [conflict] == told["conflicts"]


def test_conflicts_of_every_kind_are_listed_together(host: Host) -> None:
    """Each with what is true of it: only where the rule has decided, another one helps."""
    host.destination.mkdir()
    (host.destination / "by-rule").touch()
    (host.destination / "directory").mkdir()
    (host.destination / "parent").touch()
    names = ("by-rule", "directory", "parent/a", "twice")
    revision = host.revision(dict.fromkeys(names, ""))
    with (revision / "appspec.yml").open("a") as appspec:
        appspec.write(f"  - source: app/twice\n    destination: {host.destination}\n")
    done = host.plan(revision)
    told = host.plan_as_json(revision)["conflicts"]
    expected = {
        "by-rule": ("a file that is there already", True),
        "directory": ("a directory where a file must be", False),
        "parent": ("a file where a directory must be", False),
        "twice": (
            "the AppSpec installs it twice: from 'app/twice' (AppSpec line 4) and from 'app/twice' (AppSpec line 6)",
            False,
        ),
    }
    assert expected == {
        os.path.relpath(conflict["path"], host.destination): (conflict["reason"], conflict["is_by_rule"])
        for conflict in told
    }
    *conflicts, summary = done.stdout.splitlines()
    assert [True, False, False, False] == ["; rule DISALLOW, set by" in line for line in conflicts]
    assert [True, True, True, False] == ["; owner " in line for line in conflicts]
    assert (
        "4 paths are in the way of this Install, and nothing was changed. The rule for files that" in summary
    )
    assert "No rule lets a file and a directory take each other's place" in summary
    assert "Where the AppSpec wants two things at one path, leave one of them out" in summary


def test_a_path_with_two_reasons_is_one_path_and_both_are_told(host: Host) -> None:
    """Else the second one would only come up when somebody has moved the file away."""
    host.destination.mkdir()
    (host.destination / "a").touch()
    revision = host.revision({"a": "1"})
    with (revision / "appspec.yml").open("a") as appspec:
        appspec.write(f"  - source: app/a\n    destination: {host.destination}\n" * 2)
    done = host.plan(revision)
    told = [line.partition("  ")[2] for line in done.stdout.splitlines()[:-1]]
    assert 3 == len(told), "each further entry is named"
    assert told[0].startswith("(a file that is there already; owner ")
    assert told[1].startswith(
        "(the AppSpec installs it twice: from 'app/a' (AppSpec line 4) and from 'app/a'"
    )
    assert "One path is in the way" in done.stdout
    assert ["retain"] == [
        action for action, _kind in actions(host, host.plan(revision, "-b", "RETAIN")).values()
    ]


def test_permissions_are_told_for_each_path(host: Host) -> None:
    """Who may read a secret is half of what a deployment is about."""
    owner = str(os.getuid())
    entry = (
        f"permissions:\n  - object: {host.destination}\n    pattern: '*.sh'\n    mode: 4755\n    owner: {owner}\n"
        f"    group: {os.getgid()}\n    acls: ['u:{owner}:r-x']\n    type: [file]\n"
    )
    revision = host.revision({"run.sh": "1", "a": "2"}, entry)
    done = host.plan(revision)
    told = {change["path"]: change for change in host.plan_as_json(revision)["changes"]}
    facts = f"1 bytes; mode 4755; owner {owner}; group {os.getgid()}; acl user:{owner}:r-x"
    assert f"add      file      {host.destination}/run.sh  ({facts})" in done.stdout.splitlines()
    assert f"add      file      {host.destination}/a  (1 bytes)" in done.stdout.splitlines()
    expected = {
        "mode": "4755",
        "owner": owner,
        "group": str(os.getgid()),
        "acls": [f"user:{owner}:r-x"],
        "context": None,
        "appspec_line": 7,
    }
    assert expected == told[f"{host.destination}/run.sh"]["permissions"]
    assert told[f"{host.destination}/a"]["permissions"] is None


def test_the_document_for_scripts_has_all_its_members_whatever_the_answer(host: Host) -> None:
    """Programs read it: the shape is a promise."""
    members = ["format", "possible", "bundle", "deployment_group_id", "error", "rule", "summary", "changes"]
    members += ["conflicts", "file_systems", "notes"]
    good, bad = host.revision({"a": "1"}), host.revision({"a": "1"}, "hooks: 3\n")
    possible, impossible = host.plan_as_json(good), host.plan_as_json(bad)
    (host.destination).mkdir()
    (host.destination / "a").touch()
    blocked = host.plan_as_json(good)
    assert [members] * 3 == [list(told) for told in (possible, impossible, blocked)]
    assert [True, False, False] == [told["possible"] for told in (possible, impossible, blocked)]
    assert (1, None, str(good), GROUP) == tuple(
        possible[name] for name in ("format", "error", "bundle", "deployment_group_id")
    )
    assert ["install-conflicts", "appspec-invalid"] == [blocked["error"]["id"], impossible["error"]["id"]]
    counts = {"add": 2, "replace": 0, "keep": 0, "retain": 0, "remove": 0, "stay": 0, "bytes_to_write": 1}
    assert counts == possible["summary"]
    change = {
        "action": "add",
        "type": "file",
        "path": str(host.destination / "a"),
        "source": "app/a",
        "bytes_to_write": 1,
        "permissions": None,
        "note": None,
    }
    assert change == possible["changes"][1]
    room = possible["file_systems"][0]
    assert (str(host.base), 1, 2) == (room["path"], room["needed_bytes"], room["needed_inodes"])
    assert room["free_bytes"] > 0


HARD_NAMES = [b"with blank", b"new\nline", b"bad\xff\xfe", b"esc\x1b[31mred", "right-to-left\u202e".encode()]
HARD_NAMES += [
    b"quo'te",
    b'dou"ble',
    b"back\\slash",
    b"\\xff",
    "ü".encode(),
    b"both'\\\n\xff1",
    b"$(id)",
    b"-n",
]


def test_names_are_shown_so_that_they_cannot_be_mistaken_or_do_harm(host: Host) -> None:
    """bash, given the word, must come to the very same name; and the terminal gets nothing but text."""
    revision = host.revision({})
    for name in HARD_NAMES:
        path = os.path.join(os.fsencode(revision), b"app", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb"):
            pass
    done = host.plan(revision)
    told = host.plan_as_json(revision)
    assert (0, "") == (done.returncode, done.stderr)
    lines = [line for line in done.stdout.splitlines() if line.startswith("add      file")]
    assert len(HARD_NAMES) == len(lines)
    assert all(line.isprintable() for line in lines)
    words = " ".join(line[len("add      file      ") :].removesuffix("  (0 bytes)") for line in lines)
    script = f"printf '%s\\0' {words}"
    shown = subprocess.run(["bash", "-c", script], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    expected = sorted(os.fsencode(host.destination) + b"/" + name for name in HARD_NAMES)
    assert expected == sorted(shown.stdout.split(b"\0")[:-1])
    exact = [
        base64.b64decode(change["path_base64"]) if "path_base64" in change else change["path"].encode()
        for change in told["changes"]
        if change["type"] == "file"
    ]
    assert expected == sorted(exact)


def test_all_problems_of_an_appspec_are_told_as_deploy_tells_them(host: Host) -> None:
    """With lines, and under the name that it has in the revision."""
    revision = host.revision({"a": "1"}, "hooks: 3\npermissions: 4\n")
    done = host.plan(revision)
    deployed = host._agentctl("deploy", "-c", host.config_file, "-l", revision)
    problems = done.stderr.partition(" problems: ")[2].strip()
    assert (1, "") == (done.returncode, done.stdout)
    assert "The AppSpec file appspec.yml has 2 problems: line 6" in done.stderr
    assert "[appspec-invalid]" in problems
    assert problems in deployed.stdout


@pytest.mark.parametrize("killed_at", ["commit", "publish"])
def test_an_interrupted_install_is_said_instead_of_a_wrong_plan(host: Host, killed_at: str) -> None:
    """What lies at the destinations is not what the next Install will find."""
    instructions = host.root / "deployment-instructions"
    instructions.mkdir(parents=True)
    suffix = {"commit": "journal", "publish": "journal-committed"}[killed_at]
    (instructions / f"{GROUP}-{suffix}").touch()
    done = host.plan(host.revision({"a": "1"}))
    other = host.plan(host.revision({"a": "1"}), "-g", "other")
    assert (1, "") == (done.returncode, done.stdout)
    assert "was interrupted" in done.stderr
    assert "Run agentctl recover" in done.stderr
    assert "[plan-install-pending]" in done.stderr
    assert 0 == other.returncode


def test_an_install_at_work_is_told_from_an_interrupted_one(host: Host) -> None:
    """Nobody must be sent to recover what is only slow."""
    instructions, group = host.root / "deployment-instructions", host.root / GROUP
    instructions.mkdir(parents=True)
    group.mkdir()
    (instructions / f"{GROUP}-journal").touch()
    descriptor = open_lock(group_lock_file(group))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        done = host.plan(host.revision({"a": "1"}))
    finally:
        os.close(descriptor)
    assert 1 == done.returncode
    assert f"is at work (pid {os.getpid()} (`" in done.stderr
    assert "agentctl recover" not in done.stderr


BAD_INPUT = {
    "nothing there": (["nowhere.tar"], "there is nothing at "),
    "a directory with a type": ([".", "-t", "zip"], "is a directory, which does not fit --type zip"),
    "an address of another kind": (
        ["ftp://host/app.zip"],
        "neither a path nor s3:// nor https://github.com/",
    ),
    "a group that is no name": ([".", "-g", "../outside"], "../outside is no id"),
    "an unknown behaviour": ([".", "-b", "MERGE"], "'MERGE' is not one of"),
    "a configuration that is not there": ([".", "-c", "nowhere.yml"], "nowhere.yml can't be used"),
    "two bundles": (["a", "b"], "unexpected extra argument"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_told_from_an_impossible_install(host: Host, name: str) -> None:
    """Exit code 2."""
    arguments, message = BAD_INPUT[name]
    done = host.plan(*arguments)
    assert (2, "") == (done.returncode, done.stdout)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_labels_that_the_host_refuses_are_refused_here_too(host: Host) -> None:
    """The hardening settings are the deployment's."""
    host.configure(reject_unconfined_selinux_in_bundle="true")
    entry = f"permissions:\n  - object: {host.destination}\n    context: {{type: unconfined_t}}\n"
    done = host.plan(host.revision({"a": "1"}, entry))
    assert (1, "") == (done.returncode, done.stdout)
    assert "[selinux-unconfined-refused]" in done.stderr
    entry = entry.replace("type: unconfined_t", "user: unconfined_u, type: etc_t")
    by_user = host.plan(host.revision({"a": "1"}, entry))
    assert f"gives {host.destination} the unconfined SELinux user unconfined_u, which" in by_user.stderr


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_when_it_is_broken_off(host: Host, number: signal.Signals) -> None:
    """A bundle of gigabytes in /tmp would be found by the next full disk."""
    with contextlib.ExitStack() as closing:
        server = closing.enter_context(socket.create_server(("127.0.0.1", 0)))
        server.settimeout(20)
        host.configure(
            github_api_endpoint=f"http://127.0.0.1:{server.getsockname()[1]}", download_patience_seconds=0
        )
        process = closing.enter_context(
            subprocess.Popen(
                [AGENTCTL, "plan", "https://github.com/a/b", "-c", host.config_file],
                env=clean_environment(TMPDIR=str(host.temporary)),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
        closing.callback(process.kill)
        # It waits for an answer that never comes.
        closing.enter_context(server.accept()[0])
        there = list(host.temporary.iterdir())
        process.send_signal(number)
        output, _ = process.communicate(timeout=20)
    assert 1 == len(there)
    assert [] == list(host.temporary.iterdir())
    assert process.returncode != 0
    assert b"Traceback" not in output


# The interpreter itself may lie where only root can read, so all is loaded before.
AS_NOBODY = """
import ctypes, encodings.utf_8_sig, os
import structlog
import agent.cli.plan, agent.worker.runs.download
from agent.cli.main import main

os.setgroups([])
os.setgid(65534)
os.setuid(65534)
# As after an exec: /proc/self is this user's own.
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
main()
"""


def plan_as_nobody(host: Host, *arguments: object) -> Done:
    return subprocess.run(
        [sys.executable, "-c", AS_NOBODY, "plan", "-c", host.config_file, *map(str, arguments)],
        env=clean_environment(),
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def open_host(agentctl: AgentCtl) -> Iterator[Host]:
    """A host whose files every user can read."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)  # noqa: S103 - for another user
        yield Host(agentctl, Path(directory))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_an_ordinary_user_plans_what_root_would_install(open_host: Host) -> None:
    """Developers look, root deploys. Owners that only root may give are no mistake of theirs."""
    entry = f"permissions:\n  - {{object: {open_host.destination}, owner: daemon, group: daemon}}\n"
    revision = open_host.revision({"a": "1", "b": "1", "c": "1"}, entry)
    fresh = plan_as_nobody(open_host, revision)
    open_host.deploy(revision)
    os.chown(open_host.destination / "b", 0, -1)
    os.chown(open_host.destination / "c", -1, 0)
    again = plan_as_nobody(open_host, revision)
    assert (0, 0) == (fresh.returncode, again.returncode), fresh.stderr + again.stderr
    assert "a  (1 bytes; owner daemon; group daemon)" in fresh.stdout
    assert "Note: planned as an ordinary user" in fresh.stdout
    assert ("keep", "file") == actions(open_host, again)["a"]
    assert ("replace", "file") == actions(open_host, again)["b"]
    assert "c  (owner daemon; group daemon; only its mode, group, ACL or time is set)" in again.stdout


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_an_unknown_owner_is_a_problem_for_every_user(open_host: Host) -> None:
    """It is what plans are for."""
    mistakes = "owner: no-such-user, group: no-such-group, acls: ['u:nobody-here:r']"
    entry = f"permissions:\n  - {{object: {open_host.destination}, {mistakes}, type: [file]}}\n"
    revision = open_host.revision({"a": "1"}, entry)
    for done in (plan_as_nobody(open_host, revision), open_host.plan(revision)):
        assert (1, "") == (done.returncode, done.stdout)
        for name in ("user 'no-such-user'", "group 'no-such-group'", "user 'nobody-here'"):
            assert f"there is no {name} on this host" in done.stderr
        assert "[permissions-invalid]" in done.stderr


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_directory_that_an_ordinary_user_may_not_list_is_not_said_to_stay(open_host: Host) -> None:
    """Root would remove it, with all that is in it."""
    open_host.deploy(open_host.revision({"a": "1", "old/b": "1"}))
    (open_host.destination / "old").chmod(0o700)
    done = plan_as_nobody(open_host, open_host.revision({"a": "1"}))
    assert (4, "") == (done.returncode, done.stdout)
    assert f"{open_host.destination}/old" in done.stderr
    assert "Permission denied; try again with sudo" in done.stderr


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_what_an_ordinary_user_may_not_look_at_is_named(open_host: Host) -> None:
    """And not taken for a conflict, or for something that will be replaced."""
    revision = open_host.revision({"secret": "1"})
    (revision / "app/secret").chmod(0o644)
    open_host.deploy(revision)
    (open_host.destination / "secret").chmod(0o600)
    (revision / "app/secret").write_text("2")
    (open_host.root / "deployment-instructions" / f"{GROUP}-cleanup").chmod(0o600)
    done = plan_as_nobody(open_host, revision)
    assert (4, "") == (done.returncode, done.stdout)
    assert f"{GROUP}-cleanup: Permission denied; try again with sudo" in done.stderr
