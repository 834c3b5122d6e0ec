"""docs/appspec.md says what the parser does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.appspec import parse_appspec
from agent.errors import AppSpecInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parents[2]
TEXT = (PROJECT / "docs" / "appspec.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def test_there_are_examples() -> None:
    """A newcomer copies the first one."""
    assert EXAMPLES != []


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_a_good_appspec(example: str) -> None:
    """What the documentation shows must work, and without a warning."""
    assert () == parse_appspec(example.encode(), path="appspec.yml").warnings


def test_the_message_in_the_documentation_is_what_the_agent_says() -> None:
    """Readers look for the words that they saw."""
    text = (
        "version: 0.0\nos: Linux\nfiles:\n  - source: /\n    destination: /srv/shop\npermissions:\n  - object: /srv/shop/bin\n"
        "    mode: 888\nhooks:\n  AfterInstall:\n    - location: a.sh\n      timeout: 5m\n"
    )

    with pytest.raises(AppSpecInvalid) as caught:
        parse_appspec(text.encode(), path="…/deployment-archive/appspec.yml")

    assert caught.value.message in TEXT.replace("\n", " ")


def _keys() -> Iterator[str]:
    schema = json.loads((PROJECT / "conf" / "appspec.schema.json").read_text(encoding="utf-8"))
    yield from schema["properties"]
    for definition in schema["$defs"].values():
        yield from definition.get("properties", {})
    yield from schema["$defs"]["permission"]["properties"]["context"]["properties"]


@pytest.mark.parametrize("key", sorted(set(_keys())))
def test_each_key_is_documented(key: str) -> None:
    """A key that nobody reads about is a key that nobody uses."""
    assert re.search(rf"`{key}[`:]|^## .*\b{key}\b", TEXT, re.MULTILINE)
