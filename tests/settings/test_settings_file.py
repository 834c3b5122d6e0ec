"""Configuration files: good ones beside invalid ones, each with what is said about it."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from agent.errors import ConfigurationError
from agent.settings import HARDENING_KEYS, Settings
from agent.settings_file import load_settings, parse_settings

FIXTURES = Path(__file__).parent / "fixtures"
SAMPLE = Path(__file__).resolve().parents[2] / "conf" / "codedeployagent.yml"


def case(path: Path) -> tuple[bytes, list[str]]:
    """A fixture: YAML, then after `# expect:` one line for each thing that must be said."""
    text = path.read_text()
    expected = [line.partition("# expect: ")[2] for line in text.splitlines() if "# expect: " in line]
    return text.encode(), expected


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("invalid_*.yml")), ids=lambda path: path.stem)
def test_everything_wrong_with_a_file_is_said_at_once_with_its_line(path: Path) -> None:
    """At 3 a.m. nobody wants to fix one line, restart, and learn of the next."""
    text, expected = case(path)
    with pytest.raises(ConfigurationError) as caught:
        parse_settings(text, source="agent.yml")
    assert expected == [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("good_*.yml")), ids=lambda path: path.stem)
def test_a_good_file_loads_and_its_oddities_are_named(path: Path) -> None:
    """Files of the existing agents must load as they are."""
    text, expected = case(path)
    loaded = parse_settings(text, source="agent.yml")
    assert expected == [str(warning) for warning in loaded.warnings]


def test_both_ways_to_write_a_key_mean_the_same() -> None:
    """The existing agent's own file has `:key:`, what people write has `key:`."""
    symbols = parse_settings(b"---\n:max_revisions: 3\n:verbose: true\n", source="a").settings
    plain = parse_settings(b"max_revisions: 3\nverbose: true\n", source="b").settings
    assert symbols == plain == Settings(max_revisions=3, verbose=True)


def test_an_empty_file_means_the_defaults() -> None:
    """A file with nothing but comments is a fair way to say: as you like."""
    assert Settings() == parse_settings(b"# nothing\n", source="a").settings


def test_strict_hardening_turns_on_every_key_that_is_not_written() -> None:
    """One line for those who start afresh, with a way out for the one key that hurts."""
    text = b"hardening: strict\nreject_symlinks_in_bundle: false\n"
    settings = parse_settings(text, source="a").settings
    expected = {name: name != "reject_symlinks_in_bundle" for name in HARDENING_KEYS}
    assert expected == {name: getattr(settings, name) for name in HARDENING_KEYS}


def test_settings_survive_the_way_to_the_daemon() -> None:
    """The launcher hands them over as JSON."""
    settings = parse_settings(
        b"root_dir: /srv/root\ndeployment_signer_ca_file: /ca.pem\narchive_max_extraction_size: 1GiB\n"
        b"environment: {A: b}\nwait_between_runs: 0.5\nfollow_links_of_others: [/a/*]\n",
        source="a",
    ).settings
    assert settings == Settings.from_json(json.loads(json.dumps(settings.to_json())))


def test_the_sample_configuration_names_every_key_and_holds_the_defaults() -> None:
    """It is the reference that people read; a key that is missing there does not exist for them."""
    text = SAMPLE.read_text()
    missing = [
        item.name
        for item in fields(Settings)
        if f"\n{item.name}:" not in text and f"\n# {item.name}:" not in text
    ]
    loaded = load_settings(SAMPLE)
    assert ([], (), Settings(wait_between_runs=1.0)) == (missing, loaded.warnings, loaded.settings)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The usual first mistake."""
    with pytest.raises(ConfigurationError, match="No such file or directory.*--config-file"):
        load_settings(tmp_path / "none.yml")
