"""`agentctl explain`: what an error id means, and what to do about it."""

from __future__ import annotations

import difflib
import sys
from importlib import resources

import click
import yaml
from click.shell_completion import CompletionItem


def _offer_ids(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    return [
        CompletionItem(error_id, help=texts["summary"])
        for error_id, texts in sorted(load_explanations().items())
        if error_id.startswith(incomplete)
    ]


@click.command("explain")
@click.argument("error_id", required=False, shell_complete=_offer_ids)
def command(error_id: str | None) -> None:
    """Explain an error id, as it stands in brackets after an error message.

    Without an id, list them all.

    \b
    Examples:
      agentctl explain bundle-not-found
      agentctl explain
    """  # noqa: D301 - click takes \b for: keep these lines
    explanations = load_explanations()
    if error_id is None:
        for name, texts in sorted(explanations.items()):
            click.echo(f"{name:<36} {texts['summary']}")
        return
    error_id = _as_written(error_id)
    texts = explanations.get(error_id, {})
    if not texts:
        near = difflib.get_close_matches(error_id, explanations, n=3, cutoff=0.4)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        click.echo(f"agentctl: there is no error id {error_id}.{hint}", err=True)
        sys.exit(2)
    click.echo(f"{error_id}\n\n{texts['summary']}\n")
    click.echo(f"Why:\n  {texts['cause']}\n\nWhat to do:\n  {texts['remedy']}")


def _as_written(error_id: str) -> str:
    """The id as messages have it: copied with brackets and a full stop, from a log line, or typed by hand."""
    _, _, value = error_id.rpartition("=")
    return value.strip(" []().,;:'\"").lower().replace("_", "-")


def load_explanations() -> dict[str, dict[str, str]]:
    """Every error id → its `summary`, `cause` and `remedy`."""
    explanations: dict[str, dict[str, str]] = {}
    for file in resources.files("agent.cli").joinpath("explanations").iterdir():
        if file.name.endswith(".yml"):
            for name, texts in (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).items():
                explanations[name] = {part: " ".join(text.split()) for part, text in texts.items()}
    return explanations
