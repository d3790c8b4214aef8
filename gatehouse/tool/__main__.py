"""`gatehouse`: what people do on the host."""

import importlib
from importlib.metadata import PackageNotFoundError, version

import click

# Name → where the command is, and what `gatehouse --help` says of it. A command is imported when it
# is called: `gatehouse models list` needs nothing that talks to a graphics card.
COMMANDS = {
    "engine": (
        "gatehouse.tool.engine:engine",
        "List, start, stop and explain the local models' engines.",
    ),
    "keys": (
        "gatehouse.tool.keys:keys",
        "List, make, rotate and revoke the virtual keys.",
    ),
    "models": (
        "gatehouse.tool.models:models",
        "Download, list and verify the engines' model files.",
    ),
    "spend": ("gatehouse.tool.spend:spend", "What was asked and spent, by key, team or model."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's call
        """Give the names."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - a promise of our own table
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list without importing what it names."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in sorted(COMMANDS.items())])


def _version() -> str:
    try:
        return version("gatehouse")
    except PackageNotFoundError:  # run from a checkout that nobody installed
        return "unknown"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), prog_name="gatehouse")
def main() -> None:
    """Work with the gateway of this host.

    \b
    gatehouse engine list            what is loaded, what sleeps, what it needs
    gatehouse engine plan            who holds the memory, and who would make room
    gatehouse models list            which model files are there
    sudo gatehouse models pull NAME  download the files of an engine

    Exit codes: 0 fine, 1 a problem was found, 2 it could not look (or the command was wrong).
    """  # noqa: D301 - click's mark for a block that stays as it is


if __name__ == "__main__":
    main(prog_name="gatehouse")
