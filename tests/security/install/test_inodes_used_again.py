"""The number of an inode is given to another file as soon as the first one is gone, and the journal has it still."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from agent.install.posix import births
from tests.install.children import ended, start
from tests.install.host import failure_of
from tests.install.observers import killed_at
from tests.install.trees import MTIME_NS
from tests.security.install.attacker import SECURITY, USER, as_user
from tests.security.install.surroundings import WWW, SharedHost

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = SECURITY

GIVEN = f"{WWW}\npermissions: [{{object: '@DEST@/home', type: [directory], owner: {USER}}}]"
SECRET_MODE = 0o700
_MOST = 3_000


@pytest.fixture
def host() -> Iterator[SharedHost]:
    """A host on a disk: file systems in memory use no number again."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)  # noqa: S103 - so that the user gets there
        yield SharedHost(Path(place))


def crash(host: SharedHost, tree: dict[str, object], appspec: str, moment: Moment) -> None:
    """Afterwards an Install of that has been killed before this moment."""
    request = host.request(tree, appspec, durable=False)
    assert ended(start(lambda: failure_of(lambda: install(request, observer=killed_at(moment)))))


def roots_with_inode(place: Path, inode: int, *, is_directory: bool) -> Path:
    """What root makes in a directory of the user's; it happens to get that number."""
    for number in range(_MOST):
        made = place / f"backup-{number}"
        if is_directory:
            made.mkdir(mode=SECRET_MODE)
        else:
            made.touch(mode=0o600)
        if made.stat().st_ino == inode:
            return made
    pytest.skip("this file system does not use numbers of inodes again")


def with_inode_of(gone: Path, *, is_directory: bool = True) -> Path:
    """A directory or file of root's with the number of what the user has removed, in a directory of the user's."""
    inode = gone.stat().st_ino
    as_user(lambda: shutil.rmtree(gone) if is_directory else gone.unlink())
    found = roots_with_inode(gone.parent, inode, is_directory=is_directory)
    if is_directory:
        (found / "secret").write_text("root's")
    return found


def test_what_has_the_number_of_a_hidden_directory_is_not_removed_for_it(host: SharedHost) -> None:
    """A new directory that waits is removed with all that is in it, if it is the one that was made."""
    crash(host, {"app/new/a": "a"}, GIVEN.replace("/home'", "/home/www'"), Moment.SWITCH)
    (hidden,) = host.www.glob(".install-*")
    secret = with_inode_of(hidden)
    as_user(lambda: secret.rename(hidden))

    failure_of(host.recover)

    assert [path.read_text() for path in host.home.rglob("secret")] == ["root's"]


def test_what_has_the_number_of_a_changing_directory_is_not_given_away(host: SharedHost) -> None:
    """Where the last Install has given its directory to the user, so does an undo; but not another one."""
    host.www.rmdir()
    install(host.request({"app/a": "1"}, GIVEN, durable=False))
    assert host.www.stat().st_uid == USER
    crash(host, {"app/a": "2"}, GIVEN, Moment.COMMIT)
    secret = with_inode_of(host.www)
    as_user(lambda: secret.rename(host.www))

    failure_of(host.recover)

    status = host.www.stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, SECRET_MODE)


def test_what_has_the_number_of_an_adjusted_file_does_not_get_its_mode(host: SharedHost) -> None:
    """All could read it then."""

    def revision(mode: int) -> dict[str, object]:
        return {"app/a": {"content": "1", "mode": mode, "mtime_ns": MTIME_NS}}

    install(host.request(revision(0o644), WWW, durable=False))
    crash(host, revision(0o640), WWW, Moment.COMMIT)
    secret = with_inode_of(host.www / "a", is_directory=False)
    secret.write_text("root's")
    as_user(lambda: secret.rename(host.www / "a"))

    assert host.recover()

    assert stat.S_IMODE((host.www / "a").stat().st_mode) == 0o600


def test_what_has_the_number_of_a_directory_that_loses_something_keeps_it(host: SharedHost) -> None:
    """What another agent has listed goes by its name, from the directory where it was."""
    elsewhere = "files: [{source: app, destination: '@DEST@/srv'}]"
    (host.www / "gone").write_text("the other agent's")
    os.chown(host.www / "gone", USER, USER)
    host.instructions.mkdir(parents=True)
    (host.instructions / f"{host.group_id}-cleanup").write_text(f"{host.www}/gone\n")
    crash(host, {"app/x": "x"}, elsewhere, Moment.PUBLISH)
    secret = with_inode_of(host.www)
    (secret / "gone").write_text("root's")
    as_user(lambda: secret.rename(host.www))

    host.recover()

    assert (host.www / "gone").read_text() == "root's"


def test_where_no_birth_is_known_an_inode_is_told_by_its_number(
    host: SharedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old kernels and some file systems don't tell it, and an Install is undone there all the same."""
    monkeypatch.setattr(births, "_statx", lambda: (None, None))
    install(host.request({"app/a": "1", "app/b/c": "1"}, WWW, durable=False))
    before = host.everything()
    crash(host, {"app/a": "2", "app/new/x": "2"}, WWW, Moment.COMMIT)

    assert host.recover()

    assert before == host.everything()


@pytest.mark.parametrize("below", ["", "sub"])
def test_what_has_the_number_of_a_directory_of_the_last_install_is_not_given_away(
    host: SharedHost, below: str
) -> None:
    """From one Install to the next, the user has all the time that it takes."""
    host.www.rmdir()
    install(host.request({"app/a": "1", "app/sub/a": "1"}, GIVEN, durable=False))
    gone = host.www / below
    secret = with_inode_of(gone)
    (secret / "secret").rename(secret / "a")
    as_user(lambda: secret.rename(gone))

    failure_of(lambda: install(host.request({"app/a": "2", "app/sub/a": "2"}, GIVEN, durable=False)))

    status = gone.stat()
    assert (gone / "a").read_text() == "root's"
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, SECRET_MODE)
