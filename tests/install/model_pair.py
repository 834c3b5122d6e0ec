"""A host and its model, side by side: whatever happens to one happens to the other, and both must agree afterwards.

What is asserted bears the numbers of the invariants in docs/install-algorithm.md.
"""

from __future__ import annotations

import stat
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from agent.install import install, plan_install, recover_install
from agent.install.model.moments import Moment
from tests.install.again import let_the_clock_tick, nothing_done
from tests.install.children import ended, killed_before, start
from tests.install.deeds import BY_HAND, Somebody, do_to_file, is_about_files
from tests.install.host import Host, failure_of
from tests.install.model import DIRECTORY, FILE, LINK, TOP, ModelHost, NotModelled, Thing, thing_of
from tests.install.model_install import Refused, outcome_of
from tests.install.model_invariants import KEPT, Comparison, Crash, facts_of, hold
from tests.install.observers import failing_at_each, killed_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.install import InstallRequest
    from agent.install.model.moments import Observer
    from agent.protocol import FileExistsBehavior
    from tests.install.deeds import Deed
    from tests.install.model import Outcome, Revision
    from tests.install.trees import Found

_AFTER_COMMIT = frozenset(
    {Moment.PUBLISH, Moment.PUBLISHED, Moment.REMOVE_HIDDEN, Moment.REMOVE, Moment.RMDIR},
)


class Wish(NamedTuple):
    """One Install that is asked for."""

    group: str
    revision: Revision
    rule: FileExistsBehavior


class Pair:
    """A host, and its model.

    Args:
        base: of the host; empty.
        met: takes the moments at which something went wrong.
    """

    def __init__(self, base: Path, met: set[Moment]) -> None:
        self.host = Host(base)
        self.model = ModelHost()
        self._now = Comparison(self.host, self.model)
        self.crash: Crash | None = None
        self._met = met
        self._last: tuple[Wish, Outcome] | None = None
        self._gave_access = False
        self._somebody = Somebody(base, self.model)

    def check(self) -> None:
        """The host is what the model says, as far as anybody can say that now."""
        if self.crash is None:
            self._now.check_whole(has_access=self._gave_access)
        else:
            self._now.check_halfway(self.crash)

    def install(self, wish: Wish) -> None:
        """Install it, or find that it is not possible."""
        prepared = self._prepare(wish)
        if prepared is None:
            return
        request, outcome = prepared
        if outcome is None:
            self._is_refused(request)
        else:
            install(request)
            self._take(wish.group, outcome)
            self._last = wish, outcome

    def install_again(self, *, ticks: bool) -> None:
        """Install the last one once more, if nothing has happened since: nothing is to be done.

        Args:
            ticks: whether the clock goes on before, so that more is known of the last one.
        """
        if self._last is None or self.crash is not None:
            return
        wish, outcome = self._last
        if ticks:
            let_the_clock_tick(self.host.dest if self.host.dest.exists() else self.host.base)
        prepared = self._prepare(wish)
        assert prepared is not None
        request, same = prepared
        assert same is not None
        hold("I10", facts_of(outcome.there), facts_of(same.there))
        before = self._now.times()
        summary = install(request)
        # Names of one file that can't all be one file are made anew each time.
        if not (same.has_retained or self._gave_access):
            assert nothing_done(summary), f"I10: {summary}"
            hold("I10", before, self._now.times())
        self._take(wish.group, same)
        self._last = wish, same

    def kill(self, wish: Wish, chance: int) -> None:
        """The process is killed before one of the moments that the model knows of."""
        prepared = self._prepare(wish)
        if prepared is not None:
            request, outcome = prepared
            moment, number = _one_of(outcome.moments, chance) if outcome else (Moment.JOURNAL, 1)
            observer = killed_at(moment, number)
            was_killed = self._interrupted(wish.group, outcome, partial(_killed, request, observer))
            hold(f"{moment} {number} is met", outcome is not None, was_killed)
            if was_killed:
                hold("I3", moment in _AFTER_COMMIT, self._now.is_committed(wish.group))
                self._met.add(moment)

    def kill_anywhere(self, wish: Wish, number: int) -> bool:
        """The process is killed before the change with this number, between two moments as well. Whether it was."""
        prepared = self._prepare(wish)
        if prepared is None:
            return False
        request, outcome = prepared
        return self._interrupted(wish.group, outcome, partial(_killed_anywhere, request, number))

    def fail(self, wish: Wish, chance: int, chance_of_undo: int | None = None) -> None:
        """The disk fails at one of the moments that the model knows of, and then perhaps at one of the undo."""
        prepared = self._prepare(wish)
        if prepared is None:
            return
        request, outcome = prepared
        if outcome is None:
            self._is_refused(request)
            return
        moments = [_one_of(outcome.moments, chance)]
        if chance_of_undo is not None and outcome.moments_of_undo:
            moments = [(Moment.COMMIT, 1), _one_of(outcome.moments_of_undo, chance_of_undo)]
        before, records = self._now.everything(), self.host.records()
        met: set[Moment] = set()
        failure = failure_of(partial(install, request, observer=failing_at_each(moments, met)))
        error_id = failure and failure.error_id
        hold(f"{moments} are met", {moment for moment, _number in moments}, met)
        self._met |= met
        if self._now.files_of(wish.group).is_interrupted:
            self._crashed(wish.group, before, records, outcome)
            # When only old files stay, it is no failure.
            ends = {"install-not-completed", None} if met & _AFTER_COMMIT else {"install-undo-incomplete"}
            assert error_id in ends
        elif failure is None:
            assert met <= _AFTER_COMMIT
            self._take(wish.group, outcome)
        else:
            hold("I6", "install-failed", error_id)
            assert "Everything was put back" in failure.message
            hold("I6", (before, records), (self._now.everything(), self.host.records()))

    def recover(self, number: int = 0) -> None:
        """The agent starts again; with a number, it is killed before its change with that number first."""
        crash = self.crash
        if crash is None:
            return
        act = partial(recover_install, self.host.instructions, crash.group)
        if number:
            killed_before(number, lambda _count: act())
            self._now.check_halfway(crash)
        was_undone = act()
        self.crash = None
        hold("I8", False, act())
        if crash.is_committed:
            hold("I3", False, was_undone)
            self._take(crash.group, crash.outcome)
        elif crash.touched:
            self._check_beside(crash)
        else:
            hold("I6", crash.before, self._now.everything())
            hold("I6", crash.records, self.host.records())
        self.check()

    def plan_beside(self, wish: Wish) -> None:
        """Another group plans while an Install has begun to let new files take their places."""
        crash = self.crash
        if crash is None or crash.group == wish.group or self._now.phase(crash.group) != "switching":
            return
        new = crash.outcome
        if any(thing.kind == LINK for thing in [*self.model.there.values(), *new.there.values()]):
            return  # the same path may be two
        made = {
            path for path in new.files if new.there.get(path) != self.model.there.get(path)
        } - crash.touched
        if made & set(wish.revision.destinations()):
            failure = failure_of(lambda: plan_install(self._request(wish)))
            hold("I12", "install-overlap", failure and failure.error_id)

    def somebody(self, deed: Deed) -> None:
        """Somebody does something, whether an Install has been interrupted or not."""
        self._last = None
        if self.crash is None:
            self._somebody.act(deed)
        elif is_about_files(deed):
            self._meddle(self.crash, deed._replace(content=BY_HAND))

    def _meddle(self, crash: Crash, deed: Deed) -> None:
        """Somebody does something to a file while an Install is neither undone nor completed."""
        now = self._now.visible()
        inodes = [found.inode for found in self._now.everything().values()]
        files = [
            path for path, found in now.items() if stat.S_ISREG(found.mode) and inodes.count(found.inode) == 1
        ]
        if not files:
            return
        path = files[deed.chance % len(files)]
        is_new = path not in crash.before or crash.before[path].inode != now[path].inode
        crash.touched.add(path)
        do_to_file(deed, self.host.base / path)
        found = self._now.everything().get(path)
        thing = found and thing_of(found)
        if crash.is_committed:
            _note(crash.outcome.there, path, thing, now)
        elif not is_new or (found is not None and found.inode != now[path].inode):
            if found and thing and not is_new and found.inode == now[path].inode:
                thing = thing.with_mode(stat.S_IMODE(crash.before[path].mode))  # it may have been adjusted
            if self._stands_in_a_file(path):
                crash.beside[path] = thing
            else:
                crash.beside.update(self._give_up_directory(path))
                _note(self.model.there, path, thing, now)
        # What is done to a new file that is taken back goes with it.

    def _give_up_directory(self, path: str) -> dict[str, Thing]:
        """Where a directory was that can't come back, since somebody has put something else there: what it held."""
        names = [name for name in self.model.there if name.startswith(path + "/")]
        return {name: self.model.there.pop(name) for name in names}

    def _stands_in_a_file(self, path: str) -> bool:
        """Whether it is in a new directory, in whose place there will be a file again."""
        while path := path.rpartition("/")[0]:
            if self.model.kind(path) not in {DIRECTORY, ""}:
                return True
        return False

    def _check_beside(self, crash: Crash) -> None:
        """What somebody has put into such a directory is there, beside the file."""
        kept = {path: thing_of(found) for path, found in self._now.visible().items() if KEPT in path}
        files = [thing.facts for thing in kept.values() if thing.kind == FILE]
        hold("I7", sorted(thing.facts for thing in crash.beside.values() if thing is not None), sorted(files))
        self.model.there.update(kept)

    def _prepare(self, wish: Wish) -> tuple[InstallRequest, Outcome | None] | None:
        """The request, and what is to come of it, None = it is refused. None when nobody can tell."""
        self.recover()
        self._last = None
        try:
            outcome = outcome_of(self.model, *wish)
        except Refused:
            outcome = None
        except NotModelled:
            return None
        request = self._request(wish)
        before = self.host.everything(), self.host.records()
        failure = failure_of(lambda: plan_install(request))
        hold("I11", None if outcome else "install-conflicts", failure and failure.error_id)
        hold("I11", before, (self.host.everything(), self.host.records()))
        return request, outcome

    def _request(self, wish: Wish) -> InstallRequest:
        revision = wish.revision
        self._gave_access = self._gave_access or revision.uid is not None or revision.hands_down
        self.host.group_id = wish.group
        return self.host.request(revision.tree, revision.appspec(), behavior=wish.rule, durable=False)

    def _is_refused(self, request: InstallRequest) -> None:
        before = self._now.everything(), self.host.records()
        failure = failure_of(lambda: install(request))
        hold("I11", "install-conflicts", failure and failure.error_id)
        hold("I6", before, (self._now.everything(), self.host.records()))

    def _interrupted(self, group: str, outcome: Outcome | None, act: Callable[[], bool]) -> bool:
        """Do that, which says whether it was killed, and note what has come of it."""
        before, records = self._now.everything(), self.host.records()
        was_killed = act()
        if outcome is None:
            hold("I6", (before, records), (self._now.everything(), self.host.records()))
        elif was_killed:
            self._crashed(group, before, records, outcome)
        else:
            self._take(group, outcome)
        return was_killed and outcome is not None

    def _crashed(
        self, group: str, before: dict[str, Found], records: dict[str, bytes], outcome: Outcome
    ) -> None:
        self.crash = Crash(group, before, records, outcome, self._now.is_committed(group), set(), {})

    def _take(self, group: str, outcome: Outcome) -> None:
        """This has come of it."""
        self.model.there = outcome.there
        self.model.records[group] = outcome.record
        self.host.group_id = group
        listed = {
            line.replace("@DEST@", TOP, 1) for line in self.host.cleanup() if not line.startswith("semanage")
        }
        # Other agents take a name with the end of a line for two.
        hold("I9", {path for path in outcome.record.paths() if "\n" not in path}, listed)


def _note(there: dict[str, Thing], path: str, thing: Thing | None, now: dict[str, Found]) -> None:
    """Something has become of a path, so that the directories that it lies in stay as well."""
    if thing is None:
        there.pop(path, None)
        return
    for inner in [name for name in there if name.startswith(path + "/")]:
        del there[inner]  # it has been a directory before
    there[path] = thing
    while path := path.rpartition("/")[0]:
        there.setdefault(path, thing_of(now[path]))


def _one_of(moments: dict[str, int], chance: int) -> tuple[Moment, int]:
    """One of so many moments of each kind, and its number."""
    kinds = sorted(moments)
    kind = kinds[chance % len(kinds)]
    return Moment(kind), 1 + chance // len(kinds) % moments[kind]


def _killed(request: InstallRequest, observer: Observer) -> bool:
    return ended(start(lambda: failure_of(lambda: install(request, observer=observer))))


def _killed_anywhere(request: InstallRequest, number: int) -> bool:
    return killed_before(number, lambda _count: failure_of(lambda: install(request)))
