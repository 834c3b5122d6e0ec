"""Tag filters as the API writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controlplane.domain.tags import HostSelection, TagFilter, TagFilterType
from controlplane.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def parse_filters(filters: Iterable[Mapping[str, Any]], *, code: str) -> list[TagFilter]:
    """The filters; raises ServiceError with this code for one that compares a part it does not have."""
    return [_parse_filter(one, code=code) for one in filters]


def parse_selection(
    tag_filters: Sequence[Mapping[str, Any]], tag_set: Sequence[Sequence[Mapping[str, Any]]]
) -> HostSelection:
    """The hosts that match any of `tag_filters`, or one filter of every list of `tag_set`; one of them is empty."""
    lists = tag_set or ([tag_filters] if tag_filters else [])
    return HostSelection(
        filter_lists=[parse_filters(filters, code="InvalidTagException") for filters in lists]
    )


def _parse_filter(one: Mapping[str, Any], *, code: str) -> TagFilter:
    key, value = one.get("Key"), one.get("Value")
    # Without a type the parts that are given say what is compared.
    implied = TagFilterType.KEY_AND_VALUE if key and value else TagFilterType.KEY_ONLY
    if not key:
        implied = TagFilterType.VALUE_ONLY
    filter_type = TagFilterType(one["Type"]) if one.get("Type") else implied
    needs_key = filter_type is not TagFilterType.VALUE_ONLY
    needs_value = filter_type is not TagFilterType.KEY_ONLY
    if (needs_key and not key) or (needs_value and value is None):
        raise ServiceError(code, f"A tag filter of type {filter_type.value} lacks its Key or its Value.")
    return TagFilter(key=key or "", value=value or "", type=filter_type)
