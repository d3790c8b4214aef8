"""`gatehouse`: what people do on the host."""

import importlib
import sys
import traceback
from typing import Any

import click

from gatehouse.version import version

# Name → where the command is, and what `gatehouse --help` says of it. A command is imported when it
# is called: `gatehouse models list` needs nothing that talks to a graphics card.
COMMANDS = {
    "audit": (
        "gatehouse.tool.audit:audit",
        "Measure this host by the CIS Docker Benchmark; search for secrets by value.",
    ),
    "backup": (
        "gatehouse.tool.backup:backup",
        "Make, list and verify backups of everything that must not be lost.",
    ),
    "completion": (
        "gatehouse.tool.completion:completion",
        "Print what a shell needs to complete these words.",
    ),
    "diff": (
        "gatehouse.tool.releases:diff",
        "Show what one release has that another has not.",
    ),
    "doctor": (
        "gatehouse.tool.doctor:doctor",
        "Say what is wrong and what mends it; --fix does what is safe.",
    ),
    "drill": (
        "gatehouse.tool.drill:drill",
        "Try whether the newest backup comes back; the gateway goes on.",
    ),
    "engine": (
        "gatehouse.tool.engine:engine",
        "List, start, stop and explain the local models' engines.",
    ),
    "inventory": (
        "gatehouse.tool.inventory:inventory",
        "List the models that are offered: what came, what went.",
    ),
    "keys": (
        "gatehouse.tool.keys:keys",
        "List, make, rotate and revoke the virtual keys.",
    ),
    "knowledge": (
        "gatehouse.tool.knowledge:knowledge",
        "Compare prices and context lengths with LiteLLM's list of them.",
    ),
    "log": (
        "gatehouse.tool.log:log",
        "Show who changed what, when, with which result.",
    ),
    "models": (
        "gatehouse.tool.models:models",
        "Download, list and verify the engines' model files.",
    ),
    "open": (
        "gatehouse.tool.open:open_",
        "Print where the pages are, and the tunnel to them.",
    ),
    "probe": (
        "gatehouse.tool.probe:probe",
        "Find out what the offered models can do.",
    ),
    "releases": (
        "gatehouse.tool.releases:releases",
        "List what was deployed here: when, by whom, how it fared.",
    ),
    "restore": (
        "gatehouse.tool.restore:restore",
        "Go back to a backup, here or on a host that is new.",
    ),
    "rollback": (
        "gatehouse.tool.releases:rollback",
        "Have an earlier release serve again.",
    ),
    "secrets": (
        "gatehouse.tool.secrets:secrets",
        "Rotate the host's own secrets, and take over providers' keys.",
    ),
    "smoke": (
        "gatehouse.tool.smoke:smoke",
        "Try the gateway as a client would: is it usable?",
    ),
    "spend": (
        "gatehouse.tool.spend:spend",
        "What was asked and spent, by key, team or model.",
    ),
    "status": (
        "gatehouse.tool.status:status",
        "Look whether this host is what it was made to be.",
    ),
    "upgrade": (
        "gatehouse.tool.upgrade:upgrade",
        "Show what a newer LiteLLM would do; in the checkout, deploy it.",
    ),
    "timers": (
        "gatehouse.tool.timers:timers",
        "List what runs by itself: last run, result, next run.",
    ),
}


# Where the words after the group's own options are kept: another host gets them as they are.
_WORDS = "gatehouse.words"


class LazyGroup(click.Group):
    """A group whose commands are imported when they are needed."""

    def main(self, *args: Any, **extra: Any) -> Any:  # noqa: ANN401 - click's call
        """Do what was asked; what nobody has thought of is no finding, and ends with 2."""
        try:
            return super().main(*args, **extra)
        except Exception:  # noqa: BLE001 - whatever it is
            traceback.print_exc()
            sys.exit(2)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the command and its arguments as they were typed."""
        rest = super().parse_args(ctx, args)
        ctx.meta[_WORDS] = [*ctx._protected_args, *ctx.args]  # noqa: SLF001 - where click keeps it
        return rest

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


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version(), prog_name="gatehouse")
@click.option(
    "--host",
    metavar="NAME",
    help="Run the command there, over SSH: a host of the inventory, or one that ssh knows.",
)
@click.option(
    "--inventory",
    metavar="FILE",
    default="inventory",
    show_default=True,
    help="Where --host looks.",
)
@click.pass_context
def main(ctx: click.Context, *, host: str | None, inventory: str) -> None:
    """Work with the gateway of this host, or of another one.

    \b
    sudo gatehouse status           is the host what it was made to be?
    sudo gatehouse doctor --fix     what is wrong, why, and the repairs that are safe
    sudo gatehouse smoke            is it usable?
    sudo gatehouse keys new alice   a key with limits and an end
    gatehouse engine list           what is loaded, what sleeps, what it needs
    gatehouse models list           which model files are there
    gatehouse open                  where the pages are, and the tunnel to them
    gatehouse --host big status     the same on another host, from the operator's machine

    Exit codes: 0 fine, 1 a problem was found, 2 it could not look (or the command was wrong).
    """  # noqa: D301 - click's mark for a block that stays as it is
    if host is not None:
        # pyinfra's inventory is read by the operator's side of the package only.
        remote = importlib.import_module("gatehouse.commands.remote")
        ctx.exit(remote.run(host, ctx.meta[_WORDS], inventory))


if __name__ == "__main__":
    main(prog_name="gatehouse")
