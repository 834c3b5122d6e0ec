"""`agentctl`: one file per subcommand, loaded only when it is called."""

from __future__ import annotations

import importlib
import sys

import click
from click.shell_completion import CompletionItem

from agent import __version__
from agent.cli.edge import call

# Name → one line for the overview. The module of the same name (with _ for -) has the command as `command`.
_SUBCOMMANDS = {
    "deploy": "Deploy a revision on this host, without a control endpoint",
    "drain": "Take no more commands, and say when the host is idle",
    "explain": "Explain an error id, such as bundle-not-found",
    "plan": "Say what Install of a revision would do on this host, and change nothing",
    "recover": "Undo or complete Installs that were interrupted",
    "run": "Run the agent in the foreground",
    "status": "Say what the agent on this host is doing, and what it did last",
    "stop": "Stop the agent; running commands are carried to their end",
    "version": "Print the version",
    "wait-idle": "Wait until no command runs on this host",
    "whoami": "Say who this host is for the service, and how the agent found out",
}


class _Subcommands(click.Group):
    """Knows the subcommands by name; imports one when it is wanted."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(_SUBCOMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _SUBCOMMANDS:
            return None
        command: click.Command = importlib.import_module(f"agent.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUBCOMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """What TAB offers for the first word; nothing is imported for it."""
        offered = [
            CompletionItem(name, help=line)
            for name, line in _SUBCOMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*offered, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(cls=_Subcommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="agentctl")
def agentctl() -> None:
    """The deployment agent of this host.

    Exit codes, unless a command says otherwise: 0 done, 1 failed, 2 bad input.
    """


def main() -> None:
    """Entry point of the console script."""
    sys.exit(call(lambda: agentctl(standalone_mode=False), _subcommand))


def _subcommand() -> str:
    """The first word of the command line that names one; options before it take no values."""
    return next((word for word in sys.argv[1:] if not word.startswith("-")), "")
