"""What `agentctl explain` knows about hooks."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_every_failure_of_a_hook_is_explained_and_nothing_else() -> None:
    """The id in a report is the only thing that somebody at 3 a.m. has to go on."""
    files = [*(ROOT / "agent/lifecycle").glob("*.py"), ROOT / "agent/worker/runs/archives.py"]
    sources = "".join(path.read_text(encoding="utf-8") for path in files)
    raised = set(re.findall(r'(?:CommandFailure|super\(\)\.__init__)\(\s*"([a-z]+-[a-z-]+)"', sources))
    explained = yaml.safe_load((ROOT / "agent/cli/explanations/lifecycle.yml").read_text(encoding="utf-8"))
    assert raised == set(explained)
    assert all(set(entry) == {"summary", "cause", "remedy"} for entry in explained.values())
