"""Rules of parsing that need more than one text."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.appspec import AppSpec, impossible_events, parse_appspec
from agent.errors import AppSpecInvalid
from agent.protocol import LIFECYCLE_EVENTS, ErrorCode

HEAD = b"version: 0.0\nos: linux\n"
HOOKS = HEAD + b"hooks:\n  AfterParty: [{location: a}]\n  AfterInstall: [{location: b}]\n"


def test_events_outside_the_deployments_list_are_refused_with_their_place() -> None:
    """A script that would never run is a mistake, and Install is the moment to say so."""
    with pytest.raises(AppSpecInvalid) as caught:
        parse_appspec(HOOKS, path="appspec.yml", possible_events=LIFECYCLE_EVENTS)

    assert ["AfterParty" in problem.message for problem in caught.value.problems] == [True]
    assert (4, 3) == (caught.value.problems[0].line, caught.value.problems[0].column)


def test_without_a_list_any_event_may_have_scripts() -> None:
    """Custom events run when they are mapped."""
    appspec = parse_appspec(HOOKS, path="appspec.yml")

    assert ["AfterParty", "AfterInstall"] == list(appspec.hooks)
    assert [] == impossible_events(appspec, ["AfterParty", "AfterInstall"])


def test_a_misspelt_event_gets_the_right_spelling() -> None:
    """The nearest name saves a look into the manual."""
    appspec = parse_appspec(HEAD + b"hooks:\n  AfterInstal: [{location: a}]\n", path="appspec.yml")

    assert "did you mean 'AfterInstall'?" in impossible_events(appspec, LIFECYCLE_EVENTS)[0].message


def test_all_problems_are_reported_at_once_in_the_order_of_the_file() -> None:
    """One deployment for each mistake is a slow way to find them."""
    with pytest.raises(AppSpecInvalid) as caught:
        parse_appspec(b"os: Linux\nhooks: [a]\nfiles: b\nversion: 1\n", path="x/appspec.yml")

    assert [1, 2, 3, 4] == [problem.line for problem in caught.value.problems]
    assert "x/appspec.yml has 4 problems" in caught.value.message
    assert (ErrorCode.UNKNOWN, "appspec-invalid") == (caught.value.code, caught.value.error_id)


def test_a_file_with_very_many_problems_lists_some() -> None:
    """The message has to fit into a report."""
    with pytest.raises(AppSpecInvalid) as caught:
        parse_appspec(HEAD + b"files:\n" + b"  - x\n" * 5000, path="appspec.yml")

    assert 50 == len(caught.value.problems)


def test_importing_the_room_does_not_import_yaml() -> None:
    """A command that needs no AppSpec must not pay for the parser."""
    code = "import sys, agent.appspec; sys.exit('yaml' in sys.modules)"

    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode


YAML_WORDS = st.lists(
    st.sampled_from(
        [
            "version: 0.0\n", "os: linux\n", "files:\n", "hooks:\n", "permissions:\n", "  - ", "    ", "\n", ": ", "&a ",
            "*a", "<<: ", "[", "]", "{", "}", "source: a\n", "destination: /b\n", "AfterInstall:\n", "location: c\n",
            "acls: ", "u:b:rw", "mode: 0644\n", "'", '"', "|\n", ">\n", "? ", "!!str ", "---\n", "...\n", "#", "\t", "~",
            "type: ", "timeout: 1\n", "ü", "\ufeff", "%YAML 1.1\n", "environment: ", "context: ", "object: x\n",
        ]
    ),
    max_size=30,
).map("".join)  # fmt: skip


@settings(max_examples=600, deadline=None, database=None)
@given(
    st.one_of(
        st.binary(max_size=200), YAML_WORDS.map(str.encode), YAML_WORDS.map(lambda text: HEAD + text.encode())
    )
)
@example(b"\xef\xbb\xbf\xef\xbb\xbf")
@example(b"\xff\xfe")
@example(b"\xfe\xff\xd8")
@example("a: \ud800".encode("utf-8", "surrogatepass"))
@example(b"a: b\n...\n]")
@example(b"? \n<<: [*a]")
def test_any_bytes_are_an_appspec_or_invalid(text: bytes) -> None:
    """A worker must never end with a language error because of what a bundle holds."""
    outcome: AppSpec | AppSpecInvalid
    try:
        outcome = parse_appspec(text, path="appspec.yml")
    except AppSpecInvalid as error:
        outcome = error

    if isinstance(outcome, AppSpecInvalid):
        assert all(problem.message for problem in outcome.problems)
        assert len(outcome.problems) > 0
