"""`gatehouse spend`: what was asked and spent in a period, by key, team, model or day."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from pydantic import BaseModel, ConfigDict, Field

from gatehouse.settings import Settings
from gatehouse.settings.keys import base
from gatehouse.tool.database import rows
from gatehouse.tool.here import be_root, settings
from gatehouse.tool.show import console, emit, json_option, table

MASTER = "litellm_proxy_master_key"
# What a request is counted under. A key that was deleted keeps its name, and so does an old one.
_NAMES = {
    "key": "coalesce(k.key_alias, d.key_alias, nullif(l.metadata->>'user_api_key_alias', ''), "
    "CASE l.api_key WHEN '' THEN 'no key' ELSE left(l.api_key, 24) END)",
    "team": "coalesce(t.team_alias, nullif(l.team_id, ''), 'no team')",
    "model": "coalesce(nullif(l.model_group, ''), nullif(l.model, ''), 'no model')",
    "day": "to_char(l.\"startTime\", 'YYYY-MM-DD')",
}
_QUERY = """
SELECT {name} AS name, count(*) AS requests,
    count(*) FILTER (WHERE l.status = 'failure') AS failed,
    count(*) FILTER (WHERE lower(l.cache_hit) = 'true') AS cached,
    coalesce(sum(l.prompt_tokens), 0) AS prompt_tokens,
    coalesce(sum(l.completion_tokens), 0) AS completion_tokens,
    coalesce(sum(l.spend), 0) AS spend
FROM "LiteLLM_SpendLogs" l
LEFT JOIN "LiteLLM_VerificationToken" k ON k.token = l.api_key
LEFT JOIN LATERAL (SELECT key_alias FROM "LiteLLM_DeletedVerificationToken" x
    WHERE x.token = l.api_key AND k.token IS NULL LIMIT 1) d ON true
LEFT JOIN "LiteLLM_TeamTable" t ON t.team_id = l.team_id
WHERE l."startTime" >= timestamp '{since}' AND l."startTime" < timestamp '{until}'
GROUP BY 1"""
_DAY = timedelta(days=1)
_COUNTS = ("requests", "failed", "cached", "prompt_tokens", "completion_tokens", "spend")


class Line(BaseModel):
    """What was counted under one name."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="Alias of the key, name of the team or model, or day (UTC).")
    requests: int = Field(description="All requests, failed and cached ones too.")
    failed: int = Field(description="Requests without an answer (if litellm_store_errors).")
    cached: int = Field(description="Requests answered from the cache.")
    prompt_tokens: int = Field(description="Tokens asked.")
    completion_tokens: int = Field(description="Tokens answered.")
    spend: float = Field(description="US dollars, by LiteLLM's prices; 0 for local models.")


class Spend(BaseModel):
    """`gatehouse spend --json`."""

    model_config = ConfigDict(extra="forbid")

    since: str = Field(description="Begin of the period, ISO 8601, UTC.")
    until: str = Field(description="End of the period, ISO 8601, UTC.")
    by: str = Field(description="key, team, model or day.")
    lines: list[Line]
    total: Line
    unwritten_seconds: int = Field(description="What is younger may not be counted yet.")


@click.command()
@click.option("--days", type=click.IntRange(1, 3650), help="Today and the days before (UTC).")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), metavar="DATE", help="First day (UTC).")
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), metavar="DATE", help="Last day (UTC).")
@click.option(
    "--by", type=click.Choice(list(_NAMES)), default="key", show_default=True, help="Sum up by."
)
@json_option
def spend(
    *, days: int | None, since: datetime | None, until: datetime | None, by: str, as_json: bool
) -> None:
    """Show requests, tokens and spend of a period: the last 30 days, or the one that is given.

    \b
    sudo gatehouse spend --days 7 --by team
    sudo gatehouse spend --since 2026-11-01 --until 2026-11-30 --by model
    """  # noqa: D301 - click's mark for a block that stays as it is
    begin, end = _period(days, since, until)
    be_root("spend")
    found = settings()
    document = collect(by, begin, end, found.litellm_batch_write_seconds)
    if as_json:
        emit(document)
        return
    shown = table(
        *(by.capitalize(), "Requests", "Failed", "Cached", "Tokens in", "Tokens out", "Spend"),
        right=("Requests", "Failed", "Cached", "Tokens in", "Tokens out", "Spend"),
    )
    for line in [*document.lines, document.total]:
        counts = (getattr(line, name) for name in _COUNTS[:-1])
        shown.add_row(line.name, *(f"{n:,}" for n in counts), f"{line.spend:,.4f} $")
    console().print(shown)
    for note in _notes(found, begin, end):
        click.echo(note, err=True)


def collect(by: str, begin: datetime, end: datetime, unwritten_seconds: int) -> Spend:
    """Ask the database; raises `CannotLookError`."""
    query = _QUERY.format(name=_NAMES[by], since=_plain(begin), until=_plain(end))
    sums: dict[str, Line] = {}
    for row in rows(query):
        name = _name(by, row)
        known = sums.get(name)
        counts = {each: row[each] + (getattr(known, each) if known else 0) for each in _COUNTS}
        sums[name] = Line(name=name, **counts)
    lines = sorted(
        sums.values(),
        key=lambda line: line.name if by == "day" else (-line.spend, -line.requests, line.name),
    )
    total = Line(name="total", **{each: sum(getattr(x, each) for x in lines) for each in _COUNTS})
    return Spend(
        since=begin.isoformat(),
        until=end.isoformat(),
        by=by,
        lines=lines,
        total=total,
        unwritten_seconds=unwritten_seconds,
    )


def _name(by: str, row: dict[str, Any]) -> str:
    name = str(row["name"])
    if by != "key":
        return name
    return "master key" if name == MASTER else base(name)


def _period(
    days: int | None, since: datetime | None, until: datetime | None
) -> tuple[datetime, datetime]:
    if days is not None and since is not None:
        raise click.UsageError("--days and --since both say when the period begins: give one")
    today = datetime.fromtimestamp(time.time(), UTC).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    last = until.replace(tzinfo=UTC) if until else today
    first = since.replace(tzinfo=UTC) if since else last - _DAY * ((days or 30) - 1)
    if first > last:
        raise click.UsageError("the period ends before it begins: --until is its last day")
    return first, last + _DAY


def _plain(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _notes(found: Settings, begin: datetime, end: datetime) -> list[str]:
    now = datetime.fromtimestamp(time.time(), UTC)
    notes = []
    if end > now:
        notes.append(
            f"Requests of the last {found.litellm_batch_write_seconds} seconds and a few may not "
            "be counted yet (litellm_batch_write_seconds)."
        )
    if found.litellm_spend_log_days and now - begin > _DAY * (found.litellm_spend_log_days + 1):
        notes.append(
            f"Requests are kept for {found.litellm_spend_log_days} days (litellm_spend_log_days): "
            "what is older is not counted."
        )
    return notes
