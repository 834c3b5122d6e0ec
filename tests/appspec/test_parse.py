"""Rules of parsing that need more than one text."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.appspec import impossible_events, parse_appspec
from agent.errors import AppSpecInvalid, Problem
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


def test_for_one_event_nothing_else_is_read() -> None:
    """What another agent has deployed must stop, whatever else its file says."""
    text = HOOKS + b"  BeforeInstall: [{location: c, timeout: 5m}]\nfiles: [a]\npermissions: [{mode: 9}]\n"

    appspec = parse_appspec(text, path="appspec.yml", only_event="AfterInstall")

    assert {"AfterParty": 0, "AfterInstall": 1, "BeforeInstall": 0} == {
        event: len(scripts) for event, scripts in appspec.hooks.items()
    }
    with pytest.raises(AppSpecInvalid, match="timeout"):
        parse_appspec(text, path="appspec.yml", only_event="BeforeInstall")


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


def test_a_message_repeats_what_is_wrong_but_not_without_end() -> None:
    """The reader finds the place by what stands there; a report has room for 2 KB of it."""
    bomb = b"x0: &x0 [{location: a}]\n" + b"".join(
        b"x%d: &x%d [*x%d, *x%d]\n" % (i, i, i - 1, i - 1) for i in range(1, 30)
    )
    with pytest.raises(AppSpecInvalid) as caught:
        parse_appspec(HEAD + bomb + b"hooks: {AfterInstall: {location: h.sh, x: *x29}}\n", path="appspec.yml")

    assert "not the mapping {location: 'h.sh', x: [[[[[" in caught.value.message
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    "text",
    [
        b"hooks: {AfterInstall: [{environment: {PASSWORD: hunter2}}]}\n",
        b"hooks: {AfterInstall: {location: a, environment: {PASSWORD: hunter2}}}\n",
        b"hooks: {AfterInstall: [{location: a, environment: [PASSWORD=hunter2]}]}\n",
        b"hooks: {AfterInstall: [{location: a, environment: {PASSWORD: [hunter2]}}]}\n",
        b"environment: PASSWORD=hunter2\n",
        b"environment: {PASSWORD: {is: hunter2}}\n",
    ],
)
def test_no_message_repeats_a_variable(text: bytes) -> None:
    """Messages go into the reports of a deployment, which more people read than may know its passwords."""
    try:
        notes = parse_appspec(HEAD + text, path="appspec.yml").warnings
    except AppSpecInvalid as error:
        notes = error.problems

    assert notes
    assert not [note.message for note in notes if "hunter2" in note.message]


def test_a_deployment_without_any_event_for_scripts_says_so() -> None:
    """The list that the specification gives is empty, which is not the same as none."""
    text = b"version: 0.0\nos: linux\nhooks:\n  AfterInstall: [{location: a.sh}]\n"
    with pytest.raises(AppSpecInvalid) as caught:
        parse_appspec(text, path="appspec.yml", possible_events=[])
    assert (
        "'AfterInstall' is not a lifecycle event of this deployment; it has no events for scripts"
        in caught.value.message
    )


def test_impossible_events_are_listed_up_to_a_limit() -> None:
    """The same limit as for other problems, also when a file has nothing but them."""
    events = b"".join(b"  E%d: [{location: a}]\n" % i for i in range(5000))
    appspec = parse_appspec(HEAD + b"hooks:\n" + events, path="appspec.yml")

    assert 50 == len(impossible_events(appspec, LIFECYCLE_EVENTS))


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


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.dates(),
    st.text(max_size=8),
    st.sampled_from(
        ["0.0", "linux", "/", "a.sh", "..", "644", "u:b:rw", "d:g:s:7", "s0:c0.c1.c2", "s3-s2", "file", "5m"]
    ),
)
KEYS = st.sampled_from(
    [
        "version", "os", "files", "permissions", "hooks", "file_exists_behavior", "environment", "source", "destination",
        "object", "pattern", "except", "owner", "group", "mode", "acls", "context", "type", "user", "name", "range", "role",
        "location", "timeout", "runas", "sudo", "login", "args", "AfterInstall", "Install", "overwrite", "file", "<<",
    ]
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=20,
)
SECTIONS = ("files", "permissions", "hooks", "environment", "file_exists_behavior", "version", "os")


@settings(max_examples=400, deadline=None, database=None)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(SECTIONS, VALUES)))
@example({"permissions": [{"object": "a", "context": {"type": "t", "range": "s0:c0.c1.c2"}}]})
def test_any_values_are_an_appspec_or_invalid(values: dict[str, object]) -> None:
    """Whatever stands where something else is expected is a problem with a place, not a language error."""
    document = {"version": 0.0, "os": "linux", **values}

    text = yaml.safe_dump(document, allow_unicode=True, sort_keys=False).encode()

    problems = problems_of(text)
    assert all(problem.message and problem.line > 0 for problem in problems)


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
    assert all(problem.message for problem in problems_of(text))


def problems_of(text: bytes) -> tuple[Problem, ...]:
    """The problems of a text; if it is refused without any, one that says nothing."""
    try:
        parse_appspec(text, path="appspec.yml")
    except AppSpecInvalid as error:
        return error.problems or (Problem(message=""),)
    return ()


def test_an_appspec_with_very_many_problems_does_not_claim_to_list_them_all() -> None:
    """Whoever has corrected fifty lines and meets fifty more should have known."""
    entry = "  - source: a\n    destination: ''\n"
    with pytest.raises(AppSpecInvalid) as caught:
        parse_appspec(f"version: 0.0\nos: linux\nfiles:\n{entry * 60}".encode(), path="appspec.yml")
    assert "appspec.yml has 50 problems, after which it was read no further: line 5," in caught.value.message
