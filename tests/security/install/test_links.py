"""I4: whose links on the way to a destination are followed.

A link is followed if it is root's or the agent's own user's, or belongs to the owner of what it leads to, and if nobody
but root, the agent's user and that owner may write to a directory that was passed so far. Any other one is a conflict.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.install import install, plan_install
from agent.protocol import FileExistsBehavior
from tests.install.host import Host, failure_of
from tests.security.install.attacker import SECURITY, USER, as_user
from tests.security.install.surroundings import (
    FIRST,
    GIVEN_AWAY,
    SECOND,
    WWW,
    SharedHost,
    assert_installed,
    link_refusal,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = SECURITY

AGENT = 64_323
GROUP = 64_324


def files_to(destination: str) -> str:
    """An AppSpec that installs everything there."""
    return f"files: [{{source: app, destination: '{destination}'}}]"


def directory_of(uid: int, path: Path, mode: int = 0o755) -> Path:
    """A new directory of this user's."""
    path.mkdir()
    os.chown(path, uid, uid)
    path.chmod(mode)
    return path


def deploys(host: Host, destination: str, place: Path) -> None:
    """Two revisions after each other get to this place, and only what the new one has stays there."""
    for revision in (FIRST, SECOND):
        request = host.request(revision, files_to(destination), durable=False)
        plan_install(request)
        install(request)
        assert_installed(revision, place)
    assert not (place / "gone.conf").exists()
    assert not (place / "sub/gone.conf").exists()
    assert [] == host.leftovers()


@pytest.mark.parametrize("behavior", FileExistsBehavior)
@pytest.mark.parametrize("victim", ["same_names", "other_names"])
@pytest.mark.parametrize("appspec", [WWW, GIVEN_AWAY], ids=["root's", "given away"])
def test_the_users_link_to_a_directory_of_roots(
    host: SharedHost, behavior: FileExistsBehavior, victim: str, appspec: str
) -> None:
    """Root would install into its own directory what the user may change, or replace what is there."""
    link = host.exchange_for_link(host.www, getattr(host, victim))
    request = host.request(FIRST, appspec, behavior=behavior, durable=False)
    link_refusal(request, host, link)
    host.assert_nothing_else_has_changed()


def test_the_users_link_that_stands_where_the_last_revision_was(host: SharedHost) -> None:
    """The directory was there before the first deployment, so that Install hasn't made it."""
    install(host.request(FIRST, WWW, durable=False))
    link = host.exchange_for_link(host.www, host.other_names)
    link_refusal(host.request(SECOND, WWW, durable=False), host, link)
    host.assert_nothing_else_has_changed()


@pytest.mark.parametrize("below", ["", "/sub", "/sub/new/deep"])
def test_the_users_link_above_the_destination(host: SharedHost, below: str) -> None:
    """It is enough to be passed on the way."""
    link = host.exchange_for_link(host.www, host.same_names)
    request = host.request({"app/x": "x"}, files_to(f"@DEST@/home/www{below}"), durable=False)
    link_refusal(request, host, link)


def test_the_users_link_within_the_tree_of_the_revision(host: SharedHost) -> None:
    """The destination is a directory of the user's, and a directory of the revision is a link there."""
    link = host.link_of_user(host.www / "sub", host.same_names / "sub")
    link_refusal(host.request({"app/sub/x": "x"}, WWW, durable=False), host, link)


def test_the_users_link_to_a_neighbour(host: SharedHost) -> None:
    """What the neighbour runs would be chosen by the user."""
    link = host.exchange_for_link(host.www, host.dest / "neighbour")
    link_refusal(host.request({"app/x": "x"}, WWW, durable=False), host, link)


def test_the_users_link_by_way_of_another_one(host: SharedHost) -> None:
    """Each link on the way is held to the rule, and the first one leads where the last one does."""
    host.link_of_user(host.home / "second", host.same_names)
    link = host.exchange_for_link(host.www, host.home / "second")
    link_refusal(host.request({"app/x": "x"}, WWW, durable=False), host, link)


def test_a_link_of_the_users_that_roots_link_leads_to(host: SharedHost) -> None:
    """Root has made the first one for the user's sake, and doesn't know of the second."""
    (host.srv / "app").symlink_to(host.www)
    link = host.exchange_for_link(host.www, host.same_names)
    link_refusal(host.request({"app/x": "x"}, files_to("@DEST@/srv/app"), durable=False), host, link)


def test_a_link_of_roots_in_the_users_directory_to_roots(host: SharedHost) -> None:
    """A bundle has brought it there, perhaps; the user has moved it, so that it leads elsewhere now."""
    (host.home / "current").symlink_to("../etc/ld.so.conf.d")
    request = host.request({"app/x": "x"}, files_to("@DEST@/home/current"), durable=False)
    link_refusal(request, host, host.home / "current", owner="root")


@pytest.mark.parametrize("is_sticky", [True, False], ids=["sticky", "not sticky"])
@pytest.mark.parametrize("target", ["roots", "own"])
def test_the_users_link_in_a_directory_for_everybody(
    host: SharedHost, target: str, *, is_sticky: bool
) -> None:
    """In /tmp any name can be anybody's, so that nothing there says that this user was meant."""
    shared = directory_of(0, host.dest / "tmp", 0o1777 if is_sticky else 0o777)
    link = host.link_of_user(shared / "app", host.same_names if target == "roots" else host.www)
    link_refusal(host.request({"app/x": "x"}, files_to("@DEST@/tmp/app"), durable=False), host, link)


def test_the_users_link_where_a_group_may_write(host: SharedHost) -> None:
    """Somebody else of the group might have put it there."""
    link = host.link_of_user(host.home / "current", host.www)
    os.chown(host.home, USER, GROUP)
    host.home.chmod(0o775)
    link_refusal(host.request({"app/x": "x"}, files_to("@DEST@/home/current"), durable=False), host, link)


def test_the_users_link_in_a_neighbours_directory(host: SharedHost) -> None:
    """The neighbour may move it, or put another one there."""
    link = host.dest / "neighbour/app"
    host.point_link(link, host.www)
    request = host.request({"app/x": "x"}, files_to("@DEST@/neighbour/app"), durable=False)
    link_refusal(request, host, link)


def test_all_links_that_are_not_followed_are_named_at_once(host: SharedHost) -> None:
    """As all other conflicts are."""
    links = [host.link_of_user(host.home / name, host.other_names) for name in ("one", "other")]
    files = ", ".join(f"{{source: app, destination: '{link}'}}" for link in links)
    request = host.request({"app/x": "x"}, f"files: [{files}]", durable=False)
    assert str(links[1]) in link_refusal(request, host, links[0]).message


@pytest.mark.parametrize("pattern", ["{home}/www", "{home}/*"])
def test_the_administrator_may_have_links_of_others_followed(host: SharedHost, pattern: str) -> None:
    """Hosts that rely on it go on as before."""
    target = directory_of(0, host.dest / "opt")
    host.exchange_for_link(host.www, target)
    patterns = (pattern.format(home=host.home),)
    install(host.request(FIRST, WWW, durable=False, follow_links_of_others=patterns))
    assert_installed(FIRST, target)


def test_the_setting_is_for_the_links_that_it_names(host: SharedHost) -> None:
    """Another one is refused as ever."""
    link = host.exchange_for_link(host.www, host.other_names)
    patterns = (f"{host.home}/other", f"{host.srv}/*")
    link_refusal(host.request(FIRST, WWW, durable=False, follow_links_of_others=patterns), host, link)


def test_a_link_that_the_administrator_has_made_at_a_destination(host: SharedHost) -> None:
    """/srv/app leads to a larger disk."""
    place = directory_of(0, host.dest / "data") / "app"
    place.mkdir()
    (host.srv / "app").symlink_to(place)
    deploys(host, "@DEST@/srv/app", place)


def test_a_link_that_the_administrator_has_made_to_a_users_directory(host: SharedHost) -> None:
    """Root's link, outside of what the user can change."""
    (host.srv / "app").symlink_to(host.www)
    deploys(host, "@DEST@/srv/app", host.www)


def test_a_link_that_the_administrator_has_made_in_a_users_directory(host: SharedHost) -> None:
    """The user could have made it as well: it leads to what is the user's own."""
    place = directory_of(USER, host.dest / "data")
    host.www.rmdir()
    host.www.symlink_to(place)
    deploys(host, "@DEST@/home/www", place)


@pytest.mark.parametrize("is_relative", [True, False], ids=["relative", "absolute"])
def test_a_users_own_link_to_its_own_directory(host: SharedHost, *, is_relative: bool) -> None:
    """Whoever may write there anyway may choose where it is."""
    place = directory_of(USER, host.home / "versions")
    place.joinpath("theirs").write_text("the user's")
    host.link_of_user(host.home / "live", "versions" if is_relative else place)
    deploys(host, "@DEST@/home/live", place)
    assert "the user's" == (place / "theirs").read_text()


def test_a_users_own_link_to_its_own_directory_on_another_disk(host: SharedHost) -> None:
    """The way there is root's."""
    place = directory_of(USER, directory_of(0, host.dest / "data") / "of-the-user")
    host.exchange_for_link(host.www, place)
    deploys(host, "@DEST@/home/www", place)


def test_a_link_to_the_current_release_of_a_deploy_user(host: SharedHost) -> None:
    """The AppSpec goes through `current`, and the next deployment finds another release there."""
    releases = directory_of(USER, host.www / "releases")
    for number in ("3", "4"):
        directory_of(USER, directory_of(USER, releases / number) / "public")
    host.link_of_user(host.www / "current", "releases/3")
    deploys(host, "@DEST@/home/www/current/public", releases / "3/public")


def test_a_directory_that_was_the_users_and_that_the_user_has_moved(host: SharedHost) -> None:
    """The administrator has given it to the user, who has moved it to a larger disk and left a link."""
    host.www.rmdir()
    install(host.request(FIRST, GIVEN_AWAY, durable=False))
    os.chown(host.www, USER, USER)
    host.exchange_for_link(host.www, host.home / "moved-away")
    failure = failure_of(lambda: install(host.request(SECOND, GIVEN_AWAY, durable=False)))
    assert failure is None
    assert_installed(SECOND, host.home / "moved-away")


@pytest.mark.parametrize(
    ("link", "target", "destination", "below"),
    [
        ("var/run", "{dest}/run", "var/run/app", "run/app"),
        ("lib", "usr/lib", "lib/app", "usr/lib/app"),
        ("bin", "usr/bin", "bin", "usr/bin"),
    ],
)
def test_links_of_the_system(host: SharedHost, link: str, target: str, destination: str, below: str) -> None:
    """Distributions have merged directories and left links."""
    for directory in ("var", "run", "usr/lib", "usr/bin"):
        (host.dest / directory).mkdir(parents=True)
    (host.dest / link).symlink_to(target.format(dest=host.dest))
    deploys(host, f"@DEST@/{destination}", host.dest / below)


def test_a_link_of_roots_in_a_sticky_directory(host: SharedHost) -> None:
    """Nobody else can move it away or put another in its place."""
    shared = directory_of(0, host.dest / "tmp", 0o1777)
    (shared / "app").symlink_to(host.srv)
    deploys(host, "@DEST@/tmp/app", host.srv)


def as_agent(place: Path, body: Callable[[Host], object]) -> None:
    """Let the body act as an agent that isn't root, on a host of which a part is its own."""
    own = directory_of(AGENT, place / "own")
    # Whatever is imported at the first Install, that user may not be able to read.
    Host(directory_of(0, place / "first")).install(FIRST, durable=False)

    def act() -> None:
        host = Host(own)
        host.dest.mkdir()
        body(host)

    as_user(act, AGENT)


def test_a_link_of_the_agents_own_user(place: Path) -> None:
    """It is as good as root's where the agent isn't root."""

    def deploy(host: Host) -> None:
        (host.base / "data").mkdir()
        (host.dest / "app").symlink_to(host.base / "data")
        deploys(host, "@DEST@/app", host.base / "data")

    as_agent(place, deploy)


def test_a_link_of_roots_for_an_agent_that_is_not_root(place: Path) -> None:
    """The administrator's links count for every agent."""
    data = directory_of(AGENT, place / "data")
    (directory_of(0, place / "srv") / "app").symlink_to(data)
    as_agent(place, lambda host: deploys(host, f"{place}/srv/app", data))


def test_a_link_of_another_users_for_an_agent_that_is_not_root(place: Path) -> None:
    """The other user would have the agent replace the agent's own files."""
    (directory_of(USER, place / "home") / "app").symlink_to(place / "own/private")
    os.chown(place / "home/app", USER, USER, follow_symlinks=False)

    def attack(host: Host) -> None:
        (host.base / "private").mkdir()
        request = host.request({"app/x": "x"}, files_to(f"{place}/home/app"), durable=False)
        link_refusal(request, host, place / "home/app")

    as_agent(place, attack)


def test_the_attacker_is_an_ordinary_user(host: SharedHost) -> None:
    """Otherwise these attacks would show nothing."""

    def look() -> tuple[list[int], bytes, list[bool]]:
        status = Path("/proc/self/status").read_bytes().splitlines()
        capabilities = next(line.split()[1] for line in status if line.startswith(b"CapEff"))
        places = [host.www, host.home, host.dest, host.srv, host.same_names, host.other_names / "tool"]
        return os.getgroups(), capabilities.strip(b"0"), [os.access(path, os.W_OK) for path in places]

    assert ([], b"", [True, True, False, False, False, False]) == as_user(look)
