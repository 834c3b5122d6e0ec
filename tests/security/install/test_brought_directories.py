"""The user moves a directory of root's, which lies in the user's own, to where the last Install has worked.

The user may move it, and may not write to it, read it, or remove what is in it.
"""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from agent.install import install
from agent.install.plan.conflicts import InstallConflicts
from agent.protocol import FileExistsBehavior
from tests.install.host import failure_of
from tests.install.trees import everything_about
from tests.security.install.attacker import SECURITY, USER, as_user
from tests.security.install.surroundings import FIRST, GIVEN_AWAY, SECOND, WWW, SharedHost, assert_installed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.install.trees import Found

pytestmark = SECURITY

CREATED = "the last Install has made it"
FOUND = "root has made it"
GIVEN = WWW + f"\npermissions: [{{object: '@DEST@/home', type: [directory], owner: {USER}, mode: 777}}]"


def deploy_first(host: SharedHost, made: str, appspec: str = WWW) -> None:
    """Install the first revision where nothing is, or where root has made a directory."""
    host.www.rmdir()
    if made == FOUND:
        host.www.mkdir(mode=0o755)
    install(host.request(FIRST, appspec, durable=False))


def bring(host: SharedHost, *, names: dict[str, str]) -> dict[str, Found]:
    """A directory of root's, with these files, is where the last Install has worked; and all about it."""
    secret = host.home / "secret"
    host.write(dict(names), secret)
    for directory in (secret, *(path for path in secret.rglob("*") if path.is_dir())):
        directory.chmod(0o700)

    def move() -> None:
        host.www.rename(host.home / "aside")
        secret.rename(host.www)

    as_user(move)
    return everything_about(host.www)


@pytest.mark.parametrize("made", [CREATED, FOUND])
@pytest.mark.parametrize("appspec", [WWW, GIVEN, GIVEN_AWAY])
@pytest.mark.parametrize("names", [{"a.conf": "root's"}, {"sub/c.conf": "root's", "b.conf": "root's"}])
def test_nothing_in_it_is_replaced_nor_given_away(
    host: SharedHost, made: str, appspec: str, names: dict[str, str]
) -> None:
    """What is there has the names of the last revision, and is not what that has put there."""
    deploy_first(host, made, appspec)
    before = bring(host, names=names)

    failure = failure_of(lambda: install(host.request(SECOND, appspec, durable=False)))

    assert isinstance(failure, InstallConflicts)
    assert str(host.www) in failure.message
    assert "follow_links_of_others" in failure.message
    assert before == everything_about(host.www)


@pytest.mark.parametrize("behavior", [FileExistsBehavior.OVERWRITE, FileExistsBehavior.RETAIN])
def test_it_is_not_given_away_where_the_rule_lets_files_go_there(
    host: SharedHost, behavior: FileExistsBehavior
) -> None:
    """Others could read what is in it, if it got the mode of the one that was there."""
    deploy_first(host, CREATED, GIVEN)
    bring(host, names={"a.conf": "root's", "other": "root's"})

    install(host.request(SECOND, GIVEN, behavior=behavior, durable=False))

    status = host.www.stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o700)


def test_an_empty_one_is_not_given_away_either(host: SharedHost) -> None:
    """What root puts there later, root puts where nobody else may look."""
    deploy_first(host, CREATED, GIVEN)
    bring(host, names={"x": "x"})
    (host.www / "x").unlink()

    install(host.request(SECOND, GIVEN, durable=False))

    assert stat.S_IMODE(host.www.stat().st_mode) == 0o700
    assert host.www.stat().st_uid == 0


def test_it_is_not_removed_nor_what_is_in_it(host: SharedHost) -> None:
    """The next revision goes elsewhere."""
    deploy_first(host, CREATED)
    bring(host, names={"x": "x"})
    (host.www / "x").unlink()

    install(host.request({"app/x": "x"}, "files: [{source: app, destination: '@DEST@/srv'}]", durable=False))

    assert host.www.is_dir()


def copied_by_root(path: Path) -> None:
    """What an operator does who moves a home to another disk: the files are the same, the inodes are not."""
    shutil.copytree(path, path.with_name("copy"), symlinks=True)
    for place, _directories, names in os.walk(path):
        for name in names:
            shutil.copystat(os.path.join(place, name), os.path.join(place, name).replace("www", "copy"))
    path.rename(path.with_name("before"))
    path.with_name("copy").rename(path)


@pytest.mark.parametrize("made", [CREATED, FOUND])
def test_a_copy_that_root_has_made_can_be_deployed_to(host: SharedHost, made: str) -> None:
    """A home is moved to another disk, or comes from a backup: the files are what the last Install has left."""
    deploy_first(host, made)
    copied_by_root(host.www)

    install(host.request(SECOND, WWW, durable=False))

    assert_installed(SECOND, host.www)
    assert not (host.www / "gone.conf").exists()


def test_what_the_setting_names_counts_as_ever(host: SharedHost) -> None:
    """The operator says that this directory is the right one, whoever may move it."""
    deploy_first(host, CREATED)
    bring(host, names={"a.conf": "edited"})
    request = host.request(SECOND, WWW, durable=False, follow_links_of_others=[str(host.www)])

    install(request)

    assert_installed(SECOND, host.www)


def test_a_directory_that_the_user_has_made_anew_counts_as_ever(host: SharedHost) -> None:
    """Whoever may write to it may have put it there."""
    install(host.request(FIRST, WWW, durable=False))

    def make_anew() -> None:
        host.www.rename(host.home / "aside")
        host.www.mkdir()
        (host.www / "a.conf").write_text("edited")

    as_user(make_anew)
    install(host.request(SECOND, WWW, durable=False))

    assert_installed(SECOND, host.www)


def test_a_directory_made_anew_in_one_that_is_the_same_counts_as_ever(host: SharedHost) -> None:
    """A script of root's makes it anew; the user can move the one above, but not what is in that."""
    deploy_first(host, CREATED)
    shutil.rmtree(host.www / "sub")
    host.write({"c.conf": "edited"}, host.www / "sub")

    install(host.request(SECOND, WWW, durable=False))

    assert_installed(SECOND, host.www)


def test_a_directory_that_is_brought_back_counts_as_ever(host: SharedHost) -> None:
    """The user has moved it away, and back again."""
    deploy_first(host, CREATED, GIVEN)
    (host.www / "a.conf").write_text("edited")
    os.chmod(host.www, 0o700)
    as_user(lambda: host.www.rename(host.home / "aside"))
    as_user(lambda: (host.home / "aside").rename(host.www))

    install(host.request(SECOND, GIVEN, durable=False))

    assert_installed(SECOND, host.www)
    assert stat.S_IMODE(host.www.stat().st_mode) == 0o777
