"""Files that vanish from the archive: a revision with less in it than was delivered is not reported as installed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from tests.install.host import failure_of, logged_by

if TYPE_CHECKING:
    from tests.install.host import Host

OLD: dict[str, Any] = {"app/a": "old", "app/sub/b": "old", "app/keep": "k"}
NEW: dict[str, Any] = {"app/a": "new", "app/sub/b": "new", "app/sub/link": {"link": "b"}, "other/c": "c"}


@pytest.mark.parametrize("kept", ["nothing", "directories"])
def test_a_source_that_was_emptied_since_it_was_unpacked_is_refused(host: Host, kept: str) -> None:
    """A script that tidied up would take the application away, and the deployment would have succeeded."""
    host.install(OLD, durable=False)
    before = host.everything()
    request = host.request(NEW, durable=False)
    for path in (request.archive / "app").rglob("*"):
        if not path.is_dir() or path.is_symlink():
            path.unlink()
    if kept == "nothing":
        (request.archive / "app/sub").rmdir()
    failure = failure_of(lambda: install(request))
    assert failure is not None
    assert "install-source-invalid" == failure.error_id
    assert "source 'app' (AppSpec line 3) holds no files any more" in failure.message
    assert "when the revision was unpacked, it held 3" in failure.message
    assert before == host.everything()


def test_a_source_that_has_gone_since_it_was_unpacked_is_told_from_a_wrong_name(host: Host) -> None:
    """The AppSpec is right; who removed it has to be found."""
    request = host.request(NEW, durable=False)
    shutil.rmtree(request.archive / "app")
    failure = failure_of(lambda: install(request))
    assert failure is not None
    assert "is not in the archive" in failure.message
    assert "It was there when the revision was unpacked" in failure.message
    other = failure_of(lambda: host.install(NEW, "files: [{source: ap, destination: '@DEST@'}]"))
    assert other is not None
    assert "when the revision was unpacked" not in other.message


@pytest.mark.parametrize("is_indexed", [True, False], ids=["index", "no index"])
def test_an_empty_directory_may_be_a_source(host: Host, is_indexed: bool) -> None:  # noqa: FBT001
    """The application fills it."""
    host.install({"app/sub/": None}, is_indexed=is_indexed, durable=False)
    assert {"app/": None, "app/sub/": None} == host.tree()


def test_a_script_may_leave_a_part_of_a_source(host: Host) -> None:
    """Scripts before Install prepare what is installed, and throw away what this host doesn't need."""
    request = host.request(NEW, durable=False)
    (request.archive / "app/a").unlink()
    log = logged_by(lambda: install(request), host.base)
    assert "archive_lacks_files" in log
    assert "first=a" in log
    assert {"app/": None, "app/sub/": None, "app/sub/b": "new", "app/sub/link": {"link": "b"}} == host.tree()


@pytest.mark.parametrize("name", ["app/a", "app/sub/b", "app/sub/link", "app/sub"])
@pytest.mark.parametrize("when", [Moment.JOURNAL, Moment.INSTALL_JSON])
def test_what_vanishes_while_it_is_installed_puts_everything_back(
    host: Host, name: str, when: Moment
) -> None:
    """Planned once more, it would only be left out, and nobody would miss it before the application does."""
    host.install(OLD, durable=False)
    before = host.everything()
    request = host.request(NEW, durable=False)

    def remove(kind: Moment, _path: bytes) -> None:
        place = request.archive / name
        if kind == when:
            shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink(
                missing_ok=True
            )

    failure = failure_of(lambda: install(request, observer=remove))
    assert failure is not None
    assert "install-failed" == failure.error_id
    assert "has been removed from the deployment archive since this Install began" in failure.message
    assert before == host.everything()
    assert [] == host.leftovers()
