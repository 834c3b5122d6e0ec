"""Any tree, packed by the standard library and unpacked by us, is the same tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.protocol import BundleType
from tests.bundle.packing import Member, directory, file, symlink, tar_bytes, tgz_bytes, tree_of, zip_bytes

if TYPE_CHECKING:
    from tests.bundle.conftest import Deployment

PACKS = {BundleType.TAR: tar_bytes, BundleType.TGZ: tgz_bytes, BundleType.ZIP: zip_bytes}
NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40
).filter(lambda name: name not in {".", ".."} and len(name.encode()) < 200)
FILES = st.tuples(st.just("file"), st.binary(max_size=3000), st.integers(0o400, 0o777))
LINKS = st.tuples(st.just("link"), NAMES, st.just(0o777))
TREES = st.recursive(
    st.dictionaries(NAMES, st.one_of(FILES, LINKS), max_size=4),
    lambda inner: st.dictionaries(NAMES, st.one_of(FILES, LINKS, inner), max_size=4),
    max_leaves=12,
)


def flattened(tree: dict[str, Any], prefix: str = "") -> list[Member]:
    members = []
    for name, value in tree.items():
        path = prefix + name
        if isinstance(value, dict):
            members += [directory(path), *flattened(value, path + "/")]
        elif value[0] == "file":
            members.append(file(path, value[1], value[2]))
        else:
            members.append(symlink(path, value[1]))
    return members


@pytest.mark.parametrize("kind", list(PACKS))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES)
def test_any_tree_comes_through(deployment: Deployment, kind: BundleType, tree: dict[str, Any]) -> None:
    """Names, contents, modes and links are the application's own business, never ours."""
    members = flattened(tree)
    expected = {
        member.name: (
            ("link", 0o777, member.link)
            if member.link
            else ("directory", 0o755, b"")
            if member.type == b"5"
            else ("file", member.mode, member.content)
        )
        for member in members
    }

    archive = deployment.unpack(PACKS[kind](*members), kind)

    assert expected == tree_of(archive)
