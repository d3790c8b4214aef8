"""`settings`: check every host's settings and show the table. `docs`: write docs/settings.md."""

import shutil
import textwrap
from pathlib import Path

import click

from gatehouse.commands.hosts import hosts
from gatehouse.providers import given
from gatehouse.settings import Invalid, Problem, defaults, validate
from gatehouse.settings.table import HEAD, markdown, rows

PAGE = Path("docs/settings.md")


@click.command("settings")
@click.option("--inventory", default="inventory", show_default=True, help="pyinfra's inventory.")
def command(inventory: str) -> None:
    """Check the settings of every host of the inventory and print the table of all settings."""
    problems = []
    found = hosts(inventory)
    for name, data in found.items():
        try:
            given(validate(data))
        except Invalid as invalid:
            problems += [Problem(f"{name}: {p.key}", p.message) for p in invalid.problems]
    if problems:
        raise Invalid(problems)
    _print(list(rows(defaults())))
    click.echo(f"\nThe settings of {', '.join(found)} are valid.")


@click.command("docs")
@click.option("--check", is_flag=True, help="Only say whether the page is up to date.")
def docs(*, check: bool) -> None:
    """Write docs/settings.md from the settings themselves."""
    text = markdown(defaults())
    if PAGE.is_file() and PAGE.read_text() == text:
        click.echo(f"{PAGE} is up to date")
    elif check:
        raise click.ClickException(f"{PAGE} is out of date: run `make docs`")
    else:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(text)
        click.echo(f"{PAGE} written")


def _print(table: list[tuple[str, ...]]) -> None:
    """Print the table; the meaning takes what the terminal leaves."""
    widths = [max(len(row[i]) for row in [HEAD, *table]) for i in range(4)]
    widths[1], widths[3] = min(widths[1], 34), min(widths[3], 30)
    meaning = max(40, shutil.get_terminal_size((160, 24)).columns - sum(widths) - 8)
    for row in [HEAD, *table]:
        cells = [
            textwrap.wrap(cell, width) or [""]
            for cell, width in zip(row, [*widths, meaning], strict=True)
        ]
        for line in range(max(map(len, cells))):
            parts = [cell[line] if line < len(cell) else "" for cell in cells]
            padded = [f"{part:{width}}" for part, width in zip(parts[:4], widths, strict=True)]
            click.echo("  ".join([*padded, parts[4]]).rstrip())
