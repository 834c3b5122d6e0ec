"""The smaller rules: tags, lifecycle order, diagnostics, explanations."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.diagnostics import LifecycleErrorCode, parse_completion, parse_is_noop
from controlplane.domain.explanation import FailedHost, explain_failure, spell_duration
from controlplane.domain.lifecycle import IN_PLACE_EVENTS, HostFinished, NextEvent, after_event
from controlplane.domain.statuses import DeploymentErrorCode, TargetStatus
from controlplane.domain.tags import HostSelection, TagFilter, TagFilterType
from controlplane.domain.waits import OpenCommand, find_overdue

TAGS = {"Role": "web", "Stage": "prod"}


@pytest.mark.parametrize(
    ("filter_type", "key", "value", "matches"),
    [
        (TagFilterType.KEY_ONLY, "Role", "db", True),
        (TagFilterType.KEY_ONLY, "role", "", False),
        (TagFilterType.VALUE_ONLY, "Any", "prod", True),
        (TagFilterType.VALUE_ONLY, "Role", "db", False),
        (TagFilterType.KEY_AND_VALUE, "Role", "web", True),
        (TagFilterType.KEY_AND_VALUE, "Role", "prod", False),
        (TagFilterType.KEY_AND_VALUE, "Zone", "", False),
    ],
)
def test_a_tag_filter_compares_what_its_type_says(
    filter_type: TagFilterType, key: str, value: str, *, matches: bool
) -> None:
    """A filter that matches too much deploys to the wrong hosts."""
    assert matches == TagFilter(key=key, value=value, type=filter_type).matches(TAGS)


def test_a_selection_without_filters_selects_nothing() -> None:
    """An empty group is empty, not everything."""
    assert not HostSelection(filter_lists=[]).selects(TAGS)


@given(
    position=st.integers(0, len(IN_PLACE_EVENTS) - 1),
    succeeded=st.booleans(),
    ignore=st.booleans(),
    wanted=st.booleans(),
)
def test_an_event_is_followed_by_the_next_one_or_the_end(
    *, position: int, succeeded: bool, ignore: bool, wanted: bool
) -> None:
    """Events are never skipped in the middle, and a failure is never followed by an event."""
    following = after_event(
        position=position, succeeded=succeeded, ignore_application_stop_failures=ignore, wanted=wanted
    )
    if isinstance(following, NextEvent):
        assert wanted
        assert following.position == position + 1
        assert succeeded or (ignore and position == 0)
    elif following == HostFinished(status=TargetStatus.SUCCEEDED):
        assert succeeded
        assert position == len(IN_PLACE_EVENTS) - 1


@given(st.one_of(st.none(), st.text(), st.from_regex(r'\{"error_code": .{0,9}\}')), st.booleans())
def test_any_diagnostics_are_read_without_an_error(payload: str | None, succeeded: bool) -> None:  # noqa: FBT001
    """A host must be able to report whatever state it is in."""
    diagnostics = parse_completion(payload, succeeded=succeeded)
    diagnostics.message.encode()
    assert parse_is_noop(payload) in {True, False, None}


LIMITS = {"command_timeout_s": 3600.0, "host_unseen_after_s": 300.0}
BASE = OpenCommand(host="web-1", event="Install", ready_at=1000, heard_at=None, seen_at=None, watched_since=0)


@pytest.mark.parametrize(
    ("changes", "ends_after", "says"),
    [
        ({}, 1300, "web-1 has not polled for 5 min (it never polled before)"),
        ({"seen_at": 900.0}, 1300, "for 7 min (last seen 1970-01-01T00:15:00+00:00)"),
        ({"seen_at": 1200.0}, 1500, "web-1 has not polled for 5 min"),
        ({"watched_since": 5000.0}, 5300, "it never polled before"),
        ({"watched_since": 5000.0, "seen_at": 900.0}, 5300, "last seen"),
        ({"seen_at": 4600.0}, 4600, "polls, but has not acknowledged Install for 60 min"),
        ({"heard_at": 1100.0}, 4700, "acknowledged Install but neither completed nor updated it for 60 min"),
        ({"heard_at": 4000.0}, 7600, "acknowledged Install"),
        ({"heard_at": 1100.0, "watched_since": 9000.0}, 12600, "acknowledged Install"),
    ],
)
def test_a_command_waits_exactly_as_long_as_it_may(
    changes: dict[str, Any], ends_after: float, says: str
) -> None:
    """Too short fails good deployments, too long blocks the group; an outage of ours is nobody's fault."""
    command = replace(BASE, **changes)
    assert find_overdue(command, now=ends_after, **LIMITS) is None
    overdue = find_overdue(command, now=ends_after + 1, **LIMITS)
    assert overdue is not None
    assert says in overdue.diagnostics.message


@pytest.mark.parametrize("code", ["4", 4.0, True, None, 99, -1, [4]])
def test_an_error_code_that_is_none_is_unknown(code: object) -> None:
    """Some agents send a language error where the number should be."""
    payload = json.dumps({"error_code": code, "message": "m"})
    diagnostics = parse_completion(payload, succeeded=False)
    assert (diagnostics.error_code, diagnostics.message) == (LifecycleErrorCode.UNKNOWN_ERROR, "m")


def test_a_health_failure_names_the_first_cause_and_the_silent_hosts() -> None:
    """`HEALTH_CONSTRAINTS` alone sends people to the wrong place."""
    failed = [
        FailedHost(name="web-2", event="ApplicationStop", message="not seen", unseen_s=840),
        FailedHost(name="web-1", event="Install", message="file conflict /var/www/x", unseen_s=None),
        FailedHost(name="web-3", event="Install", message="file conflict /var/www/x", unseen_s=None),
    ]
    text = explain_failure(
        code=DeploymentErrorCode.HEALTH_CONSTRAINTS, hosts=4, required=3, succeeded=1, failed=failed
    )
    assert text == (
        "3 of 4 hosts failed. First: web-1, Install, file conflict /var/www/x. "
        "1 host not seen for 14 min: web-2. 1 succeeded; 3 must be healthy."
    )


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (45, "45 s"), (840, "14 min"), (10800, "3 h")])
def test_durations_are_spelt_for_people(seconds: float, text: str) -> None:
    """Nobody divides by 60 during an incident."""
    assert text == spell_duration(seconds)
