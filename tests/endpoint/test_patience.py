"""Backoff, throttling, proxies, and asking again."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.endpoint import (
    FOR_QUESTIONS,
    FOR_REPORTS,
    RequestPatience,
    Setbacks,
    SharedThrottle,
    ask_until_answered,
    wait_after_failures,
)
from agent.errors import EndpointUnavailable, IdentityError, RequestRefused, Throttled
from agent.proxies import proxies_of, proxy_for

if TYPE_CHECKING:
    from pathlib import Path


def test_waits_after_failures_follow_the_curve_of_the_existing_agents() -> None:
    """A fleet of 10,000 hosts behaves as the service expects after an outage."""
    assert [10, 13, 17, 21, 27, 34, 44, 56, 71, 90, 90] == [wait_after_failures(n) for n in range(1, 12)]


def test_the_time_that_an_attempt_took_counts_as_waiting() -> None:
    """A poll that hung for 80 s was wait enough."""
    assert (6, 0) == (wait_after_failures(1, spent_s=4), wait_after_failures(1, spent_s=80))


def test_a_poll_that_failed_is_made_three_times_more_within_two_seconds_before_it_counts() -> None:
    """One fault of the network is not an outage."""
    setbacks = Setbacks()
    pauses = [setbacks.pause_before_repetition(0.0) for _ in range(4)]
    assert [True, True, True, False] == [pause is not None for pause in pauses]
    at_once_s = sum(pause for pause in pauses if pause is not None)
    assert 1 < at_once_s <= 2
    assert 10 == pytest.approx(at_once_s + setbacks.fail(0.0))


def test_each_failed_poll_is_repeated_anew_and_the_curve_goes_on() -> None:
    """As with the existing agents, which repeat every request."""
    setbacks, waits = Setbacks(), []
    for _ in range(3):
        at_once_s = sum(iter(lambda: setbacks.pause_before_repetition(0.0), None))
        waits.append(round(at_once_s + setbacks.fail(0.0)))
    assert [10, 13, 17] == waits


def test_a_poll_that_hung_for_longer_than_the_next_wait_counts_at_once() -> None:
    """Whoever asks for the agent's state must not be told that all is well while it hangs a second time."""
    setbacks = Setbacks()
    assert setbacks.pause_before_repetition(80) is None
    assert 0 == setbacks.fail(80)
    assert setbacks.pause_before_repetition(12) is not None


def test_being_throttled_and_being_answered_both_end_a_row_of_repetitions() -> None:
    """Who throttles is there; the wait that it asks for is kept elsewhere."""
    setbacks = Setbacks()
    for end in (setbacks.throttled, setbacks.clear):
        while setbacks.pause_before_repetition(0.0) is not None:
            pass
        end()
    assert 10 == setbacks.fail(0.0)


def test_an_endpoint_that_brings_only_commands_of_others_is_asked_more_and_more_rarely() -> None:
    """After the first, one of ours may come at once."""
    setbacks = Setbacks()
    assert [0, 10, 13] == [setbacks.meet_command_of_another() for _ in range(3)]
    setbacks.clear()
    assert 0 == setbacks.meet_command_of_another()


def test_a_throttled_agent_pauses_longer_each_time_until_a_request_succeeds(tmp_path: Path) -> None:
    """All processes of the agent see the same pause."""
    throttle, file = SharedThrottle(tmp_path), tmp_path / "throttle.json"
    pauses = []
    for _ in range(7):
        throttle.extend()
        pauses.append(SharedThrottle(tmp_path).wait_s())
        state = json.loads(file.read_text())
        file.write_text(json.dumps({**state, "until": 0}))
    assert all(
        0.7 * full <= pause <= full for full, pause in zip([1, 2, 4, 8, 16, 30, 30], pauses, strict=True)
    )
    throttle.clear()
    throttle.extend()
    assert throttle.wait_s() <= 1


def test_requests_that_are_throttled_together_count_once(tmp_path: Path) -> None:
    """Sixteen workers must not turn one refusal into half a minute."""
    throttle = SharedThrottle(tmp_path)
    for _ in range(16):
        throttle.extend()
    assert throttle.wait_s() <= 1


def test_a_clock_that_was_set_back_does_not_stretch_a_pause(tmp_path: Path) -> None:
    """An hour back would otherwise be an hour of silence."""
    (tmp_path / "throttle.json").write_text('{"level": 1, "until": 99999999999}')
    assert 0 == SharedThrottle(tmp_path).wait_s()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"level": "x", "until": 1}'])
def test_a_pause_that_can_not_be_read_is_none(tmp_path: Path, content: str) -> None:
    """A full disk cut it off."""
    (tmp_path / "throttle.json").write_text(content)
    assert 0 == SharedThrottle(tmp_path).wait_s()


PROXIES = {
    "https": "http://p:3128",
    "http": "q:80",
    "no": "internal, .example.com,10.0.0.1,host:8443,10.1.0.0/16,fd00::/8,a/b",
}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://codedeploy.eu-west-1.amazonaws.com", "http://p:3128"),
        ("http://plain.test", "http://q:80"),
        ("https://internal", None),
        ("https://a.internal", None),
        ("https://www.example.com", None),
        ("https://example.com", None),
        ("https://notexample.com", "http://p:3128"),
        ("https://10.0.0.1", None),
        ("https://10.1.2.3:8462", None),
        ("https://10.2.2.3", "http://p:3128"),
        ("https://[fd00::1]:8462", None),
        ("https://host:8443", None),
        ("https://host:443", "http://p:3128"),
    ],
)
def test_proxies_and_their_exceptions(url: str, expected: str | None) -> None:
    """no_proxy as curl understands it."""
    assert expected == proxy_for(url, PROXIES)


def test_a_star_means_no_proxy_at_all() -> None:
    """And no proxies mean none, too."""
    assert (None, None) == (proxy_for("https://x", {**PROXIES, "no": "*"}), proxy_for("https://x", {}))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"https_proxy": "http://p:1", "HTTPS_PROXY": "http://q:1"}, {"https": "http://p:1"}),
        ({"HTTP_PROXY": "http://q:1", "NO_PROXY": "a,b"}, {"http": "http://q:1", "no": "a,b"}),
        ({"https_proxy": "", "HTTPS_PROXY": "http://q:1"}, {}),
        ({"all_proxy": "socks5://p:1", "ALL_PROXY": "http://q:1"}, {}),
    ],
)
def test_of_the_environment_only_what_is_for_a_scheme_counts(
    environ: dict[str, str], expected: dict[str, str]
) -> None:
    """Of polls and of bundles alike: a host whose polls went another way than its bundles would be half a riddle."""
    assert expected == proxies_of(None, environ)


def test_the_proxy_of_the_settings_wins_and_exceptions_stay() -> None:
    """Whoever sets it means the agent; what needs no proxy is a matter of the host."""
    environ = {"https_proxy": "http://p:1", "no_proxy": "internal"}
    assert {"http": "http://s:1", "https": "http://s:1", "no": "internal"} == proxies_of(
        "http://s:1", environ
    )


class Endpoint:
    """Fails with these errors, one after the other, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


# The same in all but the waits.
QUICK = replace(FOR_QUESTIONS, longest_wait_s=0.01)
HURRIED = RequestPatience(give_up_after_s=0, longest_wait_s=0, final_types=frozenset())


def refused(error_type: str) -> RequestRefused:
    return RequestRefused("refused", error_type=error_type, status=400)


def test_a_question_is_repeated_until_it_is_answered_and_trouble_is_told_once(tmp_path: Path) -> None:
    """One line in the log, not one per attempt."""
    troubles: list[BaseException] = []
    passing = [EndpointUnavailable("a"), IdentityError("b"), refused("ExpiredTokenException"), refused("New")]
    endpoint = Endpoint(*passing)
    answer = ask_until_answered(
        endpoint, patience=QUICK, throttle=SharedThrottle(tmp_path), on_trouble=troubles.append
    )
    assert ("answer", 5, passing[:1]) == (answer, endpoint.calls, troubles)


@pytest.mark.parametrize(
    ("patience", "error_type", "calls"),
    [
        (FOR_QUESTIONS, "ClientException", 1),
        (FOR_QUESTIONS, "ValidationException", 1),
        (FOR_REPORTS, "ClientException", 1),
        (FOR_REPORTS, "ValidationException", 2),
        (FOR_REPORTS, "SerializationException", 2),
        (FOR_REPORTS, "UnknownOperationException", 2),
    ],
)
def test_only_an_answer_of_the_service_that_says_no_is_final(
    tmp_path: Path, patience: RequestPatience, error_type: str, calls: int
) -> None:
    """The command is not wanted any more: asking again would only annoy. A report is given up for that alone."""
    endpoint = Endpoint(refused(error_type))
    refusals = pytest.raises(RequestRefused) if calls == 1 else contextlib.nullcontext()
    with refusals:
        ask_until_answered(
            endpoint,
            patience=replace(patience, longest_wait_s=0.01),
            throttle=SharedThrottle(tmp_path),
            on_trouble=lambda _: None,
        )
    assert calls == endpoint.calls


def test_the_patience_for_reports_has_no_end_and_five_minutes_between_two_tries() -> None:
    """An outage of two days must not cost a report, nor an endpoint that gets up be run over."""
    assert (None, 300) == (FOR_REPORTS.give_up_after_s, FOR_REPORTS.longest_wait_s)


def test_patience_has_an_end(tmp_path: Path) -> None:
    """The last error is what the command then fails with."""
    endpoint = Endpoint(*[EndpointUnavailable(str(number)) for number in range(100)])
    with pytest.raises(EndpointUnavailable):
        ask_until_answered(
            endpoint, patience=HURRIED, throttle=SharedThrottle(tmp_path), on_trouble=lambda _: None
        )


def test_being_throttled_slows_the_whole_agent(tmp_path: Path) -> None:
    """And the first success ends that."""
    throttle = SharedThrottle(tmp_path)
    paused = []
    endpoint = Endpoint(Throttled("slow down"))
    ask_until_answered(
        endpoint,
        patience=FOR_QUESTIONS,
        throttle=throttle,
        on_trouble=lambda _: paused.append(throttle.wait_s()),
    )
    assert (True, 0) == (0 < paused[0] <= 1, throttle.wait_s())
