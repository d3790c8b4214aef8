"""`lock`: write down which image each reference of the settings means, where a registry answers."""

from pathlib import Path

import click

from gatehouse.commands.hosts import hosts
from gatehouse.commands.verify import CannotLook
from gatehouse.images import Lock, Locked, read, references, written
from gatehouse.registry import Registries, UnresolvedError
from gatehouse.settings import Invalid, validate


@click.command("lock")
@click.option("--inventory", default="inventory", show_default=True, help="pyinfra's inventory.")
def command(inventory: str) -> None:
    """Resolve every image that the settings name to its digests, in images.lock.

    A reference that cannot be resolved keeps the lines that it has: nothing is made up. One that
    the settings name by its digest needs none.

    Ends with 0 when everything was resolved, and 2 when something was not.
    """
    wanted: dict[Path, dict[str, None]] = {}
    for data in hosts(inventory).values():
        settings = validate(data)
        named = wanted.setdefault(Path(settings.images_lock), {})
        named |= dict.fromkeys(each for each in references(settings) if "@" not in each)
    registries = Registries()
    unresolved = sum(_lock(path, list(named), registries) for path, named in wanted.items())
    if unresolved:
        raise CannotLook(
            f"{unresolved} could not be resolved: run this where their registries can be reached. "
            "What is not locked is pulled by its tag"
        )


def _lock(path: Path, named: list[str], registries: Registries) -> int:
    """Bring one file up to date, and give how many references could not be resolved."""
    before, broken = _before(path)
    after: Lock = {}
    unresolved = 0
    for reference in named:
        try:
            found = registries.resolve(reference)
        except UnresolvedError as error:
            unresolved += 1
            kept = before.get(reference)
            after |= {reference: kept} if kept else {}
            then = "what is locked is kept" if kept else "it stays without a digest"
            click.echo(f"{reference}: not resolved, {then}: {error}")
        else:
            after[reference] = found
            click.echo(f"{reference}: {found.index} ({_words(before.get(reference), found)})")
    for reference in before.keys() - after.keys():
        click.echo(f"{reference}: no setting names it any more, removed")
    if broken and not after:
        click.echo(f"{path} is left as it is: put it back from the repository")
    elif after != before or broken or not path.is_file():
        path.write_text(written(after))
        click.echo(f"{path} is written: read the difference, then commit it")
    else:
        click.echo(f"{path} holds")
    return unresolved


def _before(path: Path) -> tuple[Lock, bool]:
    """Give what is locked, and whether the file is broken: then nothing is, and it is said."""
    try:
        return read(path), False
    except Invalid as invalid:
        click.echo(f"{invalid}\nnothing in it counts: what is resolved now is all that is locked")
        return {}, True


def _words(before: Locked | None, after: Locked) -> str:
    if before is None:
        return "new"
    return "unchanged" if before == after else f"was {before.index}"
