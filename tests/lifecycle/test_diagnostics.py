"""The payload of completion reports."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import CommandFailure
from agent.lifecycle.diagnostics import NOOP_MESSAGE, failure_payload, success_payload
from agent.protocol import ErrorCode

ANY_TEXT = st.text(st.characters(codec=None), max_size=3000) | st.builds(
    lambda text, times: text * times,
    st.text(st.characters(codec=None), min_size=1, max_size=8),
    st.integers(min_value=1, max_value=9000),
)


def failure(
    message: str, *, log: str = "", script_name: str = "", code: ErrorCode = ErrorCode.SCRIPT_FAILED
) -> str:
    return failure_payload(
        CommandFailure("hook-failed", message, code=code, script_name=script_name, log=log)
    )


def test_a_success_says_so_in_the_words_that_the_service_knows() -> None:
    """Consoles and the service itself look at the beginning of the message."""
    expected = {"error_code": 0, "script_name": "", "message": "Succeeded: ", "log": ""}
    assert expected == json.loads(success_payload())


@pytest.mark.parametrize("message", [NOOP_MESSAGE, "BundleSource=downloaded"])
def test_a_success_may_have_more_to_say(message: str) -> None:
    """The service parses what follows."""
    assert f"Succeeded: {message}" == json.loads(success_payload(message))["message"]


def test_a_success_brings_the_hook_output_along() -> None:
    """Whoever looks at a deployment in the console sees what its scripts said."""
    assert json.loads(success_payload(log="[stdout]grün 文\n"))["log"] == "[stdout]grün 文\n"


def test_a_failure_names_code_script_message_and_log() -> None:
    """This is all that the console shows."""
    payload = failure("It failed.", log="[stdout]a\n", script_name="h.sh")
    assert {
        "error_code": 4,
        "script_name": "h.sh",
        "message": "It failed.",
        "log": "[stdout]a\n",
    } == json.loads(payload)


def test_lost_work_is_reported_in_the_words_that_the_service_knows() -> None:
    """Code 7 has a message of a certain beginning."""
    payload = failure("The host was restarted.", code=ErrorCode.FAILED_AFTER_RESTART)
    assert json.loads(payload)["message"] == "Failed: The host was restarted."


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_no_text_makes_a_payload_that_the_service_refuses(message: str, log: str, script_name: str) -> None:
    """A refused report leaves the deployment hanging until its timeout."""
    payload = failure(message, log=log, script_name=script_name)
    assert len(payload.encode()) <= 8192
    assert json.loads(payload)["error_code"] == 4


def test_the_log_gives_way_before_the_message_does() -> None:
    """The message says what to do; the log is also on the host."""
    payload = json.loads(failure("m" * 7000, log="first" + "\x01" * 1000 + "last"))
    assert payload["message"] == "m" * 7000
    assert payload["log"].endswith("last")
    assert not payload["log"].startswith("first")


def test_of_a_message_that_is_too_long_beginning_and_end_stay() -> None:
    """What failed stands first; what to do, the last words of a script and the id stand at the end."""
    text = "It failed. " + "x" * 9000 + " Do this. Last of its standard error: oops. [hook-failed]"
    payload = json.loads(failure(text, log="first" + "l" * 2000 + "last"))
    assert payload["message"].startswith("It failed. xxx")
    assert "x…x" in payload["message"]
    assert payload["message"].endswith("x Do this. Last of its standard error: oops. [hook-failed]")
    assert payload["log"].endswith("last")
    assert 990 < len(payload["log"]) <= 1000


def test_names_that_are_no_utf_8_can_be_reported() -> None:
    """A file name in another encoding must not cost the whole report."""
    assert json.loads(failure("m", script_name="h\udcff.sh"))["script_name"] == "h�.sh"
