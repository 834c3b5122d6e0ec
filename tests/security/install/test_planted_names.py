"""The user makes names like those that an Install hides things under, with what nobody expects there."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from tests.install.children import ended, start
from tests.install.host import failure_of, logged_by
from tests.install.observers import at_step, both, failing_at, killed_at
from tests.security.install.attacker import SECURITY, THEIRS, USER, as_user
from tests.security.install.surroundings import FIRST, SECOND, WWW, SharedHost

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.install import InstallRequest
    from agent.install.model.moments import Observer

pytestmark = SECURITY

ENDS = [
    "x.new",
    ".new",
    "-1.new",
    "1",
    "1.old",
    "999999999999999999999.new",
    "\udcff.new",
    "",
    "1.new.new",
    "٣.new",
]


def prefix_in(directory: Path) -> str:
    """What all hidden names of the Install begin with that is at work there."""
    name = next(path.name for path in directory.rglob(".install-*"))
    return name.rpartition("-")[0] + "-"


def plant(host: SharedHost, end: str, *, is_full: bool) -> None:
    """A directory of the user's has such a name, and perhaps one of root's is in it, that the user can't empty."""
    luggage, planted = host.home / "luggage", host.www / (prefix_in(host.www) + end)
    as_user(luggage.mkdir)
    if is_full:
        (luggage / "roots").mkdir()
        (luggage / "roots/secret").write_text("root's")

    def move() -> None:
        with suppress(OSError):  # a hidden name that is taken
            luggage.rename(planted)

    as_user(move)


def come_to(outcome: str, request: InstallRequest, planted: Observer) -> None:
    """Install it, while names are planted, up to where this is what becomes of it."""
    if outcome == "success":
        install(request, observer=planted)
    elif outcome == "undone":
        failure_of(lambda: install(request, observer=both(planted, failing_at(Moment.COMMIT))))
    else:
        kill = killed_at(Moment.COMMIT if outcome == "recovered" else Moment.PUBLISH)
        ended(start(lambda: failure_of(lambda: install(request, observer=both(planted, kill)))))


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("is_full", [True, False], ids=["full", "empty"])
@pytest.mark.parametrize("outcome", ["success", "undone", "recovered", "completed"])
def test_a_directory_with_such_a_name_keeps_nobody_from_going_on(
    host: SharedHost, end: str, outcome: str, *, is_full: bool
) -> None:
    """No command of the group would be carried out any more; and what only root can remove stays."""
    install(host.request(FIRST, WWW, durable=False))
    planted = at_step(Moment.COMMIT, lambda: plant(host, end, is_full=is_full))
    request = host.request(SECOND, WWW, durable=False)
    come_to(outcome, request, planted)

    host.recover()

    assert [] == [left for left in host.leftovers() if "journal" in left]
    install(host.request(FIRST, WWW, durable=False))
    if is_full:
        assert ["root's"] == [path.read_text() for path in host.home.rglob("secret")]


@pytest.mark.parametrize("outcome", ["undone", "recovered", "completed", "success"])
def test_names_beside_which_something_is_kept_may_be_taken(host: SharedHost, outcome: str) -> None:
    """A directory that gives way is kept beside, with what others have put into it; the user may have made that name."""
    before: dict[str, str] = {"app/x": "a file"}
    after: dict[str, str] = {"app/x/leaf": "l"}
    if outcome in {"success", "completed"}:
        before, after = after, before
    permissions = f"\npermissions: [{{object: '@DEST@/home/www', owner: {USER}, type: [directory]}}]"
    install(host.request(before, WWW + permissions, durable=False))

    def plant_names() -> None:
        token = prefix_in(host.www).split("-")[1]
        for name in ("x", *(path.name for path in host.www.glob(".install-*"))):
            (host.www / f"{name}.kept-{token}").mkdir()
            (host.www / f"{name}.kept-{token}/theirs").write_text("t")
        for path in [host.www / "x", *host.www.glob(".install-*")]:
            if path.is_dir():
                (path / "theirs").write_text("t")

    planted = at_step(Moment.COMMIT, lambda: as_user(plant_names))
    request = host.request(after, WWW + permissions, durable=False)
    come_to(outcome, request, planted)

    host.recover()

    assert [] == [left for left in host.leftovers() if "journal" in left]
    assert (host.www / "x").read_text() == "a file"
    assert len(list(host.www.glob("*.kept-*-2"))) == 1


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_the_names_under_which_deep_directories_are_emptied_may_be_taken(host: SharedHost, kind: str) -> None:
    """They are moved up in the tree that is removed, which may be the user's."""
    given = f"\npermissions: [{{object: '@DEST@/home', owner: {USER}, type: [directory]}}]"
    request = host.request({"app/new/a": "a"}, WWW + given, durable=False)
    ended(start(lambda: failure_of(lambda: install(request, observer=killed_at(Moment.SWITCH)))))
    (hidden,) = host.www.glob(".install-*")

    def plant_chain() -> None:
        at = hidden
        for _level in range(150):
            at = at / "d"
            at.mkdir()
            taken = hidden / f"deeper-{at.stat().st_ino}"
            if kind == "directory":
                taken.mkdir()
            else:
                taken.touch()

    as_user(plant_chain)
    if kind == "directory":
        for taken in hidden.glob("deeper-*"):  # the user has brought what only root can remove
            (taken / "roots").mkdir()
            (taken / "roots/secret").write_text("root's")

    host.recover()

    assert not (hidden / "d").exists()
    assert [] == [left for left in host.leftovers() if "journal" in left]
    assert (kind == "directory") == hidden.exists()


def in_place_of_old(app: Path) -> None:
    """The user's file is where the old one waits."""
    for path in app.glob(".install-*.new"):
        path.rename(path.with_name(f"aside{path.name}"))
        path.write_text(THEIRS)


def beside_old(app: Path) -> None:
    """The old one would be there, if names could not be exchanged."""
    prefix = prefix_in(app)
    for number in range(10):
        (app / f"{prefix}{number}.old").write_text(THEIRS)


def beside_new(app: Path) -> None:
    """Where something new has taken its place, nothing waits."""
    prefix = prefix_in(app)
    for number in range(10):
        if not (app / f"{prefix}{number}.new").exists():
            (app / f"{prefix}{number}.new").write_text(THEIRS)


@pytest.mark.parametrize("act", [in_place_of_old, beside_old, beside_new])
@pytest.mark.parametrize("is_killed", [True, False])
def test_what_is_planted_is_not_put_back_without_a_word(
    host: SharedHost, act: Callable[[Path], None], *, is_killed: bool
) -> None:
    """An Install gives a directory to the user, and is undone: the directory is root's again, with what is in it."""
    for_root = "files: [{source: app, destination: '@DEST@/srv/app'}]"
    given = f"{for_root}\npermissions: [{{object: '@DEST@/srv', owner: {USER}, type: [directory]}}]"
    first = {"app/tool": "1", "app/kept": "k"}
    install(host.request(first, for_root, durable=False))
    app, messages = host.srv / "app", list[str]()
    planted = at_step(Moment.COMMIT, lambda: as_user(lambda: act(app)))
    request = host.request({"app/tool": "2", "app/kept": "k", "app/new": "n"}, given, durable=False)

    if is_killed:
        observer = both(planted, killed_at(Moment.COMMIT))
        ended(start(lambda: failure_of(lambda: install(request, observer=observer))))
        messages.append(logged_by(host.recover, host.base))
    else:
        failure = failure_of(lambda: install(request, observer=both(planted, failing_at(Moment.COMMIT))))
        assert failure is not None
        messages.append(failure.message)

    assert app.stat().st_uid == 0
    assert not (app / "new").exists()
    is_theirs = (app / "tool").read_text() == THEIRS
    assert is_theirs == (act is in_place_of_old)
    assert is_theirs == (str(app / "tool") in messages[0])
