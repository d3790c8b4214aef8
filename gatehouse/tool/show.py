"""How commands show things: tables for people, JSON for programs."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

PIPE_COLUMNS = 200

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def console() -> Console:
    """Give where tables go: colours on a terminal only, and in a pipe nothing is cut off."""
    # A pipe has no width: what is cut off there is lost.
    return Console(highlight=False) if os.isatty(1) else Console(width=PIPE_COLUMNS)


def table(*columns: str, right: tuple[str, ...] = (), title: str | None = None) -> Table:
    """Give a table without lines; the columns named in `right` hold numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left")
    return made


def emit(document: BaseModel) -> None:
    """Print a document whose schema is in docs/schemas/."""
    click.echo(document.model_dump_json(indent=2))


def span(seconds: float) -> str:
    """Write a time as people read it: `40 s`, `12 min`, `5.0 h`, `3 d`."""
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.0f} s"
    if seconds < 3600:  # noqa: PLR2004 - an hour
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} d"


def ago(moment: float | None) -> str:
    """Write how long ago a moment was; seconds since the epoch."""
    return "never" if moment is None else f"{span(max(0.0, time.time() - moment))} ago"


@contextmanager
def busy(text: str) -> Iterator[None]:
    """Show that something happens, on a terminal; nothing in a pipe."""
    with Console(stderr=True).status(f"{text} …"):
        yield
