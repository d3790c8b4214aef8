"""`gatehouse releases`, `rollback` and `diff`: what was deployed here, and the way back by hand."""

import difflib
from typing import Literal

import click
from pydantic import BaseModel, Field
from rich.text import Text

from gatehouse.checks import every
from gatehouse.tool import (
    here,
    lock,
    release_database,
    release_store,
    release_switch,
    rotation,
    show,
)
from gatehouse.tool.audited import audited
from gatehouse.tool.checking import look
from gatehouse.tool.errors import CannotLookError, ProblemError
from gatehouse.tool.release_store import Release
from gatehouse.tool.release_switch import Plan

_COLOURS = {"good": "green", "bad": "red"}
_LINES = {"+": "green", "-": "red", "@": "cyan"}
_WORTH_NAMING = 8


class ReleaseLine(BaseModel):
    """One release."""

    id: str = Field(description="Its name: a hash of all that it is made of.")
    when: float | None = Field(description="When it was found good or bad, since the epoch.")
    who: str | None = Field(description="Who deployed it: the user on this host.")
    came_from: str | None = Field(description="What the operator's machine said of itself.")
    result: Literal["good", "bad", "unknown"] = Field(
        description="good: it has passed every check. bad: it was given up. unknown: it was never "
        "finished, or before this was noted."
    )
    reason: str | None = Field(description="Why it was given up.")
    current: bool = Field(description="Whether it is the one that runs.")
    back: bool = Field(description="Whether a deploy that fails goes back to it.")
    images: dict[str, str] = Field(description="Service to image.")
    snapshot: bool = Field(
        description="Whether the database is kept as it was before this release migrated it."
    )


class ReleasesDocument(BaseModel):
    """What `gatehouse releases --json` prints."""

    releases: list[ReleaseLine] = Field(description="Newest last.")


@click.command()
@show.json_option
def releases(*, as_json: bool) -> None:
    """List the releases that this host keeps: when, by whom, with which images, how they fared.

    Exit codes: 0 fine, 2 there is none or it cannot be looked at.
    """
    found = [_line(each) for each in _every()]
    if as_json:
        show.emit(ReleasesDocument(releases=found))
        return
    table = show.table("release", "when", "who", "result", "images", "")
    for each in found:
        images = ", ".join(sorted({_short(image) for image in each.images.values()}))
        words = [
            *(["runs now"] if each.current else []),
            *(["is gone back to"] if each.back and not each.current else []),
            *(["database before it is kept"] if each.snapshot else []),
            *([each.reason] if each.reason else []),
        ]
        who = each.came_from or each.who or "?"
        result = Text(each.result, _COLOURS.get(each.result, ""))
        table.add_row(
            each.id, show.ago(each.when), Text(who), result, images, Text("; ".join(words))
        )
    show.console().print(table)


@click.command()
@click.argument("first", metavar="ID")
@click.argument("second", metavar="ID", required=False)
def diff(*, first: str, second: str | None) -> None:
    """Show what one release has that another has not; without a second one, what runs now.

    No secret can appear: releases hold none.
    """
    _every()
    for line in _difference(_find(first), _find(second or _current())):
        click.secho(line, fg=_LINES.get(line[:1]))


@click.command()
@click.argument("release", metavar="[ID]", required=False)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--database",
    is_flag=True,
    help="Put the database back, too, as it was before later releases migrated it.",
)
def rollback(*, release: str | None, yes: bool, database: bool) -> None:
    """Have an earlier release serve again: its images, its configuration, its units.

    \b
    gatehouse rollback                 to the good one that served before what runs now
    gatehouse rollback 0123456789ab    to this one

    Secrets stay as they are. The database does, too, unless --database is given: then what was
    made, changed or removed since its migrations is so in it, too, as far as the older schema knows
    it, and all of it is kept in /var/lib/gatehouse/snapshots. One that is broken off is finished by
    the host; one that does not work ends with the release that served before. The next deploy makes
    what the settings say again.
    """  # noqa: D301 - click's mark for a block that stays as it is
    here.be_root("rollback")
    before = release_switch.unfinished()
    present = _find(before.present if before else _current())
    name = release or (before.target if before else None)
    target = _find(name) if name else _before(present)
    if before is None and target.id == present.id == release_store.linked(release_store.GOOD):
        raise CannotLookError(f"release {target.id} is the one that runs: gatehouse releases")
    if before and before.target == target.id and (before.dump or not database):
        plan = before
        click.echo(f"an earlier rollback to release {target.id} did not end: this one finishes it")
    else:
        dump = _dump(target, database=database)
        _preview(target, present, dump, database=database)
        plan = Plan(target.id, present.id, dump if database else None)
    release_switch.possible(plan)
    here.confirm(f"Go back to release {target.id}?", yes=yes)
    with lock.held(f"rollback {target.id}"), audited(f"rollback {target.id}", given_up=present.id):
        with rotation.endings_ignored():
            release_switch.begin(plan)
            release_switch.carry_out(plan)
        click.echo("looking at everything")
        status, findings = look(every(here.settings()))
        for each in findings:
            if each.state == "failure":
                click.echo(each.line)
        if status.exit_code:
            raise ProblemError(
                f"release {target.id} serves, and {status.summary.failures} checks do not hold: "
                "gatehouse doctor"
            )
    click.echo(f"release {target.id} serves, and every check holds")


def _every() -> list[Release]:
    try:
        found = release_store.every()
    except PermissionError:
        raise CannotLookError("only root may look: sudo gatehouse releases") from None
    if not found:
        raise CannotLookError("this host has no release: pyinfra inventory deploy.py")
    return found


def _current() -> str:
    current = release_store.linked(release_store.CURRENT)
    if current is None:
        raise CannotLookError("no release runs on this host: pyinfra inventory deploy.py")
    return current


def _find(name: str) -> Release:
    """Give the release whose name begins so."""
    matching = [each for each in _every() if each.id.startswith(name)]
    return matching[0] if len(matching) == 1 else release_store.find(name)


def _before(present: Release) -> Release:
    """Give the good release that served before this one."""
    good = [each for each in release_store.good() if each.id != present.id]
    linked = release_store.linked(release_store.GOOD)
    if linked and linked != present.id:
        return release_store.find(linked)
    if not good:
        raise CannotLookError("no other release was ever good here: gatehouse releases")
    return good[-1]


def _dump(target: Release, *, database: bool) -> str | None:
    """Give the release whose dump has the database as the target has left it, if it is needed."""
    names = [each.id for each in release_store.every()]
    try:
        return release_database.left(target.known.get("when") or 0, names)
    except ProblemError:
        # It may be the database that does not work in the release that runs.
        if database:
            raise
        return None


def _preview(target: Release, present: Release, dump: str | None, *, database: bool) -> None:
    """Say what would change."""
    if not target.archive.is_file():
        click.echo(
            f"nothing is kept of what release {target.id} placed outside of its folder (units, "
            "firewall, settings): that stays as it is; deploy again afterwards"
        )
    for service, image in target.images.items():
        if present.images.get(service) != image:
            click.echo(f"{service}: {present.images.get(service, 'none')} becomes {image}")
    for service in present.images.keys() - target.images.keys():
        click.echo(f"{service} goes")
    changed = [line[6:] for line in _difference(present, target) if line.startswith("+++ b/")]
    more = len(changed) - _WORTH_NAMING
    click.echo(
        f"files that change: {', '.join(changed[:_WORTH_NAMING]) or 'none'}"
        + (f" and {more} more" if more > 0 else "")
    )
    click.echo(f"all of it: gatehouse diff {present.id} {target.id}")
    if dump is None:
        click.echo("the database stays: nothing is known that has migrated it since")
    elif database:
        click.echo(
            f"the database is put back as it was before release {dump}; what was made, changed or "
            "removed since is so in it, too, as far as the older schema knows it"
        )
    else:
        click.echo(
            "the database stays, and has been migrated since: if the older version cannot use it, "
            "add --database"
        )


def _difference(old: Release, new: Release) -> list[str]:
    """Give a unified difference of everything that two releases are made of."""
    before, after = release_store.texts(old), release_store.texts(new)
    found: list[str] = []
    for path in sorted(before.keys() | after.keys()):
        found += difflib.unified_diff(
            before.get(path, "").splitlines(),
            after.get(path, "").splitlines(),
            f"a/{path.lstrip('/')}",
            f"b/{path.lstrip('/')}",
            lineterm="",
        )
    return found


def _line(release: Release) -> ReleaseLine:
    known = release.known
    return ReleaseLine(
        id=release.id,
        when=known.get("when"),
        who=known.get("who"),
        came_from=known.get("came_from"),
        result=known.get("result", "unknown"),
        reason=known.get("reason"),
        current=release.id == release_store.linked(release_store.CURRENT),
        back=release.id == release_store.linked(release_store.GOOD),
        images=release.images,
        snapshot=release_database.snapshot(release.id) is not None,
    )


def _short(image: str) -> str:
    """Give the name and tag that people know it by."""
    return image.partition("@")[0].rsplit("/", 1)[-1]
