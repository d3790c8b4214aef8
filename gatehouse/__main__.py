"""The operator's commands: `python -m gatehouse COMMAND`; `make` calls them."""

import sys

import click

from gatehouse.commands import (
    advisories,
    audit,
    lock,
    plan,
    render,
    settings,
    upgrade,
    verify,
    where,
)
from gatehouse.settings import Invalid


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Work with a Gatehouse checkout: what it would do, and where things are."""


main.add_command(advisories.command)
main.add_command(lock.command)
main.add_command(settings.command)
main.add_command(settings.docs)
main.add_command(plan.command)
main.add_command(render.command)
main.add_command(upgrade.command)
main.add_command(verify.command)
main.add_command(audit.command)
main.add_command(where.command)


def run() -> int:
    """Run the command; problems in the settings are shown all at once, with exit code 1."""
    try:
        main(prog_name="gatehouse")
    except Invalid as invalid:
        print(f"problems in the settings: {len(invalid.problems)}", file=sys.stderr)
        for problem in invalid.problems:
            print(f"  {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run())
