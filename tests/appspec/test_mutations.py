"""What people and tools do to an AppSpec that was good: it stays one, or is refused with a place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.appspec import AppSpec, impossible_events, parse_appspec, require_effect
from agent.errors import AppSpecInvalid
from agent.protocol import LIFECYCLE_EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable

FIXTURES = sorted(Path(__file__).with_name("fixtures").glob("*.yml"))
TEXTS = [text for path in FIXTURES if len(text := path.read_bytes()) < 2000]

SNIPPETS = st.sampled_from(
    [
        b"\t", b"\n", b"\r\n", b"  ", b": ", b"- ", b"'", b'"', b"{", b"}", b"[", b"]", b"&a ", b"*a", b"<<: *a\n", b"<<: x\n",
        b"!Sub ", b"!!python/name:os.system ", b"!!binary ", b"!!set ", b"!ruby/object:Gem ", b"? ", b"---\n", b"...\n", b"#",
        b"|\n", b">\n", b"%YAML 1.1\n", b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xc2\x85", b"\xe2\x80\xa8", b"~", b"null",
        b"true", b"no", b"1_000", b"0x1f", b"1e3", b"2024-01-01", b".inf", b"''", b"[]", b"{}", b"{{ x }}", b"${X}", b"../", b"/",
        b"<<<<<<< HEAD\n", b"=======\n", b">>>>>>> next\n", b"hooks:\n", b"Hooks:\n", b"files:\n", b"Resources:\n", b"AfterInstall:\n",
        b"afterInstall: [{location: a}]\n", b"environment: [A=b]\n", b"- BeforeInstall: f\n", b"Type: AWS::ECS::Service\n", b"[" * 40,
    ]
)  # fmt: skip


def _cut(text: bytes, start: int, length: int, _snippet: bytes) -> bytes:
    return text[:start] + text[start + length :]


def _insert(text: bytes, start: int, _length: int, snippet: bytes) -> bytes:
    return text[:start] + snippet + text[start:]


def _replace(text: bytes, start: int, length: int, snippet: bytes) -> bytes:
    return text[:start] + snippet + text[start + length :]


def _repeat(text: bytes, start: int, length: int, _snippet: bytes) -> bytes:
    return text[: start + length] + text[start:]


def _indent(text: bytes, start: int, length: int, _snippet: bytes) -> bytes:
    lines = text.split(b"\n")
    number = start % len(lines)
    lines[number] = b" " * (length % 5) + lines[number].lstrip(b" ")
    return b"\n".join(lines)


def _change_case(text: bytes, start: int, length: int, _snippet: bytes) -> bytes:
    return text[:start] + text[start : start + length].swapcase() + text[start + length :]


def _re_encode(text: bytes, _start: int, _length: int, _snippet: bytes) -> bytes:
    return text.decode("utf-8", "replace").encode("utf-16")


CHANGES: list[Callable[[bytes, int, int, bytes], bytes]] = [
    _cut, _insert, _insert, _replace, _repeat, _indent, _change_case, _re_encode
]  # fmt: skip
STEPS = st.lists(
    st.tuples(st.sampled_from(CHANGES), st.integers(0, 2000), st.integers(0, 12), SNIPPETS),
    min_size=1,
    max_size=4,
)


@settings(max_examples=400, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(TEXTS), STEPS)
def test_a_changed_appspec_is_an_appspec_or_refused_with_a_place(
    text: bytes, steps: list[tuple[Callable[[bytes, int, int, bytes], bytes], int, int, bytes]]
) -> None:
    """A slip of the editor must never end a worker, and is found where it was made."""
    for change, start, length, snippet in steps:
        text = change(text, start % (len(text) + 1), length, snippet)

    _check(text)


def _check(text: bytes) -> None:
    lines = max(len(text.split(b"\n")), len(text.decode("utf-8", "replace").splitlines())) + 1
    outcome = _outcome_of(text)
    if isinstance(outcome, AppSpec):
        _check_whole(outcome)
        return
    assert outcome.error_id == "appspec-invalid"
    assert outcome.message.startswith("The AppSpec file appspec.yml has ")
    assert outcome.problems
    for problem in outcome.problems:
        assert problem.message
        assert problem.message.isprintable(), problem.message
        assert 0 <= problem.line <= lines
        # What is missing altogether, or is no text, is nowhere.
        assert problem.line or any(text in problem.message for text in ("empty", "UTF-8", "UTF-16"))


def _outcome_of(text: bytes) -> AppSpec | AppSpecInvalid:
    try:
        appspec = parse_appspec(text, path="appspec.yml")
        require_effect(appspec)
    except AppSpecInvalid as error:
        return error
    return appspec


def _check_whole(appspec: AppSpec) -> None:
    """What the rest of the agent relies on."""
    for mapping in appspec.files:
        assert mapping.source
        assert mapping.destination
        assert "\0" not in mapping.source + mapping.destination
        assert mapping.line
    for permission in appspec.permissions:
        assert permission.object
        assert permission.types
        assert permission.mode is None or 0 <= int(permission.mode, 8) <= 0o7777
    for scripts in appspec.hooks.values():
        for script in scripts:
            assert script.location
            assert 0 < script.timeout_s < float("inf")
            assert script.runas is None or script.runas
            assert not (script.login and script.sudo)
    for warning in appspec.warnings:
        assert warning.line
        assert warning.message.isprintable(), warning.message
    assert all(problem.line for problem in impossible_events(appspec, LIFECYCLE_EVENTS))


KEYS = [
    "version", "os", "files", "permissions", "hooks", "file_exists_behavior", "environment", "Files", "Hooks", "Resources",
    "source", "destination", "object", "pattern", "except", "owner", "group", "mode", "acls", "context", "type", "user", "name",
    "range", "role", "location", "timeout", "runas", "sudo", "login", "args", "AfterInstall", "afterInstall", "Install",
]  # fmt: skip
ANYTHING = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.dates(), st.datetimes(), st.binary(max_size=4), st.text(max_size=6),
        st.sampled_from(["0.0", "linux", "/", "644", "u:b:rw", "d:g:s:7", "s0:c1", "file", "1_000", "AWS::Lambda::Function", "", " "]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), st.integers(), st.none()), inner, max_size=3),
        st.sets(st.integers(), max_size=2),
    ),
    max_leaves=12,
)  # fmt: skip


def _put(document: object, path: list[int], value: object) -> object:
    """The document with this value somewhere in it; the numbers choose where."""
    if not path or not isinstance(document, list | dict) or not document:
        return value
    if isinstance(document, list):
        number = path[0] % len(document)
        return [
            _put(item, path[1:], value) if index == number else item for index, item in enumerate(document)
        ]
    key = list(document)[path[0] % len(document)]
    return {name: _put(item, path[1:], value) if name == key else item for name, item in document.items()}


EVERYTHING = yaml.safe_load(
    (Path(__file__).with_name("fixtures") / "everything.yml").read_text(encoding="utf-8")
)


@settings(max_examples=200, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), ANYTHING)
def test_any_value_in_any_place_is_an_appspec_or_refused_with_a_place(path: list[int], value: object) -> None:
    """Templates leave lists, dates and nothing at all where a text is expected."""
    text = yaml.safe_dump(_put(EVERYTHING, path, value), allow_unicode=True, sort_keys=False).encode()

    _check(text)
