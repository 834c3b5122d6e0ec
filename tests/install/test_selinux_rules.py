"""Rules of the SELinux policy, when an Install fails, and when somebody else has changed them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from agent.install import install
from agent.install.attributes import selinux
from agent.install.model.moments import Moment
from tests.install.children import ended, start
from tests.install.host import FILES, failure_of
from tests.install.observers import failing_at, killed_at
from tests.install.selinux_policy import Policy

if TYPE_CHECKING:
    from agent.install.model.moments import Observer
    from tests.install.host import Host

STEPS = [Moment.SWITCH, Moment.RENAME, Moment.LABEL, Moment.MANIFEST, Moment.COMMIT]


@pytest.fixture
def policy(host: Host, monkeypatch: pytest.MonkeyPatch) -> Policy:
    """A host that has SELinux, as far as Install can see."""
    made = Policy(host.base)
    monkeypatch.setenv("PATH", f"{made.programs}:{os.environ['PATH']}")
    return made


def appspec(**types: str) -> str:
    """Each of these files gets a label."""
    entries = "".join(
        f"\n  - {{object: '@DEST@/app/{name}', context: {{type: {kind}, range: s0}}}}"
        for name, kind in types.items()
    )
    return f"{FILES}\npermissions:{entries}"


OLD, NEW = {"app/a": "1", "app/b": "1"}, {"app/a": "2", "app/b": "2", "app/c": "2"}
OLD_RULES = appspec(a="httpd_t", b="web_t")
REVISIONS = [
    pytest.param(appspec(a="other_t", c="new_t"), id="another type, one new, one gone"),
    pytest.param(appspec(a="httpd_t", b="web_t"), id="the same"),
    pytest.param(FILES, id="none"),
]


@pytest.mark.parametrize("new_rules", REVISIONS)
@pytest.mark.parametrize("step", STEPS)
def test_after_a_failed_install_the_rules_are_what_they_were(
    host: Host, policy: Policy, new_rules: str, step: Moment
) -> None:
    """The next restorecon, perhaps weeks later, would relabel the old revision, and the web server gets no file."""
    host.install(OLD, OLD_RULES)
    before = policy.rules()
    assert ["a", "b"] == list(before)

    failure = failure_of(lambda: host.install(NEW, new_rules, observer=failing_at(step)))

    assert (failure is None) == (step == Moment.LABEL and new_rules == FILES)
    if failure is not None:
        assert before == policy.rules()


@pytest.mark.parametrize(
    "observer", [killed_at(Moment.LABEL), killed_at(Moment.LABEL, 2), killed_at(Moment.COMMIT)]
)
def test_after_a_kill_the_rules_are_what_they_were(host: Host, policy: Policy, observer: Observer) -> None:
    """The recovery has to know what they were: nobody else does."""
    host.install(OLD, OLD_RULES)
    before = policy.rules()
    request = host.request(NEW, appspec(a="other_t", c="new_t"))
    assert ended(start(lambda: install(request, observer=observer)))

    assert host.recover()

    assert before == policy.rules()


def test_a_first_install_that_fails_leaves_no_rule(host: Host, policy: Policy) -> None:
    """A rule that nobody removes relabels whatever has that name years later."""
    assert failure_of(lambda: host.install(OLD, OLD_RULES, observer=failing_at(Moment.MANIFEST))) is not None

    assert {} == policy.rules()


def test_after_an_undo_the_same_revision_can_be_installed(host: Host, policy: Policy) -> None:
    """Adding a rule that is there fails, and so does changing one that is not."""
    host.install(OLD, OLD_RULES)
    new_rules = appspec(a="other_t", c="new_t")
    assert failure_of(lambda: host.install(NEW, new_rules, observer=failing_at(Moment.MANIFEST))) is not None

    host.install(NEW, new_rules)

    assert ["a", "c"] == list(policy.rules())
    assert "-t other_t -r s0" in policy.rules()["a"]


def test_a_rule_that_somebody_has_removed_is_added_again(host: Host, policy: Policy) -> None:
    """An operator who cleans up the policy must not stop the next deployment."""
    host.install(OLD, OLD_RULES)
    before = policy.rules()
    policy.remove_by_hand("a")

    host.install(NEW, OLD_RULES)

    assert before == policy.rules()


def test_a_rule_that_somebody_has_added_is_changed(host: Host, policy: Policy) -> None:
    """The operator tried the label by hand before it came into the AppSpec."""
    policy.set_by_hand("a", "-t tried_t")

    host.install(OLD, OLD_RULES)

    assert "-t httpd_t -r s0" in policy.rules()["a"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away, and labels")
@pytest.mark.parametrize("whose", ["root's", "a user's"])
def test_in_a_users_directory_the_file_itself_is_labelled_and_not_what_is_at_its_path(
    host: Host, policy: Policy, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """The user could put a link in its place, and restorecon would label a file of root's."""
    kernel = host.base / "kernel"
    kernel.mkdir()
    (kernel / "mls").write_text("1")
    monkeypatch.setattr(selinux, "_KERNEL", kernel)
    (policy.programs / "restorecon").write_text(f'#!/bin/sh\necho "$@" >> {host.base}/restored\n')
    host.dest.mkdir()
    if whose == "a user's":
        os.chown(host.dest, 64_321, 64_321)
    host.install(OLD, OLD_RULES, durable=False)
    a = host.dest / "app/a"
    if whose == "a user's":
        assert b"system_u:object_r:httpd_t:s0\0" == os.getxattr(a, "security.selinux")
        assert not (host.base / "restored").exists()
    else:
        assert f"-vF -- {a}" in (host.base / "restored").read_text()
        with pytest.raises(OSError, match="No data available"):
            os.getxattr(a, "security.selinux")
    assert {"a", "b"} == set(policy.rules())
