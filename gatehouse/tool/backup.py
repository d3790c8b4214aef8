"""`gatehouse backup`: snapshots of the database, the configuration and the secrets."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from pydantic import SecretStr

from gatehouse.tool import backup_make, here, lock, restic, rotation, show
from gatehouse.tool.audited import audited
from gatehouse.tool.backup_documents import (
    BackupList,
    BackupMade,
    BackupPruned,
    BackupVerified,
    Snapshot,
)
from gatehouse.tool.errors import CannotLookError
from gatehouse.tool.progress import bar, human

# A deploy that is under way at two in the morning is waited for.
_PATIENCE_SECONDS = 20 * 60
_LONGEST = 16384


@click.group()
def backup() -> None:
    """Make, list and verify backups: database, configuration and secrets in one snapshot.

    \b
    sudo gatehouse backup now         make one, and read a part of the repository again
    sudo gatehouse backup list        what there is to go back to
    sudo gatehouse backup password    what opens them: keep it somewhere else
    sudo gatehouse restore            go back to the newest

    A timer makes one every day (timers_backup). They are encrypted: without the password nobody
    reads them, you included.
    """  # noqa: D301 - click's mark for a block that stays as it is


@backup.command()
@click.option("--record", is_flag=True, help="As the timer: wait for a deploy that is under way.")
@click.option("--no-verify", is_flag=True, help="Do not read a part of the repository again.")
@click.option(
    "--begin-anew",
    is_flag=True,
    help="Make another repository where the one that was there is gone.",
)
@show.json_option
def now(*, record: bool, no_verify: bool, begin_anew: bool, as_json: bool) -> None:
    """Make a backup, forget what the policy does not keep, and read a part of the data again."""
    here.be_root("backup now")
    settings = here.settings()
    repository = restic.here(settings)
    say = _quiet if as_json else _say
    with audited("backup now"), lock.repository("backup now"):
        patience = _PATIENCE_SECONDS if record else None
        with lock.held("backup now", patience), _moving(quiet=as_json) as moved:
            made = backup_make.make(settings, repository, say, moved=moved, begin_anew=begin_anew)
        say("forgetting what is older than the policy keeps")
        left = backup_make.forget(settings, repository)
        if not no_verify:
            say("reading a part of the repository again")
            backup_make.verify(repository)
        backup_make.measure(repository, left)
    if as_json:
        show.emit(BackupMade(**vars(made)))
        return
    rows = ", ".join(f"{number} {noun}" for noun, number in made.rows.items() if number)
    click.echo(
        f"snapshot {made.snapshot} in {show.span(made.seconds)}: {rows or 'no rows'}; "
        f"{human(made.added_bytes)} of it new, before it is compressed"
    )
    if not backup_make.kept().get("shown"):
        click.echo(
            "without its password a backup cannot be read: `sudo gatehouse backup password` shows "
            "it; keep it off this host"
        )


@backup.command("list")
@show.json_option
def list_(*, as_json: bool) -> None:
    """List the snapshots that can be gone back to."""
    here.be_root("backup list")
    repository = restic.here(here.settings())
    known = backup_make.kept().get("repository") or {}
    with show.busy(f"asking {repository.location}"):
        found = repository.snapshots()
    document = BackupList(
        repository=repository.location,
        bytes=known.get("bytes"),
        snapshots=[
            Snapshot(
                id=each["short_id"],
                made=each["time"],
                tags=each["tags"],
                of_another=restic.of_another(each["tags"]),
            )
            for each in found
        ],
    )
    if as_json:
        show.emit(document)
        return
    table = show.table("snapshot", "made", "what")
    for each in document.snapshots:
        what = ["before a restore"] if restic.TAG_BEFORE in each.tags else []
        what += ["by another host"] if each.of_another else []
        table.add_row(each.id, each.made[:19].replace("T", " "), ", ".join(what))
    show.console().print(table)
    size = f", {human(document.bytes)}" if document.bytes is not None else ""
    click.echo(f"\n{len(document.snapshots)} snapshots in {document.repository}{size}")


@backup.command()
@click.option("--all", "everything", is_flag=True, help="Read all data, not a seventh of it.")
@show.json_option
def verify(*, everything: bool, as_json: bool) -> None:
    """Check the repository, and read a seventh of its data: another one every day."""
    here.be_root("backup verify")
    repository = restic.here(here.settings())
    with (
        audited("backup verify"),
        lock.repository("backup verify"),
        show.busy("reading the repository"),
    ):
        backup_make.verify(repository, everything=everything)
    found = backup_make.kept()["verify"]
    document = BackupVerified(part=found["part"], seconds=found["seconds"])
    if as_json:
        show.emit(document)
        return
    what = f"part {document.part} of {restic.PARTS}" if document.part else "all data"
    click.echo(f"the repository is whole: {what}, in {show.span(document.seconds)}")


@backup.command()
@click.option(
    "--others",
    is_flag=True,
    help="Forget what this host has not made, too: the snapshots of a host that is gone.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@show.json_option
def prune(*, others: bool, yes: bool, as_json: bool) -> None:
    """Forget what the policy does not keep, and give its room back."""
    here.be_root("backup prune")
    settings = here.settings()
    repository = restic.here(settings)
    theirs = backup_make.others(repository) if others else []
    if theirs:
        newest = theirs[-1]["time"][:16].replace("T", " ")
        here.confirm(
            f"Forget {len(theirs)} snapshots that this host has not made, the newest of {newest}?",
            yes=yes,
        )
    ids = [str(each["id"]) for each in theirs]
    with (
        audited("backup prune"),
        lock.repository("backup prune"),
        show.busy("removing what no snapshot needs"),
    ):
        backup_make.measure(repository, backup_make.prune(settings, repository, *ids))
    found = backup_make.kept()["repository"]
    document = BackupPruned(snapshots=found["snapshots"], bytes=found["bytes"])
    if as_json:
        show.emit(document)
        return
    click.echo(f"{document.snapshots} snapshots are left, {human(document.bytes)}")


@backup.command()
def password() -> None:
    """Print what opens the backups: keep it off this host.

    With it, and the repository, everything can be had back on another host. Without it nothing can,
    here or anywhere.
    """
    here.be_root("backup password")
    value = here.secret(restic.PASSWORD.name)
    with audited("backup password"):
        backup_make.remember(shown=time.time())
    click.echo("keep this in a password manager or on paper, not on this host:", err=True)
    click.echo(value.get_secret_value())


@backup.command()
def credentials() -> None:
    """Take over what opens the place of a repository elsewhere, as NAME=value lines.

    \b
    sudo gatehouse backup credentials <<END
    AWS_ACCESS_KEY_ID=...
    AWS_SECRET_ACCESS_KEY=...
    END

    They replace those from before; restic's documentation says which a target needs.
    """  # noqa: D301 - click's mark for a block that stays as it is
    here.be_root("backup credentials")
    if os.isatty(0):
        click.echo("NAME=value lines, then Ctrl-D (they are shown as you type them):", err=True)
    text = sys.stdin.read(_LONGEST)
    names = sorted(restic.parse(text))
    if not names:
        raise CannotLookError("nothing came on standard input: expected NAME=value lines")
    with audited("backup credentials", names=names):
        rotation.write(restic.CREDENTIALS, SecretStr(text))
    click.echo(f"kept: {', '.join(names)}")


@contextmanager
def _moving(*, quiet: bool) -> Iterator[backup_make.Moved]:
    """Show how far restic is, from its own words."""
    if quiet:
        yield lambda _done, _total: None
        return
    before = 0
    with bar("saving", None) as advance:

        def moved(done: int, _total: int) -> None:
            nonlocal before
            advance(done - before)
            before = done

        yield moved


def _say(line: str) -> None:
    click.echo(f"  {line}")


def _quiet(_line: str) -> None:
    """Say nothing: a program reads what is printed."""
