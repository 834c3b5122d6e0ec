"""A source that is itself a link: permissions, plan and a second Install see what Install sees."""

from __future__ import annotations

import json
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

import pytest

from agent.install import install
from agent.install.preview.changes import ChangeKind, Preview
from agent.install.preview.preview import preview_install
from tests.install.children import in_child

if TYPE_CHECKING:
    from tests.install.host import Host

TREE: dict[str, Any] = {
    "releases/1/run.sh": "r",
    "releases/1/sub/data": "d",
    "releases/1/link": {"link": "sub"},
    "current": {"link": "releases/1"},
}
CURRENT = "files: [{source: current, destination: '@DEST@/app'}]"


@pytest.mark.parametrize("is_indexed", [True, False], ids=["index", "no index"])
def test_permissions_reach_what_comes_through_the_link(host: Host, is_indexed: bool) -> None:  # noqa: FBT001
    """A start script that is not executable would be noticed only when the application is started."""
    permissions = "\npermissions: [{object: '@DEST@/app', pattern: '*.sh', mode: 755, type: [file]}]"
    host.install(TREE, CURRENT + permissions, is_indexed=is_indexed, durable=False)
    assert 0o755 == stat.S_IMODE((host.dest / "app/run.sh").stat().st_mode)
    assert 0o644 == stat.S_IMODE((host.dest / "app/sub/data").stat().st_mode)


def test_the_instructions_spell_the_source_as_the_appspec_does(host: Host) -> None:
    """So do the existing agents, and whoever reads the file looks for what the AppSpec says."""
    request = host.request(TREE, CURRENT, durable=False)
    host.install(TREE, CURRENT, durable=False)
    text = host.records()[f"{host.group_id}-install.json"]
    sources = {
        item["source"].rpartition("/deployment-archive/")[2]
        for item in json.loads(text)["instructions"]
        if item["type"] == "copy"
    }
    assert {"current/run.sh", "current/sub/data", "current/link"} == sources
    assert request.archive.name == "deployment-archive"


def test_the_plan_says_what_install_does(host: Host) -> None:
    """A plan with one link in the place of a tree would frighten whoever reads it."""
    preview = preview_install(host.request(TREE, CURRENT, durable=False))
    assert isinstance(preview, Preview)
    planned = {
        os.path.relpath(os.fsdecode(change.path), host.dest): change.source for change in preview.changes
    }
    expected = {
        ".": None,
        "app": None,
        "app/run.sh": b"current/run.sh",
        "app/sub": None,
        "app/sub/data": b"current/sub/data",
        "app/link": b"current/link",
    }
    assert expected == planned
    host.install(TREE, CURRENT, durable=False)
    again = preview_install(host.request(TREE, CURRENT, durable=False))
    assert isinstance(again, Preview)
    assert {ChangeKind.KEEP} == {change.kind for change in again.changes}


@pytest.mark.parametrize("is_indexed", [True, False], ids=["index", "no index"])
def test_a_link_that_leads_elsewhere_in_the_next_revision_installs_that(host: Host, is_indexed: bool) -> None:  # noqa: FBT001
    """Bundles that keep their old releases differ in nothing but the link."""
    tree = {"releases/1/f": "first", "releases/2/f": "other", "releases/2/g": "g"}
    host.install(tree | {"current": {"link": "releases/1"}}, CURRENT, is_indexed=is_indexed, durable=False)
    host.install(tree | {"current": {"link": "releases/2"}}, CURRENT, is_indexed=is_indexed, durable=False)
    assert {"app/": None, "app/f": "other", "app/g": "g"} == host.tree()
    host.install(tree | {"current": {"link": "releases/1"}}, CURRENT, is_indexed=is_indexed, durable=False)
    assert {"app/": None, "app/f": "first"} == host.tree()


def test_a_link_that_hook_scripts_have_made_absolute_is_followed_into_the_archive(host: Host) -> None:
    """A BeforeInstall script that chooses a release says it with the path that it knows."""
    request = host.request({"releases/1/f": "f"}, CURRENT, durable=False)
    (request.archive / "current").symlink_to(request.archive / "releases/1")
    assert isinstance(preview := preview_install(request), Preview)
    assert b"current/f" in {change.source for change in preview.changes}


@pytest.mark.parametrize("source", ["current", "current/sub", "newest"])
def test_what_the_index_knows_is_not_read_again_through_a_link(host: Host, source: str) -> None:
    """A revision with 100,000 files takes no longer because of its layout."""
    tree = TREE | {"newest": {"link": "current"}, "other": {"link": "releases/1/sub"}}
    files = f"files: [{{source: {source}, destination: '@DEST@/app'}}]"
    host.install(tree, files, durable=False)
    request = host.request(tree, files, durable=False)

    def opened() -> list[str]:
        seen: list[str] = []

        def note(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open" and arguments[0] in {b"run.sh", b"data"}:
                seen.append(os.fsdecode(arguments[0]))

        sys.addaudithook(note)
        summary = install(request)
        assert 0 == summary.created + summary.replaced
        return seen

    assert [] == in_child(opened)
