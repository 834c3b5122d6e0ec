"""The user brings a directory of root's to where root removes what an Install has left, or what another agent has."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from agent.install.posix import open_directories
from tests.install.children import ended, start
from tests.install.host import failure_of
from tests.install.observers import at_step, both, failing_at, killed_at
from tests.security.install.attacker import SECURITY, USER, as_user
from tests.security.install.surroundings import WWW, SharedHost

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = SECURITY

GIVEN = WWW + "\npermissions: [{object: '@DEST@/home/www', type: [directory], "
LETS_IN = {
    "owner": GIVEN + f"owner: {USER}}}]",
    "everybody": GIVEN + "mode: 777}]",
    "acl": GIVEN + f"acls: ['u:{USER}:rwx']}}]",
}
NEW_TREE = {"app/new/a.conf": "a", "app/new/below/b.conf": "b", "app/new/below/deep/c.conf": "c"}


def hidden_in(directory: Path) -> Path:
    """The one hidden name there."""
    (found,) = directory.glob(".install-*")
    return found


def roots_directory(path: Path, *names: str) -> Path:
    """A directory of root's with these files of root's, wherever it lies."""
    path.mkdir(mode=0o755)
    for name in names:
        (path / name).write_text("root's")
    return path


def luggage_of(host: SharedHost, depth: int = 0) -> Path:
    """A directory of the user's with a directory of root's so deep in it, which only root can empty."""
    luggage = host.home / "luggage"
    at = luggage
    for number in range(depth + 1):
        at = at / str(number) if number else at
        at.mkdir()
        os.chown(at, USER, USER)
    roots_directory(at / "kept", "secret")
    return luggage


def secrets_in(host: SharedHost) -> int:
    """How many files of root's are left, whatever the user has made of the way to them."""
    return sum("secret" in names for _directory, _directories, names in os.walk(host.home))


@pytest.mark.parametrize("depth", [0, 130])
@pytest.mark.parametrize("let_in", LETS_IN)
def test_what_the_user_brings_into_a_new_directory_is_not_removed_with_it(
    host: SharedHost, let_in: str, depth: int
) -> None:
    """A new directory waits under its hidden name, and may be the user's already."""
    luggage = luggage_of(host, depth)
    bring = at_step(
        Moment.SWITCH, lambda: as_user(lambda: luggage.rename(hidden_in(host.www) / "below/luggage"))
    )
    request = host.request(NEW_TREE, LETS_IN[let_in], durable=False)

    assert failure_of(lambda: install(request, observer=both(bring, failing_at(Moment.SWITCH))))

    assert secrets_in(host) == 1


@pytest.mark.parametrize("let_in", LETS_IN)
def test_new_directories_that_others_may_write_to_are_removed(host: SharedHost, let_in: str) -> None:
    """They are, with files that the user has put there; but a directory of the user's may be left."""

    def bring() -> None:
        (hidden_in(host.www) / "below/theirs").mkdir()
        (hidden_in(host.www) / "below/theirs/file").write_text("t")
        (hidden_in(host.www) / "below/file").write_text("t")

    observer = both(at_step(Moment.SWITCH, lambda: as_user(bring)), failing_at(Moment.SWITCH))
    request = host.request(NEW_TREE, LETS_IN[let_in], durable=False)

    assert failure_of(lambda: install(request, observer=observer))

    left = {path.name for path in host.www.rglob("*") if path.is_file()}
    assert left == (set() if let_in == "owner" else {"file"})
    assert all("theirs" in path.parts for path in host.www.rglob("file"))


def listed_by_another_agent(host: SharedHost, *paths: str) -> None:
    """Afterwards root has put these files into the user's directory, as another agent's list says."""
    host.write(dict.fromkeys(paths, "the other agent's"), host.www)
    host.instructions.mkdir(parents=True)
    lines = [*paths, *(parent for path in paths for parent in Path(path).parents if parent.name)]
    listed = "".join(f"{host.www}/{line}\n" for line in lines)
    (host.instructions / f"{host.group_id}-cleanup").write_text(listed)


def for_another(directory: Path, other: Path) -> Callable[[], object]:
    """What the user does to put another directory into the place of this one."""

    def exchange() -> None:
        if directory.exists():
            directory.rename(directory.with_name("aside"))
        other.rename(directory)

    return lambda: as_user(exchange)


@pytest.mark.parametrize("below", ["", "sub/"])
@pytest.mark.parametrize("is_recovered", [False, True])
def test_a_directory_that_has_given_way_to_a_file_is_exchanged(
    host: SharedHost, below: str, *, is_recovered: bool
) -> None:
    """What the list names is removed from the directory that has given way, whatever has its hidden name by then."""
    listed_by_another_agent(host, f"conf/{below}x")
    other = roots_directory(host.www / "other")
    if below:
        (other / below).mkdir()
    (other / below / "x").write_text("root's")
    swap = at_step(Moment.COMMIT, lambda: for_another(hidden_in(host.www), other)())  # noqa: PLW0108 - the name is not there yet
    request = host.request({"app/conf": "a file now"}, WWW, durable=False)

    if is_recovered:
        observer = both(swap, killed_at(Moment.PUBLISH))
        ended(start(lambda: failure_of(lambda: install(request, observer=observer))))
        host.recover()
    else:
        failure_of(lambda: install(request, observer=swap))

    (left,) = {path.read_text() for path in host.www.rglob("x") if path.is_file()} - {"the other agent's"}
    assert left == "root's"


def test_a_directory_that_was_away_for_a_moment_is_not_looked_for_later(
    host: SharedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the journal was begun, nothing was there; what is there in the end is another one."""
    monkeypatch.setattr(open_directories, "_MOST_OPEN", 1)
    listed_by_another_agent(host, "gone")
    other = roots_directory(host.home / "other", "gone")
    away = at_step(Moment.JOURNAL, lambda: as_user(lambda: host.www.rename(host.www.with_name("away"))))
    swap = at_step(Moment.COMMIT, for_another(host.www, other))
    elsewhere = "files: [{source: app, destination: '@DEST@/srv'}]"

    failure_of(
        lambda: install(host.request({"app/x": "x"}, elsewhere, durable=False), observer=both(away, swap))
    )

    assert (host.www / "gone").read_text() == "root's"


@pytest.mark.parametrize("is_known", [False, True], ids=["by its name only", "by the manifest"])
def test_what_is_in_another_directory_is_not_claimed_for_the_next_time(
    host: SharedHost, *, is_known: bool
) -> None:
    """What can't be removed is removed by the next Install, by its name; but that must be what we have put there."""
    elsewhere = "files: [{source: app, destination: '@DEST@/srv'}]"
    if is_known:
        install(host.request({"app/gone": "1", "app/changed": "1"}, WWW, durable=False))
    else:
        listed_by_another_agent(host, "gone")
    other = roots_directory(host.home / "other", "gone")
    swap = at_step(Moment.COMMIT, for_another(host.www, other))

    failure_of(lambda: install(host.request({"app/x": "x"}, elsewhere, durable=False), observer=swap))
    install(host.request({"app/x": "y"}, elsewhere, durable=False))

    assert (host.www / "gone").read_text() == "root's"
    assert host.leftovers() == []


def test_a_directory_of_roots_in_the_place_of_one_that_is_made_keeps_its_mode(
    host: SharedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not the new one, so that nothing is given to it."""
    www = "files: [{source: app, destination: '@DEST@/srv/app'}]"
    modes = [
        f"{{object: '@DEST@/srv', pattern: '{name}', type: [directory], mode: {mode}}}"
        for name, mode in (("app", 2777), ("app/closed", 700))
    ]
    first = f"{www}\npermissions: [{', '.join(modes)}]"
    install(host.request({"app/x": "x", "app/closed/secret": "s"}, first, durable=False))
    app = host.srv / "app"
    make = os.mkdir

    def make_and_exchange(*arguments: Any, **rest: Any) -> None:
        make(*arguments, **rest)
        hidden = list(app.glob(".install-*"))
        if hidden and not exchanged:
            exchanged.append(hidden[0])
            for_another(hidden[0], app / "closed")()

    exchanged: list[Path] = []
    monkeypatch.setattr(os, "mkdir", make_and_exchange)
    archive = {"app/x": "x", "app/closed/secret": "s", "app/new/y": "y"}

    failure_of(lambda: install(host.request(archive, www, durable=False)))

    assert stat.S_IMODE(exchanged[0].stat().st_mode) == 0o700
