"""`gatehouse restore`: back to a snapshot, here or on a host that is new."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
from pydantic import SecretStr

from gatehouse.probes.common import docker_root
from gatehouse.settings import Settings
from gatehouse.tool import (
    backup_make,
    dump,
    here,
    lock,
    restic,
    restore_back,
    restore_make,
    rotation,
    show,
)
from gatehouse.tool.audited import audited
from gatehouse.tool.backup_documents import Restored
from gatehouse.tool.backup_make import Say
from gatehouse.tool.drill import manifest_of
from gatehouse.tool.errors import CannotLookError
from gatehouse.tool.restic import Repository

_LONGEST = 4096
# Somebody uses the gateway, if there is one of these that no deploy has made from its settings.
# Keys and teams that are declared and have spent nothing are none; neither are models that a deploy
# has added to the database, nor sessions of the web interface.
_USED = """SELECT json_build_object(
    'keys', (SELECT count(*) FROM "LiteLLM_VerificationToken" AS key
        WHERE team_id IS DISTINCT FROM 'litellm-dashboard' AND (
            NOT coalesce(made -> 'keys' ? key_alias, false) OR spend > 0
            OR EXISTS (SELECT FROM "LiteLLM_SpendLogs" WHERE api_key = key.token))),
    'teams', (SELECT count(*) FROM "LiteLLM_TeamTable"
        WHERE NOT coalesce(made -> 'teams' ? team_alias, false) OR spend > 0),
    'models', (SELECT count(*) FROM "LiteLLM_ProxyModelTable"
        WHERE NOT made -> 'models' ? model_name),
    'credentials', (SELECT count(*) FROM "LiteLLM_CredentialsTable"))
    FROM (SELECT '{}'::jsonb AS made) AS settings"""


@click.command()
@click.argument("snapshot", default="latest")
@click.option(
    "--to-empty-host",
    is_flag=True,
    help="A host that is new: its own secrets give way to those of the snapshot.",
)
@click.option(
    "--repository",
    metavar="PLACE",
    help="Another repository than the settings name; its password comes on standard input.",
)
@click.option(
    "--secrets",
    "with_secrets",
    is_flag=True,
    help="In place: the master key, the web interface's password and providers' keys, too.",
)
@click.option("--without-saving", is_flag=True, help="Do not save the present state before.")
@click.option(
    "--recover",
    is_flag=True,
    help="Nothing but the way back from a restore that was broken off.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@show.json_option
def restore(  # noqa: PLR0913 - one for each option
    *,
    snapshot: str,
    to_empty_host: bool,
    repository: str | None,
    with_secrets: bool,
    without_saving: bool,
    recover: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Go back to SNAPSHOT (the newest regular one), with the way back kept open.

    \b
    sudo gatehouse backup list
    sudo gatehouse restore 1234abcd
    sudo gatehouse restore --to-empty-host --repository sftp:nas:/srv/backup
    sudo gatehouse restore --recover

    In place: the snapshot is loaded while the gateway goes on; then that stops, and the present
    state is saved as a snapshot, too. The database comes back, and the salt key with it, without
    which stored credentials are lost. What was rotated since stays, unless --secrets is given. If
    the gateway does not come up, the state from before serves again.

    On a host that is new: deploy first, then restore. The same keys work, the web interface's
    password and the providers' keys are those of the snapshot.

    A restore that was killed is taken back by the host itself; where that has failed, --recover
    does it. The database that served in between is kept beside.

    Exit codes: 0 restored, 1 it did not work (the state from before serves), 2 nothing was begun.
    """  # noqa: D301 - click's mark for a block that stays as it is
    here.be_root("restore")
    settings = here.settings()
    if recover:
        _recover(settings, yes=yes)
        return
    with _from(settings, repository) as source:
        found = source.snapshot(snapshot)
        manifest = manifest_of(source, str(found["id"]))
        present = dump.counts()
        if to_empty_host and (used := _used(settings)):
            raise CannotLookError(
                f"this host is not empty, it has {used}: leave --to-empty-host away, and the "
                "present state is saved first"
            )
        size = int(manifest["dump_bytes"])
        _preview(found, manifest, present, as_json=as_json)
        here.confirm("Restore it? The gateway is down while it is switched.", yes=yes)
        plan = restore_make.Plan(
            snapshot=str(found["id"]),
            rows=manifest["rows"],
            all_secrets=to_empty_host or with_secrets,
            folders=to_empty_host,
            migrate=_litellm(manifest) != backup_make.images()["litellm"],
        )

        def say(line: str) -> None:
            if not as_json:
                click.echo(f"  {line}")

        def save() -> str:
            say("saving the present state")
            mine = restic.here(settings)
            return backup_make.make(settings, mine, say, tag=restic.TAG_BEFORE).snapshot

        begin = time.monotonic()
        with (
            audited("restore", snapshot=str(found["short_id"])),
            lock.repository("restore"),
            lock.held("restore"),
            rotation.endings_raise(),
        ):
            _room(settings, size)
            # A new host has nothing to save, and the repository may be another host's own.
            spared = without_saving or to_empty_host
            if not spared:
                # While the gateway still goes on.
                _can_save(settings, say)
            done = restore_make.carry_out(settings, source, plan, say, None if spared else save)
            if to_empty_host and source.location == settings.backup_repository:
                # From now on this host adds to that repository.
                word = SecretStr(source.password.read_text().strip())
                rotation.write(restic.PASSWORD, word)
    document = Restored(
        snapshot=str(found["short_id"]),
        seconds=round(time.monotonic() - begin, 1),
        data_seconds=done.data_seconds,
        downtime_seconds=done.downtime_seconds,
        rows=done.rows,
        secrets=done.secrets,
        saved=done.saved,
    )
    if as_json:
        show.emit(document)
        return
    click.echo(
        f"snapshot {document.snapshot} serves, after {show.span(document.downtime_seconds)} "
        "without an answer"
    )
    if done.saved:
        click.echo(f"back to what was there before: sudo gatehouse restore {done.saved} --secrets")


def _recover(settings: Settings, *, yes: bool) -> None:
    """Have the state from before a restore that was broken off serve again."""
    if not restore_back.UNFINISHED.exists():
        raise CannotLookError("no restore was broken off, nothing was touched")
    here.confirm("Go back from a restore that was broken off? The gateway is down for it.", yes=yes)
    with audited("restore --recover"), lock.held("restore --recover"):
        # The host itself may have done it while somebody read the question.
        if not restore_back.UNFINISHED.exists():
            raise CannotLookError("the host has gone back by itself, nothing was touched")
        kept = restore_back.put_back(settings, aside=True)
    click.echo("the state from before the restore serves again")
    if kept:
        click.echo(f"the database that served until now is kept as {kept}: docs/backup.md")


def _used(settings: Settings) -> str:
    """Say what is on this host that somebody would miss; raises `ProblemError`."""
    made = {
        "keys": [key.alias for key in settings.keys_declared],
        "teams": [team.name for team in settings.keys_teams],
        "models": [model.name for model in settings.all_models],
    }
    # Names hold no quotes; the settings see to that.
    found: dict[str, int] = json.loads(dump.ask(_USED.replace("{}", json.dumps(made))))
    return ", ".join(f"{number} {noun}" for noun, number in found.items() if number)


def _can_save(settings: Settings, say: Say) -> None:
    """See that the repository for the present state can be opened; raises `ProblemError`."""
    try:
        backup_make.prepared(restic.here(settings), say)
    except click.ClickException as error:
        raise CannotLookError(
            f"the present state cannot be saved, nothing was touched: {error.message}\nwithout "
            "saving it: --without-saving"
        ) from None


@contextmanager
def _from(settings: Settings, location: str | None) -> Iterator[Repository]:
    """Give the repository of the settings, or another one with the password that is given."""
    if location is None:
        yield restic.here(settings)
        return
    with ExitStack() as stack:
        yield stack.enter_context(restic.elsewhere(location, _password(location)))


def _password(location: str) -> SecretStr:
    """Read a repository's password without showing it; raises `CannotLookError`."""
    if os.isatty(0):
        text = str(click.prompt(f"password of {location}", hide_input=True, err=True))
    else:
        text = sys.stdin.read(_LONGEST)
    if not text.strip():
        raise CannotLookError(f"no password of {location} came on standard input")
    return SecretStr(text.strip())


def _preview(
    found: dict[str, object],
    manifest: dict[str, object],
    present: dict[str, int],
    *,
    as_json: bool,
) -> None:
    """Show what comes back, and what is there now."""
    if as_json:
        return
    noted = manifest["rows"]
    assert isinstance(noted, dict)  # noqa: S101 - a manifest of ours
    images = backup_make.images()
    click.echo(
        f"snapshot {found['short_id']} of {str(found['time'])[:19].replace('T', ' ')}, made by "
        f"release {manifest['release']}"
    )
    table = show.table("rows", "now", "then", right=("now", "then"))
    for noun in {**noted, **present}:
        table.add_row(noun, str(present.get(noun, 0)), str(noted.get(noun, 0)))
    show.console().print(table)
    then = _litellm(manifest)
    if then != images["litellm"]:
        click.echo(
            f"LiteLLM was {then.split()[0]} then, and is "
            f"{images['litellm'].split()[0]} now: the database is migrated, which cannot be undone "
            "but by a restore"
        )


def _litellm(manifest: dict[str, object]) -> str:
    """Give what LiteLLM was when a snapshot was made: image reference and id."""
    found = manifest.get("images")
    return str(found.get("litellm") if isinstance(found, dict) else "") or "unknown"


def _room(settings: Settings, size: int) -> None:
    """Refuse where a second database has no room; raises `ProblemError`."""
    backup_make.room(
        [(Path(docker_root()), restore_make.TIMES * size)], settings.backup_reserve_mib
    )
