"""A host on which root installs into a user's directory, and what lies beside it: root's own files and a neighbour's."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING, Any

from agent.install import (
    BlockedInstall,
    InstallConflicts,
    check_install,
    install,
    plan_install,
    preview_install,
)
from tests.install.host import Host, failure_of
from tests.install.observers import both
from tests.install.trees import acl_for, everything_about, give_acl, read_tree
from tests.security.install.attacker import THEIRS, USER, as_user

if TYPE_CHECKING:
    from pathlib import Path

    from agent.errors import CommandFailure
    from agent.install import InstallRequest
    from agent.install.model.moments import Observer
    from tests.install.trees import Found
    from tests.security.install.attacker import Racer

NEIGHBOUR = 64_322
SETTING = "follow_links_of_others"
"""The setting that names links, by path globs, which are followed whoever made them."""

FIRST: dict[str, Any] = {
    "app/a.conf": "revision 1",
    "app/b.conf": "revision 1 and 2",
    "app/gone.conf": "revision 1",
    "app/sub/c.conf": "revision 1",
    "app/sub/gone.conf": "revision 1",
}
SECOND: dict[str, Any] = {
    "app/a.conf": "revision 2",
    "app/b.conf": "revision 1 and 2",
    "app/new.conf": "revision 2",
    "app/sub/c.conf": "revision 2",
}
WWW = "files: [{source: app, destination: '@DEST@/home/www'}]"
GIVEN_AWAY = (
    WWW
    + f"""
permissions:
  - {{object: '@DEST@/home/www', owner: {USER}, group: {USER}, mode: 666, acls: ['u:{USER}:rw'], type: [file]}}
  - {{object: '@DEST@/home/www', owner: {USER}, mode: 777, type: [directory]}}
"""
)


class SharedHost(Host):
    """Root's `etc` and a neighbour's directory beside the home of the user; nothing is deployed yet.

    Attributes:
        home: the user's, with `www` in it, which is the user's as well.
        srv: empty, and root's.
        same_names: a directory of root's with files of the names that the revisions have.
        same_files: one with the very files of the first revision.
        other_names: one where no name is taken.
    """

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.dest.mkdir(mode=0o755)
        self.home = self.dest / "home"
        self.www = self.home / "www"
        self.srv = self.dest / "srv"
        self.same_names = self.dest / "etc/ld.so.conf.d"
        self.same_files = self.dest / "etc/app"
        self.other_names = self.dest / "etc/cron.d"
        names = {name.removeprefix("app/") for name in [*FIRST, *SECOND]} - {"new.conf"}
        self.write(dict.fromkeys(names, "root's"), self.same_names)
        self.write({name.removeprefix("app/"): content for name, content in FIRST.items()}, self.same_files)
        special = {"secret": {"content": "root's", "mode": 0o600}, "link": {"link": "secret"}}
        self.write({**special, "tool": {"content": "root's", "mode": 0o4755}}, self.other_names)
        give_acl(self.same_names / "b.conf", *acl_for(NEIGHBOUR, 4))
        self.write({"a.conf": "the neighbour's", "sub/c.conf": "the neighbour's"}, self.dest / "neighbour")
        for path in [self.dest / "neighbour", *(self.dest / "neighbour").rglob("*")]:
            os.chown(path, NEIGHBOUR, NEIGHBOUR)
        for directory in (self.srv, self.home, self.www):
            directory.mkdir()
        for directory in (self.home, self.www):
            os.chown(directory, USER, USER)
        self._before = self._beside()

    def link_of_user(self, path: Path, target: Path | str) -> Path:
        """A link that the user has made."""
        as_user(lambda: path.symlink_to(target))
        return path

    def point_link(self, path: Path, target: Path) -> None:
        """The user's link, as between two rounds of a race."""
        path.unlink(missing_ok=True)
        path.symlink_to(target)
        os.chown(path, USER, USER, follow_symlinks=False)

    def exchange_for_link(self, directory: Path, target: Path) -> Path:
        """The link that the user has put in the place of a directory of its own, which it has moved away."""

        def exchange() -> None:
            directory.rename(directory.with_name("moved-away"))
            directory.symlink_to(target)

        as_user(exchange)
        return directory

    def assert_nothing_else_has_changed(self) -> None:
        """Root's files and the neighbour's are as before, and no file of root's has a content of the user's."""
        assert self._before == self._beside()
        for path in self.home.rglob("*"):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_uid == 0:
                assert THEIRS not in path.read_text(), f"{path} is root's, and its content the user's"

    def start_anew(self) -> None:
        """Afterwards nothing is deployed, as far as anybody knows."""
        shutil.rmtree(self.instructions, ignore_errors=True)
        for path in [*self.www.iterdir(), *self.srv.iterdir()]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _beside(self) -> dict[str, Found]:
        return {
            name: found for top in ("etc", "neighbour") for name, found in self._everything_in(top).items()
        }

    def _everything_in(self, name: str) -> dict[str, Found]:
        return {f"{name}/{below}": found for below, found in everything_about(self.dest / name).items()}


def refusal(request: InstallRequest, host: Host) -> InstallConflicts:
    """The conflict that this request meets, whoever looks and in an Install; nothing is changed."""
    before = everything_about(host.base)
    planned, checked = failure_of(lambda: plan_install(request)), failure_of(lambda: check_install(request))
    answer, failure = preview_install(request), failure_of(lambda: install(request))
    assert before == everything_about(host.base)
    assert isinstance(failure, InstallConflicts)
    assert isinstance(planned, InstallConflicts)
    assert isinstance(checked, InstallConflicts)
    assert isinstance(answer, BlockedInstall)
    assert [failure.message] * 3 == [planned.message, checked.message, answer.message]
    return failure


def link_refusal(request: InstallRequest, host: Host, link: Path, owner: str = str(USER)) -> InstallConflicts:
    """The conflict with a link that isn't followed: it names the link, whose it is, and the way out."""
    failure = refusal(request, host)
    assert str(link) in failure.message
    assert owner in failure.message
    assert SETTING in failure.message
    return failure


def assert_installed(revision: dict[str, Any], place: Path) -> None:
    """The revision is there, whoever owns it."""
    found = read_tree(place)
    for name, content in revision.items():
        there = found.get(name.removeprefix("app/"))
        assert content == (there["content"] if isinstance(there, dict) else there)


def check_round(
    host: SharedHost, racer: Racer, request: InstallRequest, revision: dict[str, Any], step: int
) -> None:
    """Install this with the race on from that step.

    Afterwards everything else is as it was; and either the revision is where it belongs, or the Install has failed
    and said why, nothing of it is left to be done, and nothing is deployed any more as far as anybody knows.
    """
    if raced(host, racer, request, step) is None:
        assert_installed(revision, host.www)
        return
    host.recover()
    host.assert_nothing_else_has_changed()
    host.start_anew()


def raced(
    host: SharedHost, racer: Racer, request: InstallRequest, step: int, then: Observer | None = None
) -> CommandFailure | None:
    """How this Install fails, which has the race on from this step; None when it doesn't. Nothing else has changed.

    Args:
        host: where it happens.
        racer: waiting.
        request: to be installed.
        step: as `Racer.from_step`.
        then: observes it, too.
    """
    starts = racer.from_step(step)
    try:
        failure = failure_of(lambda: install(request, observer=both(starts, then) if then else starts))
    finally:
        racer.stop()
    host.assert_nothing_else_has_changed()
    return failure
