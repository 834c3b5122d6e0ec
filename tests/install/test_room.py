"""What the message about a full disk says is needed."""

from __future__ import annotations

import re
from array import array
from typing import TYPE_CHECKING

from agent.install import plan_install
from agent.install.apply.disk_full import no_room_failure
from agent.install.compare.findings import Findings, PendingNames
from agent.install.model.steps import PlannedFiles

if TYPE_CHECKING:
    from tests.install.host import Host


def needed(message: str) -> str:
    """What the message says about that."""
    found = re.search(r"needs (.* inodes); free", message)
    assert found is not None
    return found[1]


def test_files_that_stay_need_no_room(host: Host) -> None:
    """Of a large revision in which one file has changed, only that one is written; whoever makes room has to know."""
    host.install({"app/large": "x" * 5000, "app/small": "1"})
    plan = plan_install(host.request({"app/large": "x" * 5000, "app/small": "two"}))
    files = next(step for step in plan.steps if isinstance(step, PlannedFiles))
    pending = PendingNames(array("Q", bytes(8 * len(files.names))))
    pending.add(files.names.index(b"small"), 0)
    findings = [Findings([b""] * len(files.names), pending)]

    assert "3 bytes and 1 inodes" == needed(no_room_failure(plan, str(host.dest), findings).message)
    assert "5003 bytes and 2 inodes" == needed(no_room_failure(plan, str(host.dest)).message)


def test_names_of_one_file_need_its_room_once(host: Host) -> None:
    """They are hard links again at the destination."""
    plan = plan_install(host.request({"app/a": "12345", "app/b": {"same_as": "app/a"}}))

    # Two directories and one file.
    assert "5 bytes and 3 inodes" == needed(no_room_failure(plan, str(host.base)).message)
