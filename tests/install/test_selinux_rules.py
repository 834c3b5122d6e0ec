"""Rules of the SELinux policy, when an Install fails, and when somebody else has changed them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from agent.install import install
from agent.install.attributes import selinux
from agent.install.model.moments import Moment
from agent.protocol import FileExistsBehavior
from tests.install.children import ended, start
from tests.install.host import FILES, Host, failure_of
from tests.install.observers import at_step, failing_at, killed_at
from tests.install.selinux_policy import Policy

if TYPE_CHECKING:
    from pathlib import Path

    from agent.install.model.moments import Observer

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


@pytest.fixture
def kernel(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """SELinux is on, as far as Install can see."""
    directory = host.base / "kernel"
    directory.mkdir()
    (directory / "mls").write_text("1")
    monkeypatch.setattr(selinux, "_KERNEL", directory)


def label_of(path: Path) -> bytes:
    """What the kernel has taken."""
    return os.getxattr(path, "security.selinux", follow_symlinks=False)


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away, and labels")


@as_root
@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("whose", ["root's", "a user's"])
def test_the_file_itself_is_labelled_and_not_what_is_at_its_path(
    host: Host, policy: Policy, whose: str
) -> None:
    """A user could put a link in its place, and restorecon would label a file of root's."""
    host.dest.mkdir()
    if whose == "a user's":
        os.chown(host.dest, 64_321, 64_321)

    host.install(OLD, OLD_RULES, durable=False)

    assert label_of(host.dest / "app/a") == b"system_u:object_r:httpd_t:s0\0"
    assert {"a", "b"} == set(policy.rules())


@as_root
@pytest.mark.usefixtures("kernel", "policy")
def test_what_is_behind_a_link_that_is_exchanged_meanwhile_is_not_labelled(host: Host) -> None:
    """Where links of others are followed, they decide where something is installed, once, and nothing else."""
    link, other = host.dest / "app", host.base / "other"
    (host.dest / "real").mkdir(parents=True)
    other.mkdir()
    (other / "a").write_text("root's")
    link.symlink_to("real")
    os.chown(link, 64_321, 64_321, follow_symlinks=False)

    def exchange() -> None:
        link.unlink()
        link.symlink_to(other)

    host.install(
        OLD,
        OLD_RULES,
        observer=at_step(Moment.LABEL, exchange),
        durable=False,
        follow_links_of_others=[str(link)],
    )

    assert label_of(host.dest / "real/a") == b"system_u:object_r:httpd_t:s0\0"
    with pytest.raises(OSError, match="No data available"):
        label_of(other / "a")


def of_another_group(host: Host) -> Host:
    """A second deployment group on the same host."""
    other = Host(host.base)
    other.group_id = "99999999-2222-3333-4444-555555555555"
    return other


def test_a_rule_stays_that_another_group_has_too(host: Host, policy: Policy) -> None:
    """Two groups install one file, and want the same of it; what one wants no more, the other one still does."""
    other = of_another_group(host)
    host.install(OLD, OLD_RULES, durable=False)
    other.install(OLD, OLD_RULES, behavior=FileExistsBehavior.OVERWRITE, durable=False)
    before = policy.rules()

    host.install(OLD, appspec(b="web_t"), behavior=FileExistsBehavior.OVERWRITE, durable=False)
    assert before == policy.rules()

    other.install(OLD, FILES, behavior=FileExistsBehavior.OVERWRITE, durable=False)
    assert ["b"] == list(policy.rules())


def test_a_rule_of_another_group_is_what_it_was_after_an_install_that_fails(
    host: Host, policy: Policy
) -> None:
    """The group that fails had none there, and must not drop, or change, that of the other one."""
    host.install(OLD, OLD_RULES, durable=False)
    before = policy.rules()
    request = of_another_group(host).request(
        NEW, appspec(a="other_t", c="new_t"), behavior=FileExistsBehavior.OVERWRITE, durable=False
    )

    assert failure_of(lambda: install(request, observer=failing_at(Moment.COMMIT))) is not None

    assert before == policy.rules()


def test_a_rule_stays_that_another_group_is_about_to_give(host: Host, policy: Policy) -> None:
    """That group has no records of it before it has succeeded."""
    other = of_another_group(host)
    host.install({"app/a": "1"}, appspec(a="httpd_t"), durable=False)
    request = other.request(
        {"app/a": "1"}, appspec(a="web_t"), behavior=FileExistsBehavior.OVERWRITE, durable=False
    )
    host_request = host.request({"srv/x": "x"}, FILES.replace("app", "srv"), durable=False)

    install(request, observer=at_step(Moment.MANIFEST, lambda: install(host_request)))

    assert ["a"] == list(policy.rules())
