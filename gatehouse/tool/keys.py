"""`gatehouse keys`: who may use the gateway, for how long, and how much."""

import json
import re
import time
from pathlib import Path
from typing import Any, TextIO

import click

from gatehouse import state
from gatehouse.settings import Invalid, Settings, validate
from gatehouse.settings.keys import NAME, REPLACED, SPECIAL_MODELS, base
from gatehouse.settings.rules import suggestion
from gatehouse.tool import keys_declare
from gatehouse.tool.audited import audited
from gatehouse.tool.errors import CannotLookError, ProblemError
from gatehouse.tool.here import Gateway, be_root, confirm, settings
from gatehouse.tool.keys_book import NEXT, Book, Key
from gatehouse.tool.keys_deliver import Delivery, Screen, Target, kept, make_folder
from gatehouse.tool.keys_documents import (
    Declared,
    Failure,
    KeyList,
    Made,
    Removed,
    Row,
    Summary,
    row,
    summary,
)
from gatehouse.tool.keys_make import Wish, limits
from gatehouse.tool.keys_make import new as make
from gatehouse.tool.keys_make import rotate as give_new_value
from gatehouse.tool.show import ago, console, emit, json_option, span, table

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_HOUR = 3600

to_option = click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="File for the value (0600); without it the value goes to standard output.",
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


class Span(click.ParamType[int]):
    """A time with a unit: 30s, 15m, 12h, 2d."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Give the seconds."""
        found = re.fullmatch(r"(\d{1,6})([smhd])", str(value))
        if not found:
            self.fail(f"{value!r} is no time: write 30s, 15m, 12h or 2d", param, ctx)
        return int(found[1]) * _UNITS[found[2]]


def _open(command: str) -> tuple[Settings, Gateway]:
    be_root(f"keys {command}")
    found = settings()
    return found, Gateway(found)


@click.group()
def keys() -> None:
    """List, make, rotate and revoke the gateway's virtual keys; a key is named by its alias.

    \b
    sudo gatehouse keys list --expiring 30
    sudo gatehouse keys new ci --team research --models chat-default --to /root/ci.key
    sudo gatehouse keys rotate ci --overlap 12h --to /root/ci.key
    sudo gatehouse keys revoke ci
    """  # noqa: D301 - click's mark for a block that stays as it is


@keys.command("list")
@click.option("--expired", is_flag=True, help="Only keys that have ended.")
@click.option("--expiring", type=click.IntRange(min=0), metavar="DAYS", help="Only keys that end.")
@json_option
def show(*, expired: bool, expiring: int | None, as_json: bool) -> None:
    """List the keys with team, end, use and limits; never a value."""
    _, gateway = _open("list")
    book = Book.read(gateway)
    chosen = [
        row(book, key)
        for key in book.keys
        if (not expired and expiring is None)
        or (expired and key.expired)
        or (expiring is not None and key.within(expiring))
    ]
    if as_json:
        emit(KeyList(keys=chosen))
        return
    if not chosen:
        click.echo("no key" + (" of that kind" if expired or expiring is not None else ""))
        return
    shown = table(
        *("Alias", "Team", "User", "Made", "Ends", "Used", "Spend", "Limits", "State"),
        right=("Spend",),
    )
    for each in chosen:
        shown.add_row(*_cells(each))
    console().print(shown)


def _cells(key: Row) -> tuple[str, ...]:
    ends = "never"
    if key.expires is not None:
        left = key.expires - time.time()
        ends = f"in {span(left)}" if left > 0 else ago(key.expires)
    budget = "" if key.budget is None else f" of {key.budget:g}"
    models = f", {len(key.models)} models" if key.models else ""
    notes = [key.state, *(["rotates"] if key.rotate else []), *(["old"] if key.replaced else [])]
    return (
        key.alias or f"#{key.id}",
        key.team or "-",
        key.user or "-",
        ago(key.created),
        ends,
        ago(key.used),
        f"{key.spend:.4g}{budget} $",
        f"{key.rpm or 'no'} rpm, {key.tpm or 'no'} tpm{models}",
        ", ".join(notes),
    )


@keys.command()
@click.argument("alias")
@click.option("--team", help="Team that it belongs to.")
@click.option("--user", help="User that it belongs to.")
@click.option("--models", help="Models and aliases it may ask, with commas. Without: all.")
@click.option("--days", type=click.IntRange(0, 3650), help="How long it is valid; 0: for ever.")
@click.option("--rpm", type=click.IntRange(1, 1_000_000), help="Requests a minute.")
@click.option("--tpm", type=click.IntRange(1, 1_000_000_000), help="Tokens a minute.")
@click.option("--budget", type=click.FloatRange(min=0), help="Most that may be spent, US dollars.")
@click.option("--rotate", is_flag=True, help="Give it a new value before it ends, by timer.")
@to_option
@json_option
def new(  # noqa: PLR0913 - one for each option
    *,
    alias: str,
    team: str | None,
    user: str | None,
    models: str | None,
    days: int | None,
    rpm: int | None,
    tpm: int | None,
    budget: float | None,
    rotate: bool,
    to: Path | None,
    as_json: bool,
) -> None:
    """Make a key with the default limits and end, or with those that are given.

    With --rotate and without --to its value is kept in /etc/gatehouse/keys/ALIAS.
    """
    found, gateway = _open(f"new {alias}")
    with audited(f"keys new {alias}", team=team, user=user):
        book = Book.read(gateway)
        _free(book, alias)
        rights: dict[str, Any] = {
            **limits(found, rpm, tpm),
            "team_id": book.team_id(team) if team else None,
            "user_id": _user(gateway, user) if user else None,
            "models": _models(gateway, models) if models else [],
            "max_budget": budget,
        }
        target = _target(to, alias, keep=rotate)
        wish = Wish(rights, found.keys_days if days is None else days, rotate)
        make(gateway, alias, wish, target)
    _say(Made(alias=alias, done="made", to=target.where, key=None), target, as_json=as_json)


def _free(book: Book, alias: str) -> None:
    if not re.fullmatch(NAME, alias) or REPLACED.search(alias):
        raise ProblemError(
            f"{alias!r} is no alias: letters, digits, dots, dashes, underscores and @, at most 64, "
            "and not the ending of a rotated key"
        )
    if book.get(alias):
        raise ProblemError(
            f"there is a key {alias!r} already: gatehouse keys rotate {alias} gives it a new value"
        )


def _models(gateway: Gateway, names: str) -> list[str]:
    known = [each["id"] for each in gateway.get("/v1/models")["data"]]
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in known and name not in SPECIAL_MODELS:
            close = suggestion(name, known)
            raise ProblemError(f"there is no model {name!r}{close}: offered are {', '.join(known)}")
    return wanted


def _user(gateway: Gateway, name: str) -> str:
    if gateway.raw("GET", "/user/info", params={"user_id": name}).status_code != 200:  # noqa: PLR2004
        raise ProblemError(f"there is no user {name!r}: declare it in keys_users")
    return name


def _target(to: Path | None, alias: str, *, keep: bool) -> Target:
    if to:
        return Delivery(to)
    if keep:
        make_folder()
        return kept(alias)
    return Screen()


def _say(made: Made, target: Target, *, as_json: bool) -> None:
    secret = target.finish(quiet=as_json)
    if as_json:
        emit(made.model_copy(update={"key": secret}))
    else:
        click.echo(f"{made.alias}: {made.done}, its value went to {made.to}", err=True)


@keys.command()
@click.argument("alias", required=False)
@click.option("--due", is_flag=True, help="Rotate the keys that are marked for it and near an end.")
@click.option("--overlap", type=Span(), metavar="TIME", help="How long the old value still works.")
@to_option
@json_option
def rotate(
    *, alias: str | None, due: bool, overlap: int | None, to: Path | None, as_json: bool
) -> None:
    """Give a key a new value; the old one still works for a while (keys_overlap_hours).

    A rotation that was broken off is gone on with by calling it again.
    """
    if bool(alias) == due or (due and to):
        raise click.UsageError("name one key, or say --due (which keeps the values by itself)")
    found, gateway = _open(f"rotate {alias or '--due'}")
    seconds = found.keys_overlap_hours * _HOUR if overlap is None else overlap
    if due:
        done = _rotate_due(found, gateway, seconds)
        _report(done, as_json=as_json)
        return
    assert alias is not None  # noqa: S101 - said above
    with audited(f"keys rotate {alias}"):
        book = Book.read(gateway)
        target = _target(to, alias, keep=_is_kept(book, alias))
        words = give_new_value(gateway, book, alias, seconds, target)
    _say(Made(alias=alias, done=words, to=target.where, key=None), target, as_json=as_json)


def _is_kept(book: Book, alias: str) -> bool:
    key = book.get(alias)
    if not re.fullmatch(NAME, alias):
        return False
    return bool(key and (key.rotates or kept(alias).holds(key.token)))


def _due(found: Settings, book: Book) -> list[str]:
    """Give what is marked and near its end, and what was broken off on the way."""
    days = found.keys_rotate_before_days
    marked = [key for key in book.keys if key.rotates and key.alias and not key.raw.get("blocked")]
    soon = {key.name for key in marked if not key.old and (key.within(days) or key.expired)}
    return sorted(soon | {base(key.name) for key in marked if key.name.endswith(NEXT)})


def _rotate_due(found: Settings, gateway: Gateway, overlap: int) -> Summary:
    """Rotate what is due, one after the other; one that fails holds up no other."""
    book = Book.read(gateway)
    rotated, failed = [], []
    for name in _due(found, book):
        try:
            with audited(f"keys rotate {name}"):
                if not re.fullmatch(NAME, name):
                    raise ProblemError(f"{name!r} cannot name a file")
                make_folder()
                give_new_value(gateway, book, name, overlap, kept(name))
        except click.ClickException as error:
            failed.append(Failure(alias=name, problem=error.message))
        else:
            rotated.append(name)
    after = Book.read(gateway) if rotated else book
    return summary(after, found.keys_warn_days, rotated, failed)


@keys.command()
@click.option("--record", is_flag=True, help="Keep the result for the dashboard and the checks.")
@click.option("--rotate", is_flag=True, help="Before that, rotate what is marked and near its end.")
@json_option
def check(*, record: bool, rotate: bool, as_json: bool) -> None:
    """Say which keys have ended, end soon, or have no limits.

    Exit code 1 where a key has ended or could not be rotated; with --record only the latter counts.
    """
    found, gateway = _open("check")
    if rotate:
        done = _rotate_due(found, gateway, found.keys_overlap_hours * _HOUR)
    else:
        done = summary(Book.read(gateway), found.keys_warn_days, [], [])
    if record:
        state.write("keys", done.model_dump())
    _report(done, as_json=as_json, ended_is_wrong=not record)


def _report(done: Summary, *, as_json: bool, ended_is_wrong: bool = False) -> None:
    if as_json:
        emit(done)
    else:
        lines = [
            *(f"{alias}: has a new value, in {kept(alias).where}" for alias in done.rotated),
            *(f"{each.alias}: could not be rotated: {each.problem}" for each in done.failed),
            *(f"{alias}: has ended (gatehouse keys rotate, or prune)" for alias in done.expired),
            *(f"{each.alias}: ends in {_left(each.expires)}" for each in done.expiring),
            *(f"{alias}: has no limit of requests or tokens" for alias in done.unlimited),
        ]
        click.echo("\n".join(lines) or "every key is in order")
    if done.failed or (ended_is_wrong and done.expired):
        raise SystemExit(1)


def _left(expires: float) -> str:
    return span(max(0.0, expires - time.time()))


@keys.command()
@click.argument("alias")
@yes_option
@json_option
def revoke(*, alias: str, yes: bool, as_json: bool) -> None:
    """Delete a key, with what rotations have left of it; it is refused from then on.

    A worker of the gateway may believe in it for 5 seconds more.
    """
    found, gateway = _open(f"revoke {alias}")
    with audited(f"keys revoke {alias}"):
        book = Book.read(gateway)
        doomed = [book.find(alias), *book.predecessors(alias)]
        if any(key.alias == alias for key in found.keys_declared):
            click.echo(
                f"{alias} is in keys_declared: the next deploy makes a new one of that name, "
                "unless you take it out there",
                err=True,
            )
        confirm(f"Revoke {', '.join(key.name for key in doomed)}?", yes=yes)
        _delete(gateway, doomed)
    _removed(doomed, as_json=as_json)


@keys.command()
@yes_option
@json_option
def prune(*, yes: bool, as_json: bool) -> None:
    """Delete the keys that have ended; LiteLLM keeps what it knew of them in its archive."""
    _, gateway = _open("prune")
    doomed = [key for key in Book.read(gateway).keys if key.expired]
    if doomed:
        names = [key.name for key in doomed]
        with audited("keys prune", keys=names):
            confirm(f"Delete {', '.join(names)}?", yes=yes)
            _delete(gateway, doomed)
    _removed(doomed, as_json=as_json)


def _delete(gateway: Gateway, doomed: list[Key]) -> None:
    gateway.post("/key/delete", {"keys": [key.token for key in doomed]})
    for key in doomed:
        if re.fullmatch(NAME, key.name):
            kept(key.name).forget(key.token)


def _removed(doomed: list[Key], *, as_json: bool) -> None:
    names = [key.name for key in doomed]
    if as_json:
        emit(Removed(removed=names))
    else:
        click.echo(f"deleted {', '.join(names)}" if names else "no key has ended")


@keys.command()
@click.option("--plan", is_flag=True, help="Only say what differs.")
@click.option(
    "--settings",
    "source",
    type=click.File(),
    help="JSON with keys_* to look at instead of what the host was deployed with; with --plan.",
)
@json_option
def declare(*, plan: bool, source: TextIO | None, as_json: bool) -> None:
    """Make what keys_teams, keys_users and keys_declared say, as a deploy does.

    What is no longer declared is left alone, and named.
    """
    if source and not plan:
        raise click.UsageError("--settings is for looking: it goes with --plan")
    found, gateway = _open("declare")
    if source:
        found = _changed(found, source)
    changes: list[str] = []
    reports: list[str] = []
    for step in keys_declare.steps(gateway, found):
        (changes if step.due else reports).append(step.words)
        if step.due and not plan:
            with audited("keys declare", what=step.words):
                keys_declare.apply(gateway, found, step)
    left = keys_declare.left(gateway, found)
    if not plan:
        keys_declare.remember(found, left)
    if as_json:
        emit(Declared(changes=changes, reports=reports, left=left))
        return
    for line in [
        *changes,
        *reports,
        *(f"{name}: no longer declared, left alone" for name in left),
    ]:
        click.echo(line)


def _changed(found: Settings, source: TextIO) -> Settings:
    try:
        return validate({**found.model_dump(mode="json"), **json.load(source)})
    except (Invalid, ValueError, TypeError) as error:
        raise CannotLookError(f"the settings given cannot be used: {error}") from None
