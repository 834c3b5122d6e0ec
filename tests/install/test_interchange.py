"""Either agent can clean up after the other."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from agent.errors import CommandFailure
from agent.install import install

FILES = "files: [{source: app, destination: '@DEST@/app'}]"


def as_the_other_agent(host: Any, tree: dict[str, Any], cleanup: list[str]) -> None:
    """Leave what another agent's Install leaves: the files and its cleanup file."""
    host.write(tree)
    host.instructions.mkdir(parents=True, exist_ok=True)
    text = "".join(line.replace("@DEST@", str(host.dest)) for line in cleanup)
    (host.instructions / f"{host.group_id}-cleanup").write_text(text)


def test_the_other_agents_files_are_ours_to_replace_and_remove(host: Any) -> None:
    """A host changes agents between two deployments."""
    as_the_other_agent(
        host,
        {"app/old": "o", "app/both": "1", "app/dir/x": "x"},
        [
            "@DEST@\n",
            "@DEST@/app\n",
            "@DEST@/app/both\n",
            "@DEST@/app/dir\n",
            "@DEST@/app/dir/x\n",
            "@DEST@/app/old\n",
        ],
    )

    summary = host.install({"app/both": "2", "app/new": "n"}, FILES)

    assert {"app/": None, "app/both": "2", "app/new": "n"} == host.tree()
    assert (1, 1, 2) == (summary.created, summary.replaced, summary.removed)


def test_an_unfinished_last_line_is_ignored(host: Any) -> None:
    """That agent died while it wrote the line, before it made the file."""
    as_the_other_agent(host, {"app/a": "a", "app/b": "b"}, ["@DEST@/app/a\n", "@DEST@/app/b"])

    host.install({"app/c": "c"}, FILES)

    assert {"app/": None, "app/b": "b", "app/c": "c"} == host.tree()


def test_lines_that_are_no_absolute_path_delete_nothing(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a newline makes the other agent write such a line."""
    host.write({"precious": "p"}, host.base / "cwd")
    monkeypatch.chdir(host.base / "cwd")
    as_the_other_agent(
        host, {"app/new\nprecious": "x"}, ["@DEST@/app/new\n", "precious\n", "../cwd/precious\n"]
    )

    host.install({"app/c": "c"}, FILES)

    assert (host.base / "cwd/precious").exists()


def test_a_stale_manifest_is_not_believed(host: Any) -> None:
    """After ours, another agent installed, so only its cleanup file tells what is there."""
    host.install({"app/a": "a", "app/b": "b"}, FILES)
    (host.dest / "app/a").unlink()
    host.write({"app/b": "changed by the other agent's revision"})
    as_the_other_agent(host, {}, ["@DEST@/app/b\n"])
    host.write({"app/a": "somebody's own"})

    with pytest.raises(CommandFailure) as caught:
        host.install({"app/a": "2", "app/b": "2"}, FILES)

    assert "app/a (a file" in caught.value.message
    assert "app/b" not in caught.value.message


def test_directories_of_a_missing_path_and_labels_in_the_list_do_no_harm(host: Any) -> None:
    """Lists are old; hosts change."""
    as_the_other_agent(host, {}, ["@DEST@/gone/a\n", "semanage\0@DEST@/gone/b\n", "\n", "/\n"])

    host.install({"app/a": "a"}, FILES)

    assert {"app/": None, "app/a": "a"} == host.tree()


def test_instructions_are_those_of_the_existing_agents(host: Any) -> None:
    """Tools of operators read this file."""
    summary_of = FILES + "\npermissions: [{object: '@DEST@/app', mode: 7, group: root, type: [file]}]"
    if os.geteuid() != 0:
        summary_of = FILES
    request = host.request({"app/a": "a", "app/sub/b": "b"}, summary_of)
    install(request)

    text = (host.instructions / f"{host.group_id}-install.json").read_text()
    dest, archive = str(host.dest), str(request.archive)
    expected: list[dict[str, object]] = [
        {"type": "mkdir", "directory": dest},
        {"type": "mkdir", "directory": f"{dest}/app"},
        {"type": "copy", "source": f"{archive}/app/a", "destination": f"{dest}/app/a"},
        {"type": "mkdir", "directory": f"{dest}/app/sub"},
        {"type": "copy", "source": f"{archive}/app/sub/b", "destination": f"{dest}/app/sub/b"},
    ]
    if summary_of != FILES:
        for name in ("a", "sub/b"):
            expected.append({"type": "chmod", "mode": "007", "file": f"{dest}/app/{name}"})
            expected.append({"type": "chown", "owner": None, "group": "root", "file": f"{dest}/app/{name}"})
    assert json.dumps({"instructions": expected}, separators=(",", ":")) == text


def test_names_with_a_newline_are_not_offered_to_the_other_agents(host: Any) -> None:
    """They would delete what the parts of the name say."""
    host.install({"app/new\nline": "x", "app/a": "a"}, FILES)

    assert ["@DEST@", "@DEST@/app", "@DEST@/app/a"] == host.cleanup()


def test_conflicts_name_the_group_that_installed_the_file(host: Any) -> None:
    """Two applications that write one tree: the message has to name both."""
    host.install({"app/a": "a"}, FILES)
    host.group_id = "another-group"

    with pytest.raises(CommandFailure) as caught:
        host.install({"app/a": "b"}, FILES)

    assert "installed by deployment group 11111111-2222-3333-4444-555555555555" in caught.value.message


def test_an_equal_list_of_another_revision_does_not_make_its_files_foreign(host: Any) -> None:
    """Another agent installed the same paths with new contents: they are the group's, not changed by hand."""
    host.install({"app/a": "a1", "app/b": "b1"}, FILES)
    for name in ("a", "b"):
        (host.dest / "app" / name).unlink()
    host.write({"app/a": "a2 of the other agent", "app/b": "b2 of the other agent"})
    (host.instructions / f"{host.group_id}-install.json").write_text('{"instructions":[]}')

    summary = host.install({"app/a": "a3"}, FILES)

    assert () == summary.left_behind
    assert {"app/": None, "app/a": "a3"} == host.tree()
