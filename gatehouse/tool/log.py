"""`gatehouse log`: who changed what, when, with which result."""

import re
from datetime import UTC, datetime, timedelta

import click
from pydantic import BaseModel, Field
from rich.text import Text

from gatehouse import audit
from gatehouse.tool import show
from gatehouse.tool.errors import CannotLookError

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_COLOURS = {"ok": "green", "failed": "red", "refused": "yellow", "begun": "cyan"}


class Entry(BaseModel):
    """One change."""

    time: str = Field(description="ISO 8601 with its offset.")
    who: str = Field(description="The user on this host; behind sudo the person who called it.")
    came_from: str | None = Field(description="What the machine said that they called from.")
    action: str = Field(description="The command, without anything secret.")
    result: str = Field(description="ok, failed, refused, or begun.")
    details: dict[str, object] = Field(description="What else is known of it.")


class LogDocument(BaseModel):
    """What `gatehouse log --json` prints."""

    entries: list[Entry] = Field(description="Oldest first.")


@click.command()
@click.option(
    "-n", "--lines", type=click.IntRange(1), default=20, show_default=True, help="How many."
)
@click.option("--since", metavar="TIME", help="Only since: 30m, 12h, 7d, or 2026-01-31.")
@click.option("--failed", is_flag=True, help="Only what did not work.")
@show.json_option
def log(*, lines: int, since: str | None, failed: bool, as_json: bool) -> None:
    """Show who changed what, when, with which result.

    \b
    gatehouse log
    gatehouse log --since 7d --failed
    """  # noqa: D301 - click's mark for a block that stays as it is
    begin = _moment(since) if since else None
    if not audit.FILE.parent.is_dir():
        raise CannotLookError(
            f"{audit.FILE.parent} is missing: this host is no gateway; gatehouse --host NAME log"
        )
    try:
        found = audit.entries()
    except PermissionError:
        raise CannotLookError(
            f"{audit.FILE} may be read by root and the group gatehouse only: use sudo"
        ) from None
    wanted = [
        entry
        for entry in map(_entry, found)
        if (begin is None or _time(entry) >= begin)
        and (not failed or entry.result in ("failed", "refused"))
    ][-lines:]
    if as_json:
        show.emit(LogDocument(entries=wanted))
        return
    if not wanted:
        click.echo("nothing was changed" + (" in that time" if since else " yet"))
        return
    table = show.table("when", "who", "what", "result", "")
    for entry in wanted:
        who = f"{entry.who} ({entry.came_from})" if entry.came_from else entry.who
        rest = ", ".join(f"{key} {value}" for key, value in entry.details.items())
        when = _time(entry).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        result = Text(entry.result, _COLOURS.get(entry.result, ""))
        # A line holds what somebody typed: it is no markup.
        table.add_row(when, Text(who), Text(entry.action), result, Text(rest))
    show.console().print(table)


def _entry(line: dict[str, object]) -> Entry:
    known = {"time", "who", "from", "action", "result"}
    return Entry(
        time=str(line.get("time", "")),
        who=str(line.get("who", "?")),
        came_from=str(line["from"]) if "from" in line else None,
        action=str(line.get("action", "?")),
        result=str(line.get("result", "?")),
        details={key: value for key, value in line.items() if key not in known},
    )


def _time(entry: Entry) -> datetime:
    try:
        return datetime.fromisoformat(entry.time)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


def _moment(text: str) -> datetime:
    """Give the moment that `--since` names; raises `click.BadParameter`."""
    if match := re.fullmatch(r"(\d{1,6})([mhd])", text):
        return datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})
    try:
        # A day without an offset is one of the clock on the wall.
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no time: 30m, 12h, 7d, or a day like 2026-01-31", param_hint="--since"
        ) from None
