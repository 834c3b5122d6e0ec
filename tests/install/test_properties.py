"""Install one revision, then another, then nothing: what was there before is there again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b", "c d", "e\nf", "ü", "%41", " g "])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
CONTENTS = st.one_of(
    st.sampled_from(["", "x", "y"]),
    st.builds(lambda mode: {"content": "m", "mode": mode}, st.sampled_from([0o600, 0o755, 0o4755])),
    st.builds(lambda target: {"link": target}, st.sampled_from(["a", "b/a", "nowhere"])),
)


def without_clashes(tree: dict[str, Any]) -> dict[str, Any]:
    """Leave out what lies below another entry: a file has nothing inside."""
    return {
        f"app/{path}": value
        for path, value in tree.items()
        if not any(path.startswith(other + "/") for other in tree)
    }


REVISIONS = st.dictionaries(PATHS, CONTENTS, max_size=8).map(without_clashes)
FOREIGN = st.dictionaries(PATHS, st.sampled_from(["foreign", "mine"]), max_size=3).map(without_clashes)


@settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(first=REVISIONS, second=REVISIONS, beside=FOREIGN)
def test_revisions_come_and_go_and_leave_nothing(host: Any, first: Any, second: Any, beside: Any) -> None:
    """Whatever two revisions hold, the second replaces the first, and an empty one removes it."""
    with tempfile.TemporaryDirectory(dir=host.base) as directory:
        fresh = type(host)(Path(directory))
        fresh.write({f"beside/{name}": content for name, content in beside.items()})
        before = fresh.tree()
        for revision in (first, second, second):
            fresh.install({"app/": None, **revision}, durable=False)
            installed = {
                name: value
                for name, value in fresh.tree().items()
                if name.startswith("app/") and not name.endswith("/")
            }
            assert revision == installed
        fresh.install({}, "", durable=False)
        assert before == fresh.tree()
        assert [] == fresh.leftovers()
