"""How far a long step is: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress import TransferSpeedColumn as SpeedColumn

_SAY_EVERY_SECONDS = 10
_PER_CENT = 100


@contextmanager
def bar(what: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show a step of `total` bytes, of which `done` are there; gives what counts more of them."""
    console = Console()
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            SpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(what, total=total, completed=done)
            yield lambda count: progress.advance(task, count)
        return
    lines = _Lines(what, total, done)
    yield lines.advance


class _Lines:
    def __init__(self, what: str, total: int | None, done: int) -> None:
        self._what, self._total, self._done = what, total, done
        self._said = time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._said >= _SAY_EVERY_SECONDS:
            self._said = now
            share = f" ({_PER_CENT * self._done // self._total} %)" if self._total else ""
            click.echo(f"{self._what}: {human(self._done)}{share}")


def human(size: int) -> str:
    """Write a number of bytes as people read it."""
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:  # noqa: PLR2004 - decimal units, as disks and hubs count
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
