"""Install one revision, then another, then nothing: what was there before is there again."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agent.install import install, plan_install
from agent.protocol import FileExistsBehavior
from tests.install.host import FILES, Host, failure_of

NAMES = st.sampled_from(["a", "b", "c d", "e\nf", "ü", "%41", " g "])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
CONTENTS = st.one_of(
    st.sampled_from(["", "x", "y"]),
    st.builds(lambda mode: {"content": "m", "mode": mode}, st.sampled_from([0o600, 0o755, 0o4755])),
    st.builds(lambda target: {"link": target}, st.sampled_from(["a", "b/a", "nowhere"])),
)


def without_clashes(tree: dict[str, Any]) -> dict[str, Any]:
    """Leave out what lies below another entry: a file has nothing inside."""
    return {
        f"app/{path}": value
        for path, value in tree.items()
        if not any(path.startswith(other + "/") for other in tree)
    }


REVISIONS = st.dictionaries(PATHS, CONTENTS, max_size=8).map(without_clashes)
FOREIGN = st.dictionaries(PATHS, st.sampled_from(["foreign", "mine"]), max_size=3).map(without_clashes)


def several(examples: int) -> settings:
    """So many examples, each on a host of its own."""
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # looking for a smaller example would take minutes
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@several(150)
@given(first=REVISIONS, second=REVISIONS, beside=FOREIGN)
def test_revisions_come_and_go_and_leave_nothing(place: Path, first: Any, second: Any, beside: Any) -> None:
    """Whatever two revisions hold, the second replaces the first, and an empty one removes it."""
    with tempfile.TemporaryDirectory(dir=place) as directory:
        fresh = Host(Path(directory))
        fresh.write({f"beside/{name}": content for name, content in beside.items()})
        before = fresh.tree()
        for revision in (first, second, second):
            fresh.install({"app/": None, **revision}, durable=False)
            installed = {
                name: value
                for name, value in fresh.tree().items()
                if name.startswith("app/") and not name.endswith("/")
            }
            assert revision == installed
        fresh.install({}, "", durable=False)
        assert before == fresh.tree()
        assert [] == fresh.leftovers()


def appspec_for(modes: tuple[int, int], acls: str) -> str:
    """Permissions for files and for directories."""
    return (
        f"{FILES}\npermissions:\n"
        f"  - {{object: '@DEST@/app', type: [file], mode: '{modes[0]:o}'{acls}}}\n"
        f"  - {{object: '@DEST@/app', type: [directory], mode: '{modes[1]:o}'{acls}}}\n"
    )


APPSPECS = st.builds(
    appspec_for,
    st.sampled_from([(0o644, 0o755), (0o600, 0o700), (0o4711, 0o2750)]),
    st.sampled_from(["", ", acls: ['u:nobody:rx']"]),
)
FOREIGN_FILES = st.dictionaries(
    st.sampled_from(["app/a", "app/b/theirs", "app/theirs", "beside/x", "top"]),
    st.sampled_from(["x", {"content": "foreign", "mode": 0o640}, {"link": "nowhere"}]),
    max_size=3,
)
OVERWRITE = FileExistsBehavior.OVERWRITE


class Revisions:
    """Two revisions on a host of their own, with files of somebody else's between them."""

    def __init__(self, base: Path, first: Any, second: Any, foreign: Any) -> None:
        self.host = Host(base)
        (old, old_appspec), (new, new_appspec) = first, second
        self.first = self.host.request({"app/": None, **old}, old_appspec, behavior=OVERWRITE, durable=False)
        self.second = self.host.request({"app/": None, **new}, new_appspec, behavior=OVERWRITE, durable=False)
        self.nothing = self.host.request({}, "", durable=False)
        self.foreign = foreign

    def begin(self) -> None:
        """Afterwards the first is installed, with the files of others beside it where there is room."""
        install(self.first)
        for name, value in self.foreign.items():
            path = self.host.dest / name
            taken = [path, *path.parents]
            if not any(os.path.lexists(place) and (place == path or not place.is_dir()) for place in taken):
                self.host.write({name: value})

    def everything(self) -> Any:
        """All that an undo has to bring back."""
        return self.host.everything(), self.host.records()

    def clear(self) -> None:
        """Afterwards there is nothing at all."""
        install(self.nothing)
        shutil.rmtree(self.host.dest, ignore_errors=True)


def no_conflict(revisions: Revisions) -> bool:
    """Whether the second revision can be installed over what is there."""
    failure = failure_of(lambda: plan_install(revisions.second))
    assert failure is None or failure.error_id == "install-conflicts"
    return failure is None


@several(40)
@given(first=st.tuples(REVISIONS, APPSPECS), second=st.tuples(REVISIONS, APPSPECS), foreign=FOREIGN_FILES)
def test_a_failure_at_every_step_and_then_in_the_undo_restores_every_tree(
    place: Path, first: Any, second: Any, foreign: Any
) -> None:
    """Whatever the revisions are, and wherever the disk fails: content, modes, times, lists, links come back."""
    with tempfile.TemporaryDirectory(dir=place) as directory:
        revisions = Revisions(Path(directory), first, second, foreign)
        revisions.begin()
        step = 1
        while no_conflict(revisions):
            before = revisions.everything()
            if not fails_at(revisions, step, before):
                break
            step += 1
        revisions.clear()


def fails_at(revisions: Revisions, step: int, before: Any) -> bool:
    """Let the Install fail at this step, and the undo soon after. Whether it could be undone."""
    for later in (0, 1 + step % 4, 5 + step % 11):
        count = 0

        def observe(*_: object, later: int = later) -> None:
            nonlocal count
            count += 1
            if count == step or (later and count == step + later):
                raise OSError(errno.EIO, "a made-up error")

        failure = failure_of(partial(install, revisions.second, observer=observe))
        if failure is None or failure.error_id == "install-not-completed":
            return False
        assert failure.error_id in {"install-failed", "install-undo-incomplete"}
        revisions.host.recover()
        assert before == revisions.everything(), (step, later)
    return True


@several(60)
@given(
    first=st.tuples(REVISIONS, APPSPECS),
    second=st.tuples(REVISIONS, APPSPECS),
    foreign=st.dictionaries(
        st.sampled_from(["app/theirs", "beside/x", "app/a/theirs", "top"]),
        st.sampled_from(
            ["x", {"content": "foreign", "mode": 0o640, "mtime_ns": 10**18}, {"link": "nowhere"}]
        ),
        min_size=1,
    ),
)
def test_what_was_there_before_two_revisions_is_there_after_them(
    place: Path, first: Any, second: Any, foreign: Any
) -> None:
    """Modes, owners, times, lists and links of somebody else's files, whatever is installed among them."""
    with tempfile.TemporaryDirectory(dir=place) as directory:
        host = Host(Path(directory))
        host.write(foreign)
        delivered = {name: found.as_delivered() for name, found in host.everything().items()}
        for tree, appspec in (first, second, first):
            request = host.request({"app/": None, **tree}, appspec, durable=False)
            failure = failure_of(partial(install, request))
            assert failure is None or failure.error_id == "install-conflicts"
        host.install({}, "", durable=False)

        assert delivered == {name: found.as_delivered() for name, found in host.everything().items()}
        assert [] == host.leftovers()


@several(60)
@given(first=REVISIONS, second=REVISIONS)
def test_a_plan_changes_nothing_and_comes_true(place: Path, first: Any, second: Any) -> None:
    """Operators look at the plan first, and decide by it."""
    with tempfile.TemporaryDirectory(dir=place) as directory:
        host = Host(Path(directory))
        host.install({"app/": None, **first}, durable=False)
        request = host.request({"app/": None, **second}, durable=False)
        before = (host.everything(), host.records())

        plan = plan_install(request)

        assert before == (host.everything(), host.records())
        summary = install(request)
        files = {name for name in host.tree() if not name.endswith("/")}
        assert set(second) == files
        assert summary.removed <= len(set(first) - set(second))
        assert plan.removals or not summary.removed
        assert len(second) == summary.created + summary.replaced + summary.unchanged
