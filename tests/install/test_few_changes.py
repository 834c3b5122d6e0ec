"""I10: a revision of which few files differ: only these are planned, with the outcome that a plan of everything has."""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from dataclasses import asdict
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agent.install import install, plan_install
from agent.install.compare.survey import Survey
from agent.install.model.moments import Moment
from agent.install.model.steps import PlannedFiles
from agent.protocol import FileExistsBehavior
from tests.install.again import (
    FILE_COUNT,
    TREE,
    forget_states,
    forget_what_was_asked,
    install_by_a_plan,
    install_until_known,
    is_repetition,
    let_the_clock_tick,
    records_without_states,
    times_of_change,
)
from tests.install.children import killed_before
from tests.install.host import Host, failure_of
from tests.install.observers import failing_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.install import InstallPlan, InstallRequest


pytestmark = pytest.mark.usefixtures("library")


def plan_of(request: InstallRequest) -> InstallPlan:
    """What Install would do."""
    with closing(Survey(request.options.processes)) as survey:
        return plan_install(request, survey=survey)


def planned_names(request: InstallRequest) -> set[bytes] | None:
    """The files that Install would plan; None if it were all of them."""
    plan = plan_of(request)
    if plan.repetition is None:
        return None
    return {
        step.prefix + name for step in plan.steps if isinstance(step, PlannedFiles) for name in step.names
    }


def paths(host: Host, *names: str) -> set[bytes]:
    return {os.fsencode(host.dest / name) for name in names}


CHANGES: dict[str, dict[str, Any]] = {
    "app/a": {"app/a": "another content"},
    "app/link": {"app/link": {"link": "sub/b"}},
    "app/sub/b": {"app/sub/b": {"content": "b", "mode": 0o640}},
    "app/sub/deep/odd name\n%41": {"app/sub/deep/odd name\n%41": "C"},
    "app/sub/deep/\udcff": {"app/sub/deep/\udcff": ""},
}


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("name", CHANGES)
def test_only_what_differs_is_planned(known: Host, name: str, processes: int) -> None:
    before = times_of_change(known.dest)
    request = known.request({**TREE, **CHANGES[name]}, durable=False, processes=processes)
    assert paths(known, name) == planned_names(request)

    summary = install(request)

    after = times_of_change(known.dest)
    changed = {path for path in after if before.get(path) != after[path]}
    is_adjusted = name == "app/sub/b"  # in place, since only its mode is another
    assert (FILE_COUNT, 0) == (summary.replaced + summary.unchanged, summary.removed)
    assert summary.replaced == (0 if is_adjusted else 1)
    assert known.tree() == read_back(known, {**TREE, **CHANGES[name]})
    assert len(changed) == (1 if is_adjusted else 2), "the file and its directory"
    assert [] == known.leftovers()


def read_back(host: Host, tree: dict[str, Any]) -> dict[str, Any]:
    """What a fresh Install of this tree looks like."""
    with tempfile.TemporaryDirectory(dir=host.base) as directory:
        fresh = Host(Path(directory))
        fresh.install(tree, durable=False)
        return fresh.tree()


def test_the_records_are_those_of_a_plan(known: Host) -> None:
    """The next clean-up, by whichever agent, goes by them."""
    changed = {**TREE, **CHANGES["app/a"], **CHANGES["app/link"]}
    known.install(changed, durable=False)
    let_the_clock_tick(known.dest)
    request = known.request(changed, durable=False)
    assert is_repetition(request)
    install(request)
    records = records_without_states(known)

    install_by_a_plan(known, request)

    assert records == records_without_states(known)


def test_directories_that_have_changed_are_known_again_after_the_next_install(known: Host) -> None:
    """Their names are compared once, and not each time."""
    changed = {**TREE, **CHANGES["app/a"]}
    known.install(changed, durable=False)
    let_the_clock_tick(known.dest)
    first = plan_of(known.request(changed, durable=False)).repetition
    assert first is not None
    assert paths(known, "app") <= first.states.keys()

    known.install(changed, durable=False)

    second = plan_of(known.request(changed, durable=False)).repetition
    assert second is not None
    assert second.states == {}


def test_a_destination_in_a_directory_that_install_has_made_is_repeated_at_once(host: Host) -> None:
    """Nobody has looked at the outer directory since it was made: its names are compared."""
    appspec = "files: [{source: app, destination: '@DEST@/above/www'}]"
    host.install(TREE, appspec, durable=False)
    let_the_clock_tick(host.dest)

    assert is_repetition(host.request(TREE, appspec, durable=False))


def test_a_file_that_somebody_has_edited_is_replaced_and_named(known: Host) -> None:
    (known.dest / "app/a").write_text("edited by hand")
    request = known.request(TREE, durable=False)
    assert paths(known, "app/a") == planned_names(request)

    summary = install(request)

    assert "content of a" == (known.dest / "app/a").read_text()
    assert (1, FILE_COUNT - 1) == (summary.replaced, summary.unchanged)


def test_a_touched_file_is_adjusted_in_place(known: Host) -> None:
    path = known.dest / "app/a"
    inode = path.stat().st_ino
    path.chmod(0o600)
    request = known.request(TREE, durable=False)
    assert paths(known, "app/a") == planned_names(request)

    summary = install(request)

    assert (inode, 0o644, FILE_COUNT) == (path.stat().st_ino, path.stat().st_mode & 0o777, summary.unchanged)


def _as_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("sub")


def _as_file(path: Path) -> None:
    path.unlink()
    path.write_text("no link any more")


@pytest.mark.parametrize(
    ("name", "edit"), [("app/a", _as_link), ("app/sub/b", _as_link), ("app/link", _as_file)]
)
def test_a_script_has_put_a_link_for_a_file_or_a_file_for_a_link_into_the_last_archive(
    known: Host, name: str, edit: Callable[[Path], None]
) -> None:
    """The last Install was asked for the same, by what was unpacked, but its records have another kind of thing there."""
    request = known.request(TREE, durable=False)
    let_the_clock_tick(request.archive)
    edit(request.archive / name)
    install(request)
    let_the_clock_tick(known.dest)
    assert known.tree() != read_back(known, TREE)

    known.install(TREE, durable=False)

    assert known.tree() == read_back(known, TREE)


@pytest.mark.parametrize(
    "tree",
    [
        {**TREE, "app/new": "n"},
        {**TREE, "app/sub/new/": None},
        {name: value for name, value in TREE.items() if name != "app/sub/b"},
        {name: value for name, value in TREE.items() if name != "app/hollow/"},
        {**{name: value for name, value in TREE.items() if name != "app/a"}, "app/a/": None},
    ],
    ids=[
        "a new file",
        "a new directory",
        "a file less",
        "a directory less",
        "a directory in the place of a file",
    ],
)
def test_other_names_are_planned_with_all_the_rest(known: Host, tree: dict[str, Any]) -> None:
    assert planned_names(known.request(tree, durable=False)) is None


def test_an_error_at_any_moment_leaves_the_old_revision(known: Host) -> None:
    changed = {**TREE, **CHANGES["app/a"], **CHANGES["app/sub/b"]}
    before, records = known.everything(), known.records()
    for moment in (Moment.JOURNAL, Moment.COPY, Moment.SWITCH, Moment.RENAME, Moment.MANIFEST, Moment.COMMIT):
        request = known.request(changed, durable=False)
        assert planned_names(request) == paths(known, "app/a", "app/sub/b")

        assert failure_of(partial(install, request, observer=failing_at(moment, 1))) is not None

        assert (before, records) == (known.everything(), known.records())


def test_a_kill_at_any_moment_leaves_the_old_revision_or_the_new_one(known: Host) -> None:
    changed = {**TREE, **CHANGES["app/a"], **CHANGES["app/sub/b"]}
    before, records, wanted = known.everything(), known.records(), read_back(known, changed)
    outcomes = set()
    for number in count(1):
        request = known.request(changed, durable=False)
        assert planned_names(request) == paths(known, "app/a", "app/sub/b")
        is_killed = killed_before(number, lambda observe: install(request, observer=observe))  # noqa: B023

        known.recover()

        assert [] == known.leftovers()
        is_new = known.tree() == wanted
        assert is_new or (before, records) == (known.everything(), known.records())
        outcomes.add(is_new)
        if not is_killed:
            break
        if is_new:
            known.install(TREE, durable=False)
            let_the_clock_tick(known.dest)
            install_by_a_plan(known, known.request(TREE, durable=False))
            before, records = known.everything(), known.records()

    assert {True, False} == outcomes


# As a plan of everything would do it

NAMES = ["app/a", "app/b", "app/sub/c", "app/sub/deep/d", "app/e f", "app/link"]
CONTENTS = st.one_of(
    st.sampled_from(["", "x", "y", "z"]),
    st.builds(lambda mode: {"content": "m", "mode": mode}, st.sampled_from([0o600, 0o755, 0o4755])),
    st.builds(lambda target: {"link": target}, st.sampled_from(["a", "sub", "nowhere"])),
)
REVISIONS = st.fixed_dictionaries(dict.fromkeys(NAMES, CONTENTS))


def _edit(path: Path) -> None:
    if not path.is_symlink() and path.is_file():
        path.write_text("edited")


def _replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    os.utime(path, (1, 1))  # messages tell it


DEEDS: dict[str, Callable[[Path], object]] = {
    "edit": _edit,
    "remove": lambda path: path.unlink(),
    "directory": _replace_by_directory,
    "mode": lambda path: os.chmod(path, 0o700) if not path.is_symlink() else None,
    "neighbour": lambda path: (path.parent / "neighbour").write_text("n"),
    "mode of directory": lambda path: path.parent.chmod(0o700),
}


@settings(
    max_examples=60,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    first=REVISIONS,
    others=st.dictionaries(st.sampled_from(NAMES), CONTENTS, max_size=4),
    deeds=st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(sorted(DEEDS))),
        max_size=2,
        unique_by=lambda deed: deed[0],
    ),
    behavior=st.sampled_from(list(FileExistsBehavior)),
    is_there=st.booleans(),
)
def test_the_outcome_is_that_of_a_plan_of_everything(
    place: Path,
    first: dict[str, Any],
    others: dict[str, Any],
    deeds: list[tuple[str, str]],
    behavior: FileExistsBehavior,
    *,
    is_there: bool,
) -> None:
    outcomes = []
    for by_a_plan in (False, True):
        with tempfile.TemporaryDirectory(dir=place) as directory:
            host = Host(Path(directory))
            if is_there:
                (host.dest / "app/sub").mkdir(parents=True)
            install_until_known(host, first)
            let_the_clock_tick(host.dest)
            for name, deed in deeds:
                DEEDS[deed](host.dest / name)
            request = host.request({**first, **others}, behavior=behavior, durable=False)
            if by_a_plan:
                forget_what_was_asked(host)
            summaries: list[Any] = []
            failure = failure_of(lambda: summaries.append(install(request)))  # noqa: B023
            told = failure.message if failure else str(asdict(summaries[0]))
            outcomes.append((told.replace(directory, ""), host.tree(), host.cleanup(), host.leftovers()))

    assert outcomes[0] == outcomes[1]


def test_without_states_names_are_compared(known: Host) -> None:
    forget_states(known)
    request = known.request({**TREE, **CHANGES["app/a"]}, durable=False)

    assert paths(known, "app/a") == planned_names(request)

    (known.dest / "app/sub/foreign").write_text("of somebody else")
    assert planned_names(request) is None
