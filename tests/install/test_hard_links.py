"""Files with several names: after a reinstall they are linked as after a first Install."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from agent.install.model.moments import Moment
from tests.install.host import failure_of
from tests.install.observers import failing_at

if TYPE_CHECKING:
    from tests.install.host import Host

SHAPES: dict[str, dict[str, Any]] = {
    "apart": {"app/a": "x", "app/b": "x", "app/d/c": "x"},
    "two": {"app/a": "x", "app/b": {"same_as": "app/a"}, "app/d/c": "x"},
    "all": {"app/a": "x", "app/b": {"same_as": "app/a"}, "app/d/c": {"same_as": "app/a"}},
    "other two": {"app/a": "x", "app/b": "x", "app/d/c": {"same_as": "app/b"}},
}
NAMES = ["app/a", "app/b", "app/d/c"]
LINKED = {
    "apart": [{"app/a"}, {"app/b"}, {"app/d/c"}],
    "two": [{"app/a", "app/b"}, {"app/d/c"}],
    "all": [set(NAMES)],
    "other two": [{"app/a"}, {"app/b", "app/d/c"}],
}


def linked(host: Host) -> list[set[str]]:
    """The names of each file."""
    found: dict[int, set[str]] = {}
    for name in NAMES:
        found.setdefault(os.stat(host.dest / name).st_ino, set()).add(name)
    return list(found.values())


PAIRS = [pytest.param(old, new, id=f"{old} then {new}") for old in SHAPES for new in SHAPES]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_a_reinstall_links_as_a_first_install_does(host: Host, old: str, new: str) -> None:
    """Copies fill the disk; and where there should be copies, a write to one would change the other."""
    host.install(SHAPES[old])

    host.install(SHAPES[new])

    assert LINKED[new] == linked(host)
    assert {len(names) for names in LINKED[new]} == {os.stat(host.dest / name).st_nlink for name in NAMES}


@pytest.mark.parametrize(("old", "new"), PAIRS)
@pytest.mark.parametrize("step", [Moment.RENAME, Moment.COMMIT])
def test_an_undo_brings_the_links_back(host: Host, old: str, new: str, step: Moment) -> None:
    """The same names of the same files, since the application may have them open."""
    host.install(SHAPES[old])
    before = host.everything()

    failure = failure_of(lambda: host.install(SHAPES[new], observer=failing_at(step)))

    assert (failure is None) == (step == Moment.RENAME and old == new)
    if failure is not None:
        assert before == host.everything()
        assert [] == host.leftovers()


def test_a_copy_that_somebody_has_made_with_links_keeps_the_old_content(host: Host) -> None:
    """`cp -al` is how people keep the last known good release."""
    host.install({"app/a": "1", "app/same": "same"})
    backup = host.base / "backup"
    backup.mkdir()
    for name in ("a", "same"):
        os.link(host.dest / "app" / name, backup / name)

    host.install({"app/a": "2", "app/same": {"content": "same", "mode": 0o600}})

    assert ("1", "same") == ((backup / "a").read_text(), (backup / "same").read_text())
    assert 0o644 == (backup / "same").stat().st_mode & 0o777
    assert {"app/": None, "app/a": "2", "app/same": {"content": "same", "mode": 0o600}} == host.tree()
