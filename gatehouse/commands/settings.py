"""`settings`: check every host's settings and show the table. `docs`: write docs/settings.md."""

import importlib
import json
import shutil
import textwrap
from pathlib import Path

import click

from gatehouse import signature
from gatehouse.commands import audit, checks
from gatehouse.commands.hosts import hosts
from gatehouse.images import lock_of
from gatehouse.providers import given
from gatehouse.settings import Invalid, Problem, defaults, validate
from gatehouse.settings.table import HEAD, markdown, rows
from gatehouse.tool.schemas import SCHEMAS

PAGE = Path("docs/settings.md")
SCHEMA_FOLDER = Path("docs/schemas")


@click.command("settings")
@click.option("--inventory", default="inventory", show_default=True, help="pyinfra's inventory.")
def command(inventory: str) -> None:
    """Check the settings of every host of the inventory and print the table of all settings."""
    problems = []
    found = hosts(inventory)
    for name, data in found.items():
        try:
            settings = validate(data)
            given(settings)
            lock_of(settings)
            signature.wanted(settings)
        except Invalid as invalid:
            problems += [Problem(f"{name}: {p.key}", p.message) for p in invalid.problems]
    if problems:
        raise Invalid(problems)
    _print(list(rows(defaults())))
    click.echo(f"\nThe settings of {', '.join(found)} are valid.")


@click.command("docs")
@click.option("--check", is_flag=True, help="Only say whether the pages are up to date.")
def docs(*, check: bool) -> None:
    """Write docs/settings.md, docs/checks.md, docs/audit.md, and docs/schemas/ of documents."""
    wanted = {
        PAGE: markdown(defaults()),
        checks.PAGE: checks.page(),
        audit.PAGE: audit.page(),
    } | {SCHEMA_FOLDER / f"{name}.json": _schema(name) for name in SCHEMAS}
    stale = [path for path, text in wanted.items() if not _holds(path, text)]
    unknown = [path for path in SCHEMA_FOLDER.glob("*.json") if path not in wanted]
    if check and (stale or unknown):
        names = ", ".join(map(str, [*stale, *unknown]))
        raise click.ClickException(f"{names} out of date: run `make docs`")
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])
    for path in unknown:
        path.unlink()
    changed = len(stale) + len(unknown)
    click.echo(
        f"{changed} pages written"
        if changed
        else f"{PAGE}, {checks.PAGE}, {audit.PAGE} and {SCHEMA_FOLDER} hold"
    )


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text


def _schema(name: str) -> str:
    module, _, attribute = SCHEMAS[name].partition(":")
    document = getattr(importlib.import_module(module), attribute)
    return json.dumps(document.model_json_schema(mode="serialization"), indent=2) + "\n"


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
