"""What is looked at while the plan is made, in a second process, is what a closer look would find."""

from __future__ import annotations

import errno
import os
import pwd
import signal
import stat
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from agent.archive_index import ArchiveIndex
from agent.deployments.group_files import GroupFiles
from agent.install import install, plan_install
from agent.install.compare.survey import UNCHANGED, UNKNOWN, Survey, look_in, names_of, states_in
from agent.install.model.moments import Moment
from agent.install.posix.places import Places
from agent.install.posix.two_processes import MIN_FILES
from agent.install.records.previous import previous_of, read_records
from agent.protocol import FileExistsBehavior
from tests.install.again import install_until_known, let_the_clock_tick, records_without_states
from tests.install.children import in_child, killed_before, own_children
from tests.install.host import FILES, Host, failure_of, write_index
from tests.install.trees import read_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.install import InstallRequest, InstallSummary
    from agent.install.compare.survey import Found

pytestmark = pytest.mark.usefixtures("library")

NOBODY = pwd.getpwnam("nobody").pw_uid
MANY: dict[str, Any] = {f"app/{number % 12}/{number}": str(number) for number in range(MIN_FILES + 100)}
WITH_LINKS: dict[str, Any] = {
    **MANY,
    "app/0/link": {"link": "0"},
    "app/0/hard": {"same_as": "app/0/0"},
    "app/0/odd name\n%41": "o",
    "app/hollow/": None,
}


def look(host: Host, request: InstallRequest, below: str = "app") -> tuple[list[bytes], Found]:
    """The names of a directory of the archive of which the content is known, and what was found of them."""
    records = read_records(GroupFiles(directory=host.instructions, group_id=host.group_id))
    with closing(Places()) as places:
        previous = previous_of(records, places)
    source, real = os.fsencode(request.archive / below), os.fsencode(host.dest / below)
    entries = ArchiveIndex(request.archive).of(source)
    found = look_in(source, real, entries, previous.files.of(real), is_root=os.geteuid() == 0)
    return names_of(entries), found


def states(host: Host, request: InstallRequest) -> dict[str, int]:
    """Name → what was found; the inode of another content is told as 2."""
    names, found = look(host, request)
    seen = [UNCHANGED] * len(names) if found is None else [min(state, 2) for state in states_in(found)]
    return {os.fsdecode(name): state for name, state in zip(names, seen, strict=True)}


OLD: dict[str, Any] = {f"app/{name}": "text" for name in ("edited", "gone", "mode", "same", "touched")}
OLD["app/link"] = {"link": "same"}


def test_what_is_as_it_is_to_be_is_told_in_one_word(host: Host) -> None:
    """The usual case of a large revision; anything else would be much to be sent from one process to the other."""
    host.install(OLD)

    assert look(host, host.request(OLD))[1] is None


def test_every_difference_asks_for_a_closer_look_or_for_the_new_content(host: Host) -> None:
    """What is taken for unchanged is not looked at again."""
    host.install(OLD)
    request = host.request({**OLD, "app/new": "n", "app/edited": "next", "app/same": "text"})
    (host.dest / "app/gone").unlink()
    (host.dest / "app/mode").chmod(0o600)
    os.utime(host.dest / "app/touched")

    expected = {"edited": 2, "gone": UNKNOWN, "mode": UNKNOWN, "new": UNKNOWN, "touched": UNKNOWN}
    assert {**expected, "same": UNCHANGED} == states(host, request)


@pytest.mark.parametrize("name", ["edited", "same"])
def test_an_edit_on_either_side_asks_for_a_closer_look(host: Host, name: str) -> None:
    """Size and time are given back, as `sed -i` and `touch -r` do."""
    host.install(OLD)
    request = host.request(OLD)
    for top, edited in ((host.dest, "edited"), (request.archive, "same")):
        was = (top / "app" / edited).stat()
        (top / "app" / edited).write_text("TEXT")
        os.utime(top / "app" / edited, ns=(was.st_atime_ns, was.st_mtime_ns))

    assert UNKNOWN == states(host, request)[name]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_hook_that_makes_the_new_content_the_old_one_leaves_the_file_alone(
    host: Host, processes: int
) -> None:
    """A template that is filled in comes out the same each time; who watches that file must see no change."""
    filled = dict.fromkeys(["app/all", "app/mode", "app/0/0"], "filled in")
    host.install({**MANY, **filled})
    request = host.request(
        {**MANY, **dict.fromkeys(filled, "@NAME@"), "app/0/12": "@OTHER@"}, processes=processes, durable=False
    )
    inodes = {name: (host.dest / name).stat().st_ino for name in MANY | filled}
    for name in filled:
        path = request.archive / name
        was = path.stat()
        path.write_text("filled in")
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    (request.archive / "app/mode").chmod(0o600)

    summary = install(request)

    changed_names = {name for name, inode in inodes.items() if (host.dest / name).stat().st_ino != inode}
    assert {"app/0/12"} == changed_names
    assert (1, len(MANY) + 1) == (summary.replaced, summary.unchanged)
    assert 0o600 == stat.S_IMODE((host.dest / "app/mode").stat().st_mode)
    assert read_tree(request.archive / "app") == read_tree(host.dest / "app")
    assert [] == host.leftovers()


@pytest.mark.parametrize("processes", [1, 2])
def test_an_archive_without_an_index_is_compared_in_whole(host: Host, processes: int) -> None:
    """It may have been too full a disk to write one; that must cost time, and nothing else."""
    host.install(MANY)
    tree = {**MANY, **{name: f"{value} anew" for name, value in MANY.items() if name.endswith("3")}}
    request = host.request(tree, is_indexed=False, processes=processes, durable=False)

    summary = install(request)

    anew = sum(name.endswith("3") for name in MANY)
    assert (0, anew, len(MANY) - anew) == (summary.created, summary.replaced, summary.unchanged)
    assert read_tree(request.archive / "app") == read_tree(host.dest / "app")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_another_owner_in_the_archive_asks_for_a_closer_look(host: Host) -> None:
    """A bundle made by another user, with the same content."""
    host.install(OLD)
    request = host.request(OLD, is_indexed=False)
    os.chown(request.archive / "app/same", NOBODY, -1)
    write_index(request.archive)

    assert UNKNOWN == states(host, request)["same"]


@pytest.mark.parametrize("name", ["app", "archive"])
def test_a_directory_that_is_a_link_is_not_looked_into(host: Host, name: str) -> None:
    """Whoever swapped it would choose what we take for ours."""
    host.install(OLD)
    request = host.request(OLD)
    place = host.dest / "app" if name == "app" else request.archive / "app"
    place.rename(host.base / "elsewhere")
    place.symlink_to(host.base / "elsewhere")

    assert {UNKNOWN} == set(states(host, request).values())


@pytest.mark.parametrize("name", ["app", "archive"])
def test_a_directory_that_is_gone_is_left_to_a_closer_look(host: Host, name: str) -> None:
    """Only that can say what is wrong."""
    host.install(OLD)
    request = host.request(OLD)
    place = host.dest / "app" if name == "app" else request.archive / "app"
    place.rename(host.base / "elsewhere")

    assert {UNKNOWN} == set(states(host, request).values())


def test_without_records_nothing_is_taken_for_unchanged(host: Host) -> None:
    """What looks the same may be somebody else's."""
    host.write(OLD)

    assert {UNKNOWN} == set(states(host, host.request(OLD)).values())


# One process and two


def changed(tree: dict[str, Any]) -> dict[str, Any]:
    """A revision in which a bit of everything is another."""
    rest = {name: value for name, value in tree.items() if not name.endswith("7")}
    edits = {name: f"{value} anew" for name, value in MANY.items() if name.endswith("3")}
    return {**rest, **edits, "app/12/new": "n", "app/0/new": "n"}


@pytest.fixture
def large(host: Host) -> Host:
    """A host with so many files that a second process looks, if there may be one."""
    host.dest.mkdir()
    install_until_known(host, WITH_LINKS, processes=2)
    return host


def outcome(host: Host, summary: InstallSummary) -> Any:
    """All that must be the same however many processes there were, without the archives' names."""
    records = records_without_states(host)
    del records[f"{host.group_id}-install.json"]
    del records[f"{host.group_id}-manifest"]
    return host.tree(), summary, records


@pytest.mark.parametrize("behavior", FileExistsBehavior)
def test_two_processes_do_what_one_does(large: Host, behavior: FileExistsBehavior) -> None:
    """How many processors a host has must not decide about what is installed."""
    outcomes = []
    for processes in (1, 2):
        large.install(WITH_LINKS, processes=processes, durable=False)
        (large.dest / "app/0/0").write_text("edited")
        (large.dest / "app/1/1").unlink()
        (large.dest / "app/3/3").chmod(0o600)
        large.write({"app/4/theirs": "t"})
        request = large.request(changed(WITH_LINKS), behavior=behavior, processes=processes, durable=False)
        outcomes.append(outcome(large, install(request)))
        assert read_tree(request.archive / "app").items() <= read_tree(large.dest / "app").items()

    assert outcomes[0] == outcomes[1]
    assert (0, 0) != (outcomes[0][1].replaced, outcomes[0][1].removed)
    assert [] == large.leftovers()


APPSPECS = [
    pytest.param(FILES, id="one destination"),
    pytest.param(
        "files: [{source: app, destination: '@DEST@/app'}, {source: app/3, destination: '@DEST@/app/more'}]",
        id="two destinations",
    ),
    pytest.param("files: [{source: /, destination: '@DEST@'}]", id="the archive itself"),
    pytest.param(
        FILES + "\npermissions: [{object: '@DEST@/app/3', mode: '0640', type: [file]}]", id="permissions"
    ),
    pytest.param("files: [{source: app, destination: '@DEST@/alias/app'}]", id="through a link"),
]


@pytest.mark.parametrize("appspec", APPSPECS)
def test_however_files_are_listed_two_processes_find_what_changed(host: Host, appspec: str) -> None:
    """The second process guesses what belongs together; a wrong guess must cost nothing but time."""
    (host.dest / "real").mkdir(parents=True)
    (host.dest / "alias").symlink_to("real")
    install_until_known(host, MANY, appspec, processes=2)
    victims = sorted(path for path in host.dest.rglob("[0-9]*") if path.is_file())[::300]
    before = host.tree()
    for path in victims:
        path.write_text("edited")

    summary = host.install(MANY, appspec, processes=2, durable=False)

    assert before == host.tree()
    assert len(victims) == summary.replaced
    assert summary.unchanged >= len(MANY) - len(victims)


def test_a_plan_with_a_survey_is_the_plan_without(large: Host) -> None:
    """What another process sees decides nothing but how long it takes."""
    request = large.request(changed(WITH_LINKS), processes=2)

    with closing(Survey(2)) as survey:
        plan = plan_install(request, survey=survey)
        survey.complete()

    assert repr(plan_install(request)) == repr(plan)


def test_a_survey_that_is_not_completed_leaves_no_process(large: Host) -> None:
    """A plan that ends with conflicts must not leave one behind that waits for ever."""
    large.write({"app/0/new": "theirs"})
    before = own_children()

    failure = failure_of(lambda: large.install(changed(WITH_LINKS), processes=2))

    assert failure is not None
    assert "install-conflicts" == failure.error_id
    assert set() == own_children() - before


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Afterwards no more files are open than before."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert before == len(os.listdir("/proc/self/fd"))


@pytest.mark.usefixtures("descriptors")
def test_where_there_may_be_no_other_process_one_does_it_all(
    large: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host at its limit of processes is still deployed to."""

    def refuse() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    request = large.request(changed(WITH_LINKS), processes=2, durable=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", refuse)
        install(request)

    assert read_tree(request.archive / "app") == read_tree(large.dest / "app")


@pytest.mark.usefixtures("descriptors")
def test_when_the_second_process_is_killed_the_first_one_looks_at_everything(
    large: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of what is there would be unknown."""
    fork: Callable[[], int] = os.fork

    def fork_and_kill() -> int:
        child = fork()
        if child:
            os.kill(child, signal.SIGKILL)
        return child

    request = large.request(changed(WITH_LINKS), processes=2, durable=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", fork_and_kill)
        install(request)

    assert read_tree(request.archive / "app") == read_tree(large.dest / "app")
    assert [] == large.leftovers()


def test_the_second_process_changes_nothing(large: Host) -> None:
    """It only looks; the first change is that of the journal, by the first process."""
    request = large.request(changed(WITH_LINKS), processes=2, durable=False)
    before, records = large.everything(), large.records()

    assert killed_before(1, lambda count: install(request, observer=count))

    assert (before, records) == (large.everything(), large.records())


def test_what_appears_after_the_look_is_not_overwritten(large: Host) -> None:
    """The look is older than the plan; somebody may be faster than both."""
    request = large.request({**WITH_LINKS, "app/0/new": "ours"}, processes=2, durable=False)

    def observe(kind: Moment, _path: bytes) -> None:
        if kind == Moment.SWITCH and not (large.dest / "app/0/new").exists():
            large.write({"app/0/new": "theirs"})

    failure = failure_of(lambda: install(request, observer=observe))

    assert failure is not None
    assert "install-conflicts" == failure.error_id
    assert "theirs" == (large.dest / "app/0/new").read_text()


def test_an_ordinary_user_compares_no_owners(host: Host) -> None:
    """He can't give files away, so that every file would be replaced every time."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    host.base.chmod(0o777)
    # What is imported only when it is needed may lie where that user may not read.
    Host(host.base / "before").install({"app/a": "a"})

    def body() -> tuple[int, int]:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        host.install(MANY, processes=2, durable=False)
        let_the_clock_tick(host.dest)
        summary = host.install({**MANY, "app/x": "x"}, processes=2, durable=False)
        return summary.unchanged, summary.created

    assert (len(MANY), 1) == in_child(body)
