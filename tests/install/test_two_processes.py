"""Two processes share an Install: the result is that of one, and the end of the second one is no end of the promise."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from tests.install.again import let_the_clock_tick, records_without_states
from tests.install.children import in_child
from tests.install.host import failure_of

if TYPE_CHECKING:
    from agent.install import InstallRequest, InstallSummary
    from agent.install.model.moments import Observer
    from tests.install.host import Host

OLD: dict[str, Any] = {f"app/directory-{number % 60}/file-{number}": "old" for number in range(1200)}
NEW: dict[str, Any] = {
    **dict.fromkeys(OLD, "new"),
    **{f"app/deep/{number % 7}/{number % 11}/{number % 13}/file-{number}": "n" for number in range(900)},
    "app/deep/0/hollow/": None,
    "app/deep/0/one": "1",
    "app/deep/1/two": {"same_as": "app/deep/0/one"},
    "app/directory-0/three": {"same_as": "app/deep/0/one"},
    "app/directory-1/link": {"link": "file-1"},
    "app/directory-2/file-2": {"content": "new", "mode": 0o4755},
}
del NEW["app/directory-3/file-3"]


def outcome(host: Host, summary: InstallSummary) -> Any:
    """All that must be the same however many processes there were, without inodes and names of archives."""
    records = records_without_states(host)
    cleanup = records[f"{host.group_id}-cleanup"]
    return host.tree(), cleanup, summary, host.leftovers()


def test_two_processes_make_what_one_makes(host: Host) -> None:
    """New directories are made by both, and files with several names are in the parts of both."""
    outcomes = []
    for processes in (1, 2):
        host.install(OLD, durable=False)
        summary = host.install(NEW, processes=processes, durable=False)
        outcomes.append(outcome(host, summary))
        assert (host.dest / "app/deep/0/one").stat().st_ino == (
            host.dest / "app/directory-0/three"
        ).stat().st_ino
        assert 3 == (host.dest / "app/deep/1/two").stat().st_nlink

    assert outcomes[0] == outcomes[1]
    assert (900 + 4, 1199, 1) == (
        outcomes[0][2].created,
        outcomes[0][2].replaced,
        outcomes[0][2].removed,
    )


def test_what_two_processes_have_made_is_known_to_the_next_install(host: Host) -> None:
    """A state that only the second process had seen would be looked at again for ever."""
    host.dest.mkdir()
    host.install(NEW, processes=2, durable=False)
    let_the_clock_tick(host.dest)
    host.install({**NEW, "app/more": "m"}, processes=2, durable=False)

    manifest = (host.instructions / f"{host.group_id}-manifest").read_bytes()

    directories = [line for line in manifest.splitlines() if line.startswith(b"d c ")]
    unknown = [line for line in directories if line.startswith(b"d c -")]
    assert len(directories) > 700
    assert [] == [line for line in unknown if not line.endswith(b"/app")]


def killing(kind: Moment) -> Observer:
    """The second process is killed when it is at a step of this kind for the tenth time."""
    first, count = os.getpid(), 0

    def observe(seen: Moment, _path: bytes) -> None:
        nonlocal count
        if seen == kind and os.getpid() != first:
            count += 1
            if count == 10:
                os.kill(os.getpid(), signal.SIGKILL)

    return observe


@pytest.mark.parametrize("kind", [Moment.MKDIR, Moment.COPY, Moment.RENAME])
def test_a_second_process_that_is_killed_before_it_counts_leaves_the_old_revision(
    host: Host, kind: Moment
) -> None:
    """The kernel takes one of the two when memory is short."""
    host.install(OLD)
    request, before = host.request(NEW, processes=2), host.everything()

    error_id, message = in_child(lambda: failure_in(request, kind))

    assert "install-failed" == error_id
    assert "the second process of this Install was killed" in message
    assert (before, []) == (host.everything(), host.leftovers())


def failure_in(request: InstallRequest, kind: Moment) -> tuple[str, str]:
    """What an Install says of which the second process is killed at such a step."""
    failure = failure_of(lambda: install(request, observer=killing(kind)))
    assert failure is not None
    return failure.error_id, failure.message


def test_a_second_process_that_is_killed_while_it_cleans_up_leaves_the_new_revision(host: Host) -> None:
    """The Install has taken effect by then; the first process removes what is left."""
    host.install(OLD)
    request = host.request(NEW, processes=2)

    summary = in_child(lambda: install(request, observer=killing(Moment.REMOVE_HIDDEN)))

    assert 1199 == summary.replaced
    assert {"new"} == {(host.dest / name).read_text() for name in OLD if name in NEW}
    assert [] == host.leftovers()
