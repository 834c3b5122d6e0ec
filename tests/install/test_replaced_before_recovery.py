"""Between a crash and the recovery, a directory has become another one, or looks as if it had."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from tests.install.children import ended, start
from tests.install.host import Host
from tests.install.mounts import needs_mounts, with_mounts
from tests.install.observers import killed_at

if TYPE_CHECKING:
    from pathlib import Path

OLD: dict[str, Any] = {"app/a": "1", "app/gone": "1", "app/sub/a": "1"}
NEW: dict[str, Any] = {"app/a": "2", "app/sub/a": "2"}


def crash(host: Host, moment: Moment) -> None:
    """The Install of the second revision is killed before this moment."""
    request = host.request(NEW)
    assert ended(start(lambda: install(request, observer=killed_at(moment))))


@pytest.mark.parametrize("moment", [Moment.COPY, Moment.COMMIT, Moment.PUBLISH])
@pytest.mark.parametrize("name", ["app", "app/sub"])
def test_another_directory_in_the_place_of_one_keeps_no_group_from_being_recovered(
    host: Host, moment: Moment, name: str
) -> None:
    """Whoever owns the directory above can exchange it, and no command of the group would be carried out any more."""
    host.install(OLD)
    crash(host, moment)
    (host.dest / name).rename(host.dest / "moved")
    (host.dest / name).mkdir()
    (host.dest / name / "theirs").write_text("t")

    host.recover()

    assert [] == [left for left in host.leftovers() if "journal" in left]
    assert "t" == (host.dest / name / "theirs").read_text()


@needs_mounts
@pytest.mark.parametrize("moment", [Moment.COPY, Moment.COMMIT])
def test_on_an_overlay_a_directory_is_still_the_one_that_it_was(place: Path, moment: Moment) -> None:
    """In a container, a directory of the image is copied when it first changes, and the copy has a birth of its own."""

    def undo_on_overlay() -> tuple[bool, dict[str, Any]]:
        parts = {name: place / "disk" / name for name in ("lower", "upper", "work")}
        for path in parts.values():
            path.mkdir()
        below = Host(parts["lower"])
        below.write(OLD)
        options = f"lowerdir={parts['lower']},upperdir={parts['upper']},workdir={parts['work']}"
        (place / "merged").mkdir()
        if subprocess.run(
            ["mount", "-t", "overlay", "-o", options, "none", place / "merged"], check=False
        ).returncode:
            return False, {}
        host = Host(place / "merged")
        request = host.request({"app/new": "2", "app/sub/new": "2"})
        assert ended(start(lambda: install(request, observer=killed_at(moment))))
        assert host.recover()
        assert [] == host.leftovers()
        return True, host.tree()

    is_possible, tree = with_mounts({place / "disk": ""}, undo_on_overlay)

    if not is_possible:
        pytest.skip("there are no overlays here")
    assert tree == {"app/": None, "app/sub/": None, **OLD}
