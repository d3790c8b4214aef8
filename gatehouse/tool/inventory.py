"""`gatehouse inventory`: which models are offered, and which came and went since the last time."""

import time
from typing import Literal

import click
from pydantic import BaseModel, Field, ValidationError

from gatehouse import state
from gatehouse.tool import here, served
from gatehouse.tool.here import Gateway
from gatehouse.tool.served import Served
from gatehouse.tool.show import ago, console, emit, json_option, table

_CHANGES_KEPT = 100


class Offer(BaseModel):
    """One name that clients can ask for."""

    name: str = Field(description="as /v1/models lists it")
    kind: str | None = Field(description="chat, embedding or rerank; null for an alias")
    by: str = Field(
        description="who answers: builtin (the gateway itself), engine, server (the operator's "
        "own, on this host), cloud, or alias"
    )
    change: Literal["added", "same"] = Field(description="since the last record")


class Change(BaseModel):
    """What was seen to have changed, once."""

    at: float = Field(description="when it was seen, in seconds since the epoch")
    added: list[str] = Field(description="names that were not there the time before")
    removed: list[str] = Field(description="names that were there the time before")


class InventoryDocument(BaseModel):
    """What `gatehouse inventory` found."""

    checked: float = Field(description="when, in seconds since the epoch")
    since: float | None = Field(description="when it was recorded last; null: never")
    models: list[Offer] = Field(description="what is offered, by name")
    added: list[str] = Field(description="since the last record; nothing the first time")
    removed: list[str] = Field(description="since the last record")
    changes: list[Change] = Field(description="the changes that were recorded, newest first")


def compare(
    names: list[str],
    models: dict[str, Served],
    before: InventoryDocument | None,
    now: float,
) -> InventoryDocument:
    """Compare what is offered now with the record; the first time nothing counts as new."""
    known = {each.name for each in before.models} if before else set(names)
    added, removed = sorted(set(names) - known), sorted(known - set(names))
    changes = before.changes if before else []
    if added or removed:
        changes = [Change(at=now, added=added, removed=removed), *changes]
    return InventoryDocument(
        checked=now,
        since=before.checked if before else None,
        models=[_offer(name, models.get(name), name in added) for name in sorted(names)],
        added=added,
        removed=removed,
        changes=changes[:_CHANGES_KEPT],
    )


def recorded() -> InventoryDocument | None:
    """Read the last record; one that cannot be read is none."""
    try:
        return InventoryDocument.model_validate(state.read("inventory"))
    except ValidationError:
        return None


def _offer(name: str, model: Served | None, added: bool) -> Offer:  # noqa: FBT001 - a plain fact
    return Offer(
        name=name,
        kind=model.kind if model else None,
        by=model.by if model else "alias",
        change="added" if added else "same",
    )


@click.command()
@json_option
@click.option("--record", is_flag=True, help="Keep it, so that the next time compares with it.")
def inventory(*, as_json: bool, record: bool) -> None:
    """List the models that are offered, and what changed since it was last recorded.

    Only the list is asked for: no model is, so nothing wakes and nothing costs.

    \b
    sudo gatehouse inventory            what is there, and what is new
    sudo gatehouse inventory --record   and remember it (a timer does so every hour)
    """  # noqa: D301 - click's mark for a block that stays as it is
    here.be_root("inventory")
    found = here.settings()
    gateway = Gateway(found)
    names = [str(model["id"]) for model in gateway.get("/v1/models")["data"]]
    document = compare(names, served.served(gateway, found), recorded(), round(time.time(), 3))
    if record:
        state.write("inventory", document.model_dump())
    if as_json:
        emit(document)
    else:
        _show(document)


def _show(document: InventoryDocument) -> None:
    rows = table("model", "kind", "answered by", "change")
    for each in document.models:
        change = "[green]added[/]" if each.change == "added" else ""
        rows.add_row(each.name, each.kind or "", each.by, change)
    for name in document.removed:
        rows.add_row(name, "", "", "[bold red]removed[/]")
    console().print(rows)
    if document.since is None:
        click.echo("Nothing was recorded before: `gatehouse inventory --record` does.")
    else:
        click.echo(
            f"{len(document.added)} added, {len(document.removed)} removed since the record of "
            f"{ago(document.since)}."
        )
