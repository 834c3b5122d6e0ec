"""The manual pages say what the programs do: every command, option, exit code and setting, and none that is not there."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from agent.cli.main import agentctl
from agent.settings import Settings
from agent.settings_file import parse_settings
from tests.daemon.agent_process import AGENTCTL, clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterable

PACKAGING = Path(__file__).parents[2] / "packaging"
PAGES = {path.name: path for path in sorted((PACKAGING / "man").iterdir())}
OVERVIEW = click.Context(agentctl)
COMMANDS = {name: agentctl.get_command(OVERVIEW, name) for name in agentctl.list_commands(OVERVIEW)}
HELP = {"-h", "--help"}
NOT_OURS = {"nohup(1)"}


def text_of(page: str) -> str:
    return PAGES[page].read_text(encoding="utf-8")


def sections(page: str, macro: str) -> dict[str, str]:
    """Name → text of each section (Sh) or subsection (Ss); a name is the first word."""
    parts = re.split(rf"^\.{macro} (.*)\n", re.sub(r"^\.\\\".*\n", "", text_of(page)), flags=re.MULTILINE)
    found = {}
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        name = title if macro == "Sh" else title.split()[0]
        found[name] = text if macro == "Sh" else text.partition("\n.Sh ")[0]
    return found


def items(text: str, macro: str) -> list[str]:
    """The lines of lists that begin with this macro, without it."""
    return re.findall(rf"^\.It {macro} (.*)$", text, flags=re.MULTILINE)


def listed_options(text: str) -> set[str]:
    """Those that have an item of their own."""
    return {f"-{name}" for line in items(text, "Fl") for name in re.findall(r"Fl (\S+)", f"Fl {line}")}


def exit_codes(text: str) -> set[str]:
    return set(re.findall(r"^\.It (\d+)$", text, flags=re.MULTILINE))


def command(name: str) -> click.Command:
    found = COMMANDS[name]
    assert found is not None
    return found


def options_of(name: str) -> list[click.Option]:
    return [item for item in command(name).params if isinstance(item, click.Option)]


def written(options_: Iterable[click.Option]) -> set[str]:
    return {text for option in options_ for text in (*option.opts, *option.secondary_opts)}


def told_by(script: str, *arguments: str) -> str:
    """What this shell script of ours prints."""
    done = subprocess.run(
        ["sh", PACKAGING / "commands" / script, *arguments],
        env=clean_environment(PATH=f"{AGENTCTL.parent}:/usr/bin:/bin"),
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def test_every_command_that_is_installed_and_the_configuration_have_a_page() -> None:
    """What `systemctl status` and the help texts refer to is there."""
    scripts = {path.name for path in (PACKAGING / "commands").iterdir()}
    assert {"agentctl", "codedeployagent.yml", *scripts} == {name.rpartition(".")[0] for name in PAGES}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_filed_under_its_name_and_its_section(page: str) -> None:
    """A page with another title is not found by whoever looks for what it says."""
    name, _, section = page.rpartition(".")
    assert f"\n.Dt {name.upper()} {section}\n" in text_of(page)
    assert f"\n.Nm {name}\n.Nd " in text_of(page)


@pytest.mark.parametrize("page", PAGES)
def test_pages_refer_only_to_pages_that_are_there(page: str) -> None:
    """A reference that leads nowhere is worse than none."""
    references = {
        f"{name}({section})" for name, section in re.findall(r"^\.Xr (\S+) (\d)", text_of(page), re.MULTILINE)
    }
    assert references <= {f"{name[:-2]}({name[-1]})" for name in PAGES} | NOT_OURS


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    "formatter", [("mandoc", "-T", "lint", "-W", "warning"), ("groff", "-mandoc", "-T", "utf8", "-ww", "-z")]
)
def test_formatters_have_nothing_to_say_against_a_page(formatter: tuple[str, ...], page: str) -> None:
    """Distributions have the one or the other."""
    if shutil.which(formatter[0]) is None:
        pytest.skip(f"{formatter[0]} is not installed")
    done = subprocess.run(
        [*formatter, PAGES[page]], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert (0, "") == (done.returncode, done.stdout)


def test_agentctl_has_all_subcommands_in_the_order_of_its_help() -> None:
    """Whoever looks through the page must find what there is."""
    assert list(COMMANDS) == list(sections("agentctl.1", "Ss"))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_subcommand_has_all_its_options_and_no_other(name: str) -> None:
    """An option that was renamed is the one that is typed at 3 a.m."""
    assert written(options_of(name)) - HELP == listed_options(sections("agentctl.1", "Ss")[name])


@pytest.mark.parametrize("name", COMMANDS)
def test_a_subcommand_has_the_defaults_of_its_options(name: str) -> None:
    """What happens if nothing is said is the first thing to know of an option."""
    text = sections("agentctl.1", "Ss")[name]
    for option in options_of(name):
        if option.show_default and not isinstance(option.default, Path):
            assert re.search(rf"\b{re.escape(str(option.default))}\b", text), option.opts


@pytest.mark.parametrize("name", COMMANDS)
def test_a_subcommand_has_the_exit_codes_of_its_help(name: str) -> None:
    """Scripts decide by them."""
    told = re.search(r"Exit codes: (.*?)\n\n", command(name).help or "", re.DOTALL)
    codes = set(re.findall(r"\b\d+\b", told[1])) if told else set()
    assert codes == exit_codes(sections("agentctl.1", "Ss")[name])


def test_agentctl_itself_has_its_options_and_exit_codes() -> None:
    """Those that hold for every subcommand stand there once."""
    page = sections("agentctl.1", "Sh")
    assert written(
        item for item in agentctl.params if isinstance(item, click.Option)
    ) | HELP == listed_options(page["DESCRIPTION"])
    told = re.search(r"Exit codes, [^:]*: (.*)", agentctl.help or "")
    assert told
    assert set(re.findall(r"\d+", told[1])) == exit_codes(page["EXIT STATUS"])


def test_no_option_is_mentioned_that_does_not_exist() -> None:
    """Also not in the middle of a sentence, or in an example."""
    existing = set.union(HELP, {"--version"}, *(written(options_of(name)) for name in COMMANDS))
    lines = text_of("agentctl.1").splitlines()
    mentioned = {f"-{name}" for line in lines for name in re.findall(r"\bFl (-?\w[\w-]*)", line)}
    examples = {
        word for line in lines if line[:8] == ".Dl agen" for word in line.split() if word.startswith("-")
    }
    assert set() == (mentioned | examples) - existing
    assert examples


def test_codedeploy_local_has_the_options_and_exit_codes_of_agentctl_deploy() -> None:
    """They are one program. What its own help tells is the same."""
    page = "codedeploy-local.1"
    listed = listed_options(text_of(page))
    assert written(options_of("deploy")) | HELP | {"-v", "--version"} == listed
    told = told_by("codedeploy-local", "--help")
    in_help = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", told))
    assert listed - {"--config-file"} == in_help
    assert exit_codes(sections("agentctl.1", "Ss")["deploy"]) == exit_codes(text_of(page))


def test_codedeploy_agent_has_the_commands_and_options_of_its_help() -> None:
    """And those that are understood for the sake of old scripts, too."""
    told = told_by("codedeploy-agent", "--help")
    commands = set(re.findall(r"^  ([a-z]+) ", told, re.MULTILINE))
    page = text_of("codedeploy-agent.8")
    listed = set(re.findall(r"[a-z-]+", " ".join(items(page, "Cm"))))
    assert commands | {"force-reload"} == listed
    in_help = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", told))
    assert in_help | {"-c", "--config-file"} == listed_options(page)
    assert {"0", "1", "2", "3", "4"} == exit_codes(page)


def test_the_commands_and_options_of_codedeploy_agent_are_understood() -> None:
    """All that the page lists stands in the script as well."""
    script = (PACKAGING / "commands/codedeploy-agent").read_text(encoding="utf-8")
    page = text_of("codedeploy-agent.8")
    for word in listed_options(page) | set(re.findall(r"[a-z-]+", " ".join(items(page, "Cm")))):
        assert re.search(rf"^ +([\w|* =-]* \| )?{word}( \| [\w|* =-]*)?\)", script, re.MULTILINE), word


def test_every_setting_is_on_its_page_in_the_order_of_the_file() -> None:
    """What is not there does not exist for who configures the agent; what is only there has no effect."""
    named = [line.split()[0] for line in items(text_of("codedeployagent.yml.5"), "Ic")]
    assert [item.name for item in fields(Settings)] == named


def test_every_setting_has_its_default_on_the_page() -> None:
    """Each item is the very line that sets the default."""
    lines = [
        line.replace(" :", ":").replace(" Ar ", " ") for line in items(text_of("codedeployagent.yml.5"), "Ic")
    ]
    assert Settings() == parse_settings("\n".join(lines).encode(), source="the page").settings


def test_the_example_of_a_configuration_is_one() -> None:
    """It is what people copy."""
    example = re.search(r"\.Bd -literal.*?\n(.*?)\.Ed", text_of("codedeployagent.yml.5"), re.DOTALL)
    assert example
    loaded = parse_settings(example[1].encode(), source="the example")
    assert () == loaded.warnings
    assert {"STAGE": "production"} == loaded.settings.environment
