"""What an Install that is not possible tells programs: every conflict as a value."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

import pytest

from agent.install import Conflict, InstallConflicts, plan_install
from agent.install.plan.rule import Cause, rule_of
from agent.protocol import FileExistsBehavior
from tests.install.host import FILES

if TYPE_CHECKING:
    from agent.install import InstallRequest
    from tests.install.host import Host


def conflicts_of(request: InstallRequest) -> InstallConflicts:
    with pytest.raises(InstallConflicts) as caught:
        plan_install(request)
    return caught.value


def test_each_conflict_has_all_that_is_known_about_it(host: Host) -> None:
    """So that nobody has to look a second time, when it may be different."""
    host.write({"app/a": "theirs"})
    os.utime(host.dest / "app/a", (0, 86400))
    host.instructions.mkdir(parents=True)
    (host.instructions / "other-group-cleanup").write_text(f"{host.dest}/app/a\n")
    failure = conflicts_of(host.request({"app/a": "1"}))
    expected = Conflict(
        path=os.fsencode(host.dest / "app/a"),
        reason="a file that is there already",
        owner=pwd.getpwuid(os.geteuid()).pw_name,
        modified_at=86400.0,
        installed_by="other-group",
        cause=Cause.RULE,
    )
    assert (expected,) == failure.conflicts
    assert FileExistsBehavior.DISALLOW is failure.rule.behavior
    assert not failure.rule.is_of_appspec


def test_all_conflicts_are_there_though_the_message_names_twenty(host: Host) -> None:
    """A message has to fit into a report; a list has not."""
    names = [f"app/{number:02}" for number in range(45)]
    host.write(dict.fromkeys(names, "theirs"))
    failure = conflicts_of(host.request(dict.fromkeys(names, "ours")))
    assert [os.fsencode(host.dest / name) for name in names] == [
        conflict.path for conflict in failure.conflicts
    ]
    assert "; and 25 more (see the agent's log)." in failure.message
    assert 20 == failure.message.count("a file that is there already")
    assert "install-conflicts" == failure.error_id


@pytest.mark.parametrize(
    ("appspec", "behavior", "expected"),
    [
        (
            "",
            FileExistsBehavior.DISALLOW,
            "default (neither the AppSpec nor the deployment asks for another)",
        ),
        ("", FileExistsBehavior.RETAIN, "the deployment"),
        ("file_exists_behavior: DISALLOW\n", FileExistsBehavior.OVERWRITE, "the AppSpec"),
    ],
)
def test_it_is_said_who_made_the_rule(
    host: Host, appspec: str, behavior: FileExistsBehavior, expected: str
) -> None:
    """Whoever wants another rule has to know where."""
    assert expected == rule_of(host.request({"app/a": "1"}, appspec + FILES, behavior=behavior)).set_by


def test_two_groups_in_one_place_are_told_to_part(host: Host) -> None:
    """To remove what another group has installed, as is right for a leftover, would break that application."""
    host.write({"app/a": "theirs", "app/b": "somebody's"})
    host.instructions.mkdir(parents=True)
    (host.instructions / "other-group-cleanup").write_text(f"{host.dest}/app/a\n")
    one = conflicts_of(host.request({"app/a": "1"})).message
    two = conflicts_of(host.request({"app/a": "1", "app/b": "2"})).message
    assert "give the groups different destinations" in one
    assert "Remove or move it, or deploy" in one
    assert "Remove or move them, or deploy" in two


def test_a_leftover_has_no_advice_on_groups(host: Host) -> None:
    """There is none but this one."""
    host.write({"app/a": "somebody's"})
    assert "groups" not in conflicts_of(host.request({"app/a": "1"})).message
