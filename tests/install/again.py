"""The same revision installed again and again: whether Install knows that there is nothing to do, and what it leaves."""

from __future__ import annotations

import os
import re
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from agent.install import install, plan_install
from agent.install.compare.survey import Survey
from agent.listings import clock_ns
from tests.install.host import FILES
from tests.install.trees import read_tree

if TYPE_CHECKING:
    from pathlib import Path

    from agent.install import InstallRequest, InstallSummary
    from tests.install.host import Host

TREE: dict[str, Any] = {
    "app/a": "content of a",
    "app/empty": "",
    "app/link": {"link": "a"},
    "app/sub/b": {"content": "b", "mode": 0o600},
    "app/sub/deep/odd name\n%41": "c",
    "app/sub/deep/\udcff": "d",
    "app/hollow/": None,
}
FILE_COUNT = 6
_STATE = re.compile(rb"^d c [-0-9 ]+ ", re.MULTILINE)
_HEADER = re.compile(rb"^(install-manifest 6 \S+) \S+ (\S+) \S+ ")
_PATIENCE_S = 10


def let_the_clock_tick(root: Path) -> None:
    """Afterwards whatever changes in these directories has another time than what has changed so far."""
    end = time.monotonic() + _PATIENCE_S
    for directory, _directories, _names in os.walk(os.fsencode(root)):
        while clock_ns() <= os.lstat(directory).st_ctime_ns:
            assert time.monotonic() < end, f"{directory!r} counts whole seconds, or the clock stands still"
            time.sleep(0.001)


def install_until_known(host: Host, tree: dict[str, Any], appspec: str = FILES, **rest: Any) -> None:
    """Afterwards it is installed, and the states of all directories that Install has created are recorded."""
    host.install(tree, appspec, durable=False, **rest)
    let_the_clock_tick(host.dest)
    install_by_a_plan(host, host.request(tree, appspec, durable=False, **rest))


def forget_states(host: Host) -> None:
    """Let the manifest be one of an Install that was so quick that it could not tell the states of directories."""
    path = host.instructions / f"{host.group_id}-manifest"
    path.write_bytes(_STATE.sub(b"d c - ", path.read_bytes()))


def is_repetition(request: InstallRequest) -> bool:
    """Whether Install would know at once that there is nothing to do."""
    with closing(Survey(request.options.processes)) as survey:
        plan = plan_install(request, survey=survey)
        return plan.repetition is not None and not plan.steps


def forget_what_was_asked(host: Host) -> None:
    """Let the next Install plan everything, as if the last one had not said what it was asked for."""
    path = host.instructions / f"{host.group_id}-manifest"
    header, end, rest = path.read_bytes().partition(b"\n")
    fields = header.split(b" ")
    fields[6] = b"-"
    path.write_bytes(b" ".join(fields) + end + rest)


def install_by_a_plan(host: Host, request: InstallRequest) -> None:
    """Install it by a plan of everything."""
    forget_what_was_asked(host)
    install(request)


def records_without_states(host: Host) -> dict[str, bytes]:
    """The records, but for states: of two Installs, one may know some of directories that the other doesn't."""
    records = {name: _STATE.sub(b"d c ", content) for name, content in host.records().items()}
    return {name: _HEADER.sub(rb"\1 \2 ", content) for name, content in records.items()}


def times_of_change(root: Path) -> dict[str, tuple[int, int]]:
    """Name → inode and time of the last change of whatever is there; the same as long as nobody touches it."""
    paths = [os.fsencode(root)]
    for directory, directories, names in os.walk(os.fsencode(root)):
        paths += [os.path.join(directory, name) for name in directories + names]
    statuses = {os.fsdecode(path): os.lstat(path) for path in paths}
    return {path: (status.st_ino, status.st_ctime_ns) for path, status in statuses.items()}


def again(host: Host, **rest: Any) -> InstallRequest:
    """The same revision in another deployment."""
    return host.request(TREE, durable=False, **rest)


def nothing_done(summary: InstallSummary) -> bool:
    """Whether an Install has only looked."""
    done = (summary.created, summary.replaced, summary.removed, summary.retained, summary.directories_created)
    return (0,) * 5 == done and () == summary.left_behind


def read_tree_of(tree: dict[str, Any], host: Host) -> dict[str, Any]:
    """What this revision looks like when it is installed."""
    return read_tree(host.request(tree).archive / "app")
