"""Every script in `scripts/` runs, or fails, as its file says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from agent.appspec import HookScript
from agent.errors import CommandFailure

if TYPE_CHECKING:
    from tests.lifecycle.conftest import Event

CASES = {path.stem: path for path in sorted((Path(__file__).parent / "scripts").glob("*.yml"))}
KEYS = {"about", "script", "mode", "location", "written_as", "entry", "environment_bytes", "log", "fails"}


def load(name: str) -> dict[str, Any]:
    case: dict[str, Any] = yaml.safe_load(CASES[name].read_text(encoding="utf-8"))
    assert not set(case) - KEYS
    return case


@pytest.mark.parametrize("name", CASES)
def test_a_script_runs_as_its_file_says(event: Event, name: str) -> None:
    """A hook script runs as its author would expect from their own shell, and says why when it does not."""
    case = load(name)
    location = case.get("location", "h.sh")
    mode = int(str(case.get("mode", "0o755")), 8)
    event.write(case.get("written_as", location.lstrip("/")), case["script"], mode=mode)
    if "environment_bytes" in case:
        event.additions["LARGE"] = "x" * case["environment_bytes"]
    entry = dict(case.get("entry", {}))
    script = HookScript(location=location, line=7, args=tuple(entry.pop("args", ())), **entry)

    failure, log = None, ""
    try:
        log = event.run(script).tail
    except CommandFailure as error:
        failure, log = error, error.log

    if "log" in case:
        assert case["log"] == log
    if "fails" not in case:
        assert failure is None, failure
        return
    assert failure is not None
    expected = case["fails"]
    assert (expected["error_id"], expected["code"]) == (failure.error_id, int(failure.code))
    assert failure.script_name == location
    assert [] == [text for text in expected["says"] if text not in failure.message]
