"""What Install makes of archives and hosts: one file in cases/ for each rule."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.errors import CommandFailure
from agent.protocol import FileExistsBehavior

CASES = sorted(Path(__file__).with_name("cases").glob("*.yml"))


class _Loader(yaml.SafeLoader):
    """YAML as it is meant in these files: 0o755 is a number."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"0o[0-7]+$"), ["0"])
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _loader, node: int(node.value, 0))


def appspec_of(step: dict[str, Any]) -> str:
    """The AppSpec of one step of a case; without `files`, the directory app goes to @DEST@/app."""
    files = step.get("files", [["app", "@DEST@/app"]])
    lines = [f"  - {{source: '{source}', destination: '{destination}'}}" for source, destination in files]
    return "\n".join([*(["files:", *lines] if lines else []), step.get("extra", "")])


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(host: Any, path: Path) -> None:
    """Each file says why an operator cares."""
    case = yaml.load(path.read_bytes(), Loader=_Loader)  # noqa: S506
    if "before" in case:
        host.write(case["before"])
    for step in case["installs"]:
        for name in step.get("remove", ()):
            target = host.dest / name
            target.rmdir() if name.endswith("/") else target.unlink()
        if "write" in step:
            host.write(step["write"])
        _run(host, step)
        if "after" in step:
            assert step["after"] == host.tree()
        if "cleanup" in step:
            assert step["cleanup"] == host.cleanup()
        for other in step.get("same_file", ()):
            assert (host.dest / step["same_file"][0]).samefile(host.dest / other)
        assert [] == host.leftovers()


def _run(host: Any, step: dict[str, Any]) -> None:
    archive = step["archive"]
    behavior = FileExistsBehavior(step.get("behavior", "DISALLOW"))
    options = {"durable": False, **step.get("options", {})}
    if "error" in step:
        with pytest.raises(CommandFailure) as caught:
            host.install(archive, appspec_of(step), behavior=behavior, **options)
        assert step["error"] == caught.value.error_id
        for text in step["mentions"]:
            assert text.replace("@DEST@", str(host.dest)) in caught.value.message
        return
    summary = host.install(archive, appspec_of(step), behavior=behavior, **options)
    for name, expected in step.get("summary", {}).items():
        assert expected == getattr(summary, name)
    if "kept" in step:
        assert [path.replace("@DEST@", str(host.dest)) for path in step["kept"]] == list(summary.left_behind)
