"""What stands in the way of an Install, all of it at once, in words. `rule` decides what does."""

from __future__ import annotations

import functools
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import CommandFailure
from agent.install.plan.rule import Cause, rule_of
from agent.logs import get_logger
from agent.user_names import known_user_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from agent.install.compare.other_groups import Claim, OtherGroups
    from agent.install.model.request import InstallRequest
    from agent.install.plan.rule import Rule

log = get_logger()

_MOST_LISTED = 20
_MOST_LOGGED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """One path that can't be installed, as planning finds it.

    Attributes:
        path: as the AppSpec spells it.
        real: the path of what is there, without links above it; empty where nothing is.
        status: of what is there; None when that is not the point.
    """

    path: bytes
    reason: str
    cause: Cause
    real: bytes = b""
    status: os.stat_result | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """One path that can't be installed, and all that is known about it.

    Attributes:
        path: as the AppSpec spells it.
        reason: what is there, or what the AppSpec asks for.
        owner: name of the user whom it belongs to, the number where there is no name.
        modified_at: seconds since the epoch.
        installed_by: another deployment group that has put it there; None when no other has.
        cause: what has decided so.

    Owner and time are None where the AppSpec itself is the trouble, and not what is there.
    """

    path: bytes
    reason: str
    owner: str | None
    modified_at: float | None
    installed_by: str | None
    cause: Cause

    def facts(self, now: float | None = None) -> list[str]:
        """What is known about it, in words: what is there, whose it is, since when, and who installed it.

        Args:
            now: seconds since the epoch, if it is to be said how long ago that is, too.
        """
        facts = [self.reason]
        if self.owner is not None:
            facts.append(f"owner {self.owner}")
        if self.modified_at is not None:
            changed = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self.modified_at))
            facts.append(f"last changed {changed} UTC{'' if now is None else _ago(now - self.modified_at)}")
        if self.installed_by is not None:
            facts.append(f"installed by deployment group {self.installed_by}")
        return facts

    @property
    def is_by_rule(self) -> bool:
        """Whether another rule for files that the group did not install would let it."""
        return self.cause is Cause.RULE

    @property
    def is_of_appspec(self) -> bool:
        """Whether the AppSpec itself is the trouble."""
        return self.cause is Cause.APPSPEC


class InstallConflicts(CommandFailure):
    """An Install that is not possible because of what is in its way; nothing was changed.

    Attributes:
        rule: the one for files that the group did not install.
        conflicts: all of them, in the order of the AppSpec. A path has several, where there are several reasons.
            The message names the first few.
    """

    def __init__(self, rule: Rule, conflicts: Sequence[Conflict], doubt: str = "") -> None:
        super().__init__("install-conflicts", _message(rule, conflicts, doubt))
        self.rule = rule
        self.conflicts = tuple(conflicts)


def conflicts_of(
    request: InstallRequest, obstacles: Iterable[Obstacle], others: OtherGroups, doubt: str = ""
) -> InstallConflicts:
    """The failure that tells of all that is in the way, with who owns it and which group has put it there.

    Args:
        request: what was to be installed.
        obstacles: what planning has found.
        others: may have installed some of it.
        doubt: a sentence about why some of it may be the group's own.
    """
    once = {(obstacle.path, obstacle.reason): obstacle for obstacle in obstacles}
    claims = _claims(others, {obstacle.real for obstacle in once.values() if obstacle.real})
    groups = {
        obstacle.path: claims[obstacle.real][0].group_id
        for obstacle in once.values()
        if obstacle.real in claims
    }
    # Whom a number belongs to may be a question to a directory service.
    user_name = functools.lru_cache(_name_or_number)
    conflicts = [_conflict(obstacle, groups, user_name) for obstacle in once.values()]
    described = [_described(conflict) for conflict in conflicts[:_MOST_LOGGED]]
    log.warning("install_conflicts", count=len(conflicts), conflicts=described)
    return InstallConflicts(rule_of(request), conflicts, doubt)


def _claims(others: OtherGroups, paths: set[bytes]) -> dict[bytes, list[Claim]]:
    """What other groups have installed there, as far as that is known: the conflicts are the same without it."""
    try:
        return others.claims_on(paths)
    except OSError as error:
        log.warning("claims_unreadable", path=error.filename, error=error.strerror or str(error))
        return {}


def _conflict(obstacle: Obstacle, groups: dict[bytes, str], user_name: Callable[[int], str]) -> Conflict:
    status = obstacle.status
    return Conflict(
        path=obstacle.path,
        reason=obstacle.reason,
        owner=None if status is None else user_name(status.st_uid),
        modified_at=None if status is None else status.st_mtime,
        installed_by=groups.get(obstacle.path),
        cause=obstacle.cause,
    )


def _message(rule: Rule, conflicts: Sequence[Conflict], doubt: str) -> str:
    shown = "; ".join(map(_described, conflicts[:_MOST_LISTED]))
    more = len(conflicts) - _MOST_LISTED
    rest = f"; and {more} more (see the agent's log)" if more > 0 else ""
    doubt = f"{doubt} " if doubt else ""
    return f"{summary_of(conflicts)}, and nothing was changed: {shown}{rest}. {doubt}{advice_on(rule, conflicts)}"


def summary_of(conflicts: Sequence[Conflict]) -> str:
    """What the trouble is, without the end of the sentence."""
    count = len({conflict.path for conflict in conflicts})
    if all(conflict.is_of_appspec for conflict in conflicts):
        return f"The AppSpec wants two things at {'one path' if count == 1 else f'each of {count} paths'}"
    return f"{'One path is' if count == 1 else f'{count} paths are'} in the way of this Install"


def advice_on(rule: Rule, conflicts: Sequence[Conflict]) -> str:
    """What to do about them, for each kind that there is."""
    advice = []
    by_rule = [conflict for conflict in conflicts if conflict.is_by_rule]
    if by_rule:
        them = "it" if len(by_rule) == 1 else "them"
        advice.append(
            f"The rule for files that this deployment group did not install is {rule.behavior.value}, set by"
            f" {rule.set_by}. Remove or move {them}, or deploy with file_exists_behavior OVERWRITE or RETAIN."
        )
    if any(conflict.installed_by is not None for conflict in conflicts):
        advice.append(
            "What another deployment group has installed is missing there as soon as it is removed or replaced: give the"
            " groups different destinations."
        )
    causes = {conflict.cause for conflict in conflicts}
    if Cause.AGENT in causes:
        advice.append(
            "Change the destination in the AppSpec: nothing is installed over what the agent needs itself."
        )
    if Cause.LINK in causes:
        advice.append(
            "A link is followed if it is root's or belongs to the owner of what it leads to, and if nobody else can replace"
            " it: make it so, let the AppSpec name the directory that it leads to, or name the link in"
            " follow_links_of_others of the agent's configuration."
        )
    if Cause.KIND in causes:
        advice.append(
            "No rule lets a file and a directory take each other's place: remove or move what is there, or change the"
            " destination in the AppSpec."
        )
    if any(conflict.is_of_appspec for conflict in conflicts):
        where = "Where the AppSpec wants two things at one path, leave" if advice else "Leave"
        advice.append(f"{where} one of them out, or change its destination.")
    return " ".join(advice)


def _described(conflict: Conflict) -> str:
    return f"{os.fsdecode(conflict.path)} ({', '.join(conflict.facts())})"


def _ago(seconds: float) -> str:
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f", {seconds // length:.0f} {unit} ago"
    return f", {max(0.0, seconds):.0f} s ago"


def _name_or_number(uid: int) -> str:
    return known_user_name(uid) or str(uid)
