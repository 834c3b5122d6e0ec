"""Another agent has taken over the host since an Install of ours was interrupted."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from agent.install import install
from agent.install.model.moments import Moment
from tests.install.children import ended, start
from tests.install.host import logged_by
from tests.install.observers import at_step, both, killed_at

if TYPE_CHECKING:
    from tests.install.host import Host

OLD = {"app/a": "rev1", "app/gone": "rev1", "app/sub/x": "rev1"}
NEW: dict[str, Any] = {"app/a": "rev2", "app/new": "rev2", "app/sub/x": "rev2", "app/other/y": "rev2"}
THEIRS = {"app/a": "rev3 of the other agent", "app/gone": "rev3 of the other agent"}

BEFORE_COMMIT = [Moment.COPY, Moment.SWITCH, Moment.RENAME, Moment.MANIFEST, Moment.COMMIT]
AFTER_COMMIT = [Moment.PUBLISH, Moment.REMOVE_HIDDEN, Moment.REMOVE]


def install_like_another_agent(host: Host, tree: dict[str, str]) -> None:
    """Remove what its records list, newest first, copy, and list that."""
    cleanup = host.instructions / f"{host.group_id}-cleanup"
    for path in reversed(cleanup.read_text().splitlines()):
        if os.path.isdir(path) and not os.listdir(path):
            os.rmdir(path)
        elif os.path.isfile(path):
            os.unlink(path)
    host.write(tree)
    copies = [{"type": "copy", "source": "…", "destination": str(host.dest / name)} for name in sorted(tree)]
    cleanup.write_text("".join(f"{copy['destination']}\n" for copy in copies))
    (host.instructions / f"{host.group_id}-install.json").write_text(json.dumps({"instructions": copies}))


@pytest.mark.parametrize("step", [*BEFORE_COMMIT, *AFTER_COMMIT])
def test_nothing_of_another_agents_revision_is_touched(host: Host, step: Moment) -> None:
    """The start of our agent, weeks later, would bring back a mixture of revisions that nobody has deployed."""
    host.write({"app/own": "o"})
    host.install(OLD)
    request = host.request(NEW)
    assert ended(start(lambda: install(request, observer=killed_at(step, 1))))
    install_like_another_agent(host, THEIRS)
    before, hidden = host.everything(), host.leftovers()

    logged = logged_by(host.recover, host.base)

    after = host.everything()
    expected = {name: found for name, found in before.items() if "/.install-" not in name}
    assert without_times(expected) == without_times(after)
    assert {"rev3 of the other agent"} == {host.tree()[name] for name in THEIRS}
    assert [] == host.leftovers()
    assert hidden
    assert "interrupted_install_overtaken" in logged


def without_times(tree: dict[str, Any]) -> dict[str, Any]:
    """Directories get another time when a hidden name goes."""
    return {name: found.as_delivered()._replace(inode=found.inode) for name, found in tree.items()}


@pytest.mark.parametrize("step", [Moment.COMMIT, Moment.REMOVE])
def test_after_that_a_deployment_by_us_works(host: Host, step: Moment) -> None:
    """The host comes back to our agent, and the other one's revision gives way like any other."""
    host.write({"app/own": "o"})
    host.install(OLD)
    request = host.request(NEW)
    assert ended(start(lambda: install(request, observer=killed_at(step, 1))))
    install_like_another_agent(host, THEIRS)

    host.install({"app/a": "rev4"})

    tree = host.tree()
    assert ("rev4", "o") == (tree["app/a"], tree["app/own"])
    assert "app/gone" not in tree
    assert [] == host.leftovers()


def test_what_an_application_put_into_a_directory_that_gave_way_is_not_lost(host: Host) -> None:
    """It is neither of our revision nor of the other agent's, and it is the only copy."""
    host.write({"app/own": "o"})
    host.install({"app/x/b": "b"})
    request = host.request({"app/x": "a file"})
    write = at_step(Moment.SWITCH, lambda: host.write({"app/x/upload": "a customer's"}))
    assert ended(start(lambda: install(request, observer=both(write, killed_at(Moment.COMMIT)))))
    install_like_another_agent(host, THEIRS)

    host.recover()

    assert "a customer's" in host.tree().values()


@pytest.mark.parametrize("step", [*BEFORE_COMMIT, *AFTER_COMMIT])
def test_records_that_were_only_copied_are_still_ours(host: Host, step: Moment) -> None:
    """The root moved to another disk with all its times: that is no other agent, and the Install is put in order."""
    host.install(OLD)
    request = host.request(NEW)
    assert ended(start(lambda: install(request, observer=killed_at(step, 1))))
    for path in [*host.instructions.iterdir()]:
        copy = path.with_name(path.name + ".copy")
        copy.write_bytes(path.read_bytes())
        status = path.stat()
        os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
        copy.rename(path)

    undone = host.recover()

    assert (step in BEFORE_COMMIT) == undone
    assert ("rev1" if undone else "rev2") == host.tree()["app/a"]
    assert [] == host.leftovers()
