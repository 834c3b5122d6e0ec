"""Which hosts a tag filter selects."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class TagFilterType(str, Enum):
    """What a filter compares."""

    KEY_ONLY = "KEY_ONLY"
    VALUE_ONLY = "VALUE_ONLY"
    KEY_AND_VALUE = "KEY_AND_VALUE"


@dataclass(frozen=True, slots=True, kw_only=True)
class TagFilter:
    """One condition on the tags of a host; a part its type does not compare is ignored."""

    key: str
    value: str
    type: TagFilterType

    def matches(self, tags: Mapping[str, str]) -> bool:
        """True when at least one tag of the host fits."""
        if self.type is TagFilterType.KEY_ONLY:
            return self.key in tags
        if self.type is TagFilterType.VALUE_ONLY:
            return self.value in tags.values()
        return tags.get(self.key) == self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSelection:
    """The hosts of a deployment group: every list must select the host, each by any one of its filters.

    No list at all selects no host: a group without filters is empty, not everything.
    """

    filter_lists: Sequence[Sequence[TagFilter]]

    def selects(self, tags: Mapping[str, str]) -> bool:
        """True when a host with these tags belongs to the group."""
        if not self.filter_lists:
            return False
        return all(any(one.matches(tags) for one in filters) for filters in self.filter_lists)
