"""Random revisions, and random deeds."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import strategies as st

from agent.protocol import FileExistsBehavior
from tests.install.deeds import Deed, Kind
from tests.install.model import Revision
from tests.install.model_pair import Wish

PARTS = ("app", "etc")
# Few, so that revisions and people meet each other at them.
PATHS = st.sampled_from(
    [
        *(
            "app/a",
            "app/b",
            "app/c d",
            "app/a/a",
            "app/a/b",
            "app/b/a",
            "app/b/é\n",
            "app/b/a/a",
            "app/b/a/b",
        ),
        *("etc/a", "etc/b", "etc/a/b", "etc/é\n/a"),
    ]
)
CONTENTS = st.one_of(
    st.sampled_from(["", "x", "y", "z"]),
    st.sampled_from(["x", "y"]),
    st.builds(lambda mode: {"content": "m", "mode": mode}, st.sampled_from([0o600, 0o755, 0o4755])),
    st.builds(lambda target: {"link": target}, st.sampled_from(["a", "b/a", "nowhere"])),
    st.just({"is_linked": True}),
)
OWNERS = [None, None, 1234] if os.geteuid() == 0 else [None]


def _revision(
    tree: dict[str, Any],
    hollow: set[str],
    parts: tuple[str, ...],
    given: tuple[int | None, int | None, int | None, bool, bool],
) -> Revision:
    whole = {f"{part}/": None for part in PARTS}
    files: list[str] = []
    for path, value in sorted(tree.items()):
        # A file has nothing inside.
        if any(path.startswith(other + "/") for other in tree):
            continue
        described = value
        if isinstance(value, dict) and "is_linked" in value:
            described = {"same_as": files[0]} if files and path.startswith(parts) else "linked"
        # Where a file has a name that is not installed, its others are made anew with each Install.
        if isinstance(described, str) and path.startswith(parts):
            files.append(path)
        whole[path] = described
    for path in hollow:
        if not any(path == other or path.startswith(other + "/") for other in tree):
            whole[path + "/"] = None
    return Revision(whole, parts, *given)


def _wish(group: str, revision: Revision, rule: FileExistsBehavior) -> Wish:
    # Two groups with an SELinux rule for one path are a matter of their own.
    return Wish(group, revision._replace(has_label=revision.has_label and group == "one"), rule)


REVISIONS = st.builds(
    _revision,
    st.dictionaries(PATHS, CONTENTS, min_size=1, max_size=8),
    st.sets(PATHS, max_size=1),
    st.sampled_from([PARTS, PARTS, PARTS, ("app",), ("etc",), ()]),
    st.tuples(
        st.sampled_from([None, None, 0o640, 0o604, 0o4711]),
        st.sampled_from([None, None, 0o750, 0o700]),
        st.sampled_from(OWNERS),
        st.sampled_from([False, False, False, True]),
        st.sampled_from([False, False, True]),
    ),
)

WISHES = st.builds(
    _wish,
    st.sampled_from(["one", "one", "two"]),
    REVISIONS,
    st.sampled_from([FileExistsBehavior.OVERWRITE, *FileExistsBehavior]),
)

DEEDS = st.builds(
    Deed,
    st.sampled_from(Kind),
    st.integers(0, 1000),
    PATHS,
    st.sampled_from(["by hand", "x", "y"]),
    st.sampled_from([0o600, 0o644, 0o700, 0o755]),
)
