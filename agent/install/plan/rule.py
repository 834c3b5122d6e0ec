"""The conflict rule: what becomes of a path where the AppSpec wants something.

`decide` is all of it (I7). Planning finds out what is there and asks; `conflicts` and `reasons` put into words what stands
in the way. docs/appspec.md shows the same as a table, and tests/install/test_conflict_rule.py lists every case.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeAlias

from agent.protocol import FileExistsBehavior

if TYPE_CHECKING:
    from agent.install.model.request import InstallRequest


class Found(Enum):
    """What is at a path, or will be because an earlier entry of the AppSpec has put it into the plan.

    Of what others have there only the kind counts, and not whose it is.
    """

    NOTHING = "nothing"
    OUR_FILE = "a file or link that the last Install put there, edited since or not"
    FOREIGN_FILE = "any other file, link or special file"
    LINK_TO_DIRECTORY = "a link to a directory, which is followed"
    LINK_NOT_FOLLOWED = "a link to a directory, which is not followed"
    OUR_DIRECTORY = "a directory that the last Install created, with nothing in it but what that left there"
    OUR_DIRECTORY_IN_USE = "a directory that the last Install created, with something else or edited in it"
    FOREIGN_DIRECTORY = "any other directory"
    AGENTS_DIRECTORY = "a directory of the agent's own"
    PLANNED_FILE = "a file that an earlier entry of `files` installs"
    PLANNED_DIRECTORY = "a directory that an earlier entry of `files` needs"
    PLANNED_DIRECTORY_OF_OTHERS = (
        "the same, where it is any other directory, or holds something else or edited"
    )
    MET_BEFORE = "something in whose place an earlier entry of `files` could not install a file"

    __hash__ = object.__hash__  # each is one object; looked up for every file, and Enum's own is slow


class Wanted(Enum):
    """What the AppSpec wants at a path."""

    FILE = "a file or link"
    DIRECTORY = "a directory"


class Action(Enum):
    """What an Install does at a path."""

    ADD = auto()
    REPLACE = auto()
    """What is there gives way."""
    KEEP = auto()
    """The directory that is there is the one that is wanted, or leads there."""
    RETAIN = auto()
    """What is there stays, and the file of the revision is left out."""


class Cause(Enum):
    """Why something can't be installed where it is to go."""

    RULE = "the rule for files that the group did not install; another one would let it"
    KIND = "a file where a directory must be, or the other way round"
    LINK = "a link that is not followed"
    AGENT = "what is there is the agent's own"
    APPSPEC = "the AppSpec wants two things there"


Decision: TypeAlias = Action | Cause
"""What is done; or why nothing can be, so that the whole Install is refused."""


_FOR_DIRECTORY: dict[Found, Decision] = {
    Found.NOTHING: Action.ADD,
    Found.OUR_FILE: Action.REPLACE,
    Found.FOREIGN_FILE: Cause.KIND,
    Found.LINK_TO_DIRECTORY: Action.KEEP,
    Found.LINK_NOT_FOLLOWED: Cause.LINK,
    Found.OUR_DIRECTORY: Action.KEEP,
    Found.OUR_DIRECTORY_IN_USE: Action.KEEP,
    Found.FOREIGN_DIRECTORY: Action.KEEP,
    Found.AGENTS_DIRECTORY: Cause.AGENT,
    Found.PLANNED_FILE: Cause.APPSPEC,
    Found.PLANNED_DIRECTORY: Action.KEEP,
    Found.PLANNED_DIRECTORY_OF_OTHERS: Action.KEEP,
    Found.MET_BEFORE: Cause.APPSPEC,
}

_FOR_FILE: dict[Found, Decision] = {
    Found.NOTHING: Action.ADD,
    Found.OUR_FILE: Action.REPLACE,
    Found.FOREIGN_FILE: Cause.RULE,
    Found.LINK_TO_DIRECTORY: Cause.RULE,
    Found.LINK_NOT_FOLLOWED: Cause.RULE,
    Found.OUR_DIRECTORY: Action.REPLACE,
    Found.OUR_DIRECTORY_IN_USE: Cause.KIND,
    Found.FOREIGN_DIRECTORY: Cause.KIND,
    Found.AGENTS_DIRECTORY: Cause.AGENT,
    Found.PLANNED_FILE: Cause.APPSPEC,
    Found.PLANNED_DIRECTORY: Cause.APPSPEC,
    Found.PLANNED_DIRECTORY_OF_OTHERS: Cause.APPSPEC,
    Found.MET_BEFORE: Cause.APPSPEC,
}

_PLANNED = frozenset({Found.PLANNED_FILE, Found.PLANNED_DIRECTORY})


def decide(found: Found, wanted: Wanted, behavior: FileExistsBehavior) -> Decision:
    """What becomes of a path.

    Args:
        found: what is there. A link tells where it leads only where a directory is wanted; else it is a FOREIGN_FILE.
        wanted: by the entry of `files` that is planned just now.
        behavior: for what the group did not install.
    """
    if wanted is Wanted.DIRECTORY:
        if found is Found.MET_BEFORE and behavior is FileExistsBehavior.RETAIN:
            return Action.KEEP  # the file is left out, so that only one thing is wanted there
        return _FOR_DIRECTORY[found]
    decision = _FOR_FILE[found]
    if isinstance(decision, Action) or found in _PLANNED:
        return decision
    # What is there is somebody else's, or holds something that is.
    if behavior is FileExistsBehavior.RETAIN:
        return Action.RETAIN
    if behavior is FileExistsBehavior.OVERWRITE and decision is Cause.RULE:
        return Action.REPLACE
    return decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is done with files that the group has not installed.

    Attributes:
        is_of_appspec: the AppSpec says so; else the deployment does, or nobody, and it is the default.
    """

    behavior: FileExistsBehavior
    is_of_appspec: bool

    @property
    def set_by(self) -> str:
        """Who made it, in words."""
        if self.is_of_appspec:
            return "the AppSpec"
        if self.behavior is not FileExistsBehavior.DISALLOW:
            return "the deployment"
        # A deployment that says it in so many words is not told from one that says nothing.
        return "default (neither the AppSpec nor the deployment asks for another)"


def rule_of(request: InstallRequest) -> Rule:
    """The rule for files that are there already: the AppSpec's own wins over the deployment's."""
    own = request.appspec.file_exists_behavior
    return Rule(
        behavior=request.file_exists_behavior if own is None else own,
        is_of_appspec=own is not None,
    )
