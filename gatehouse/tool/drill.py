"""`gatehouse drill`: does the newest backup come back? Asked every week, not on the day of need."""

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr

from gatehouse import state
from gatehouse.probes.common import docker_root
from gatehouse.settings import Settings
from gatehouse.tool import backup_make, dump, here, lock, restic, rotation, scratch, show
from gatehouse.tool.audited import audited
from gatehouse.tool.backup_documents import DrillDone
from gatehouse.tool.backup_make import MANIFEST, WORK, Say
from gatehouse.tool.errors import ProblemError
from gatehouse.tool.progress import human
from gatehouse.tool.restic import Repository
from gatehouse.tool.unpack import unpack

NOUN = "drill"
SALT = here.SECRETS / "salt_key"
_LOCK = Path("/run/gatehouse/drill.lock")
_DATABASE = "drill"
# A database takes more room than its dump: indexes, and its journal.
_TIMES = 3


@click.command()
@click.option("--record", is_flag=True, help="As the timer; the result is kept either way.")
@show.json_option
def drill(*, record: bool, as_json: bool) -> None:  # noqa: ARG001 - the timer's word
    """Restore the newest backup into a scratch database, and look whether everything is there.

    The gateway goes on meanwhile. The rows are counted against those that were noted when the
    backup was made, and the stored credentials are opened with the salt key out of the backup.

    Exit codes: 0 it comes back, 1 it does not, 2 it could not be tried.
    """
    here.be_root("drill")
    settings = here.settings()
    repository = restic.here(settings)

    def say(line: str) -> None:
        if not as_json:
            click.echo(f"  {line}")

    with (
        audited("drill"),
        lock.alone(_LOCK, "drill"),
        lock.repository("drill"),
        rotation.endings_raise(),
    ):
        done = _remembered(settings, repository, say)
    if as_json:
        show.emit(done)
        return
    rows = ", ".join(f"{number} {noun}" for noun, number in done.rows.items() if number)
    click.echo(
        f"snapshot {done.snapshot} of {show.ago(done.made)} came back in "
        f"{show.span(done.seconds)}: {rows or 'no rows'}; {done.credentials} stored credentials "
        "opened with its salt key"
    )


def _remembered(settings: Settings, repository: Repository, say: Say) -> DrillDone:
    known = state.read(NOUN) or {}
    good = known.get("good")
    try:
        done = tried(settings, repository, say)
    except BaseException as error:
        last = {"at": time.time(), "ok": False, "error": backup_make.words(error)}
        with backup_make.written_down(error):
            state.write(NOUN, {"last": last, "good": good})
        raise
    good = {"at": time.time(), **done.model_dump()}
    state.write(NOUN, {"last": {"at": good["at"], "ok": True, "error": ""}, "good": good})
    return done


def tried(settings: Settings, repository: Repository, say: Say) -> DrillDone:
    """Restore the newest snapshot where it harms nobody; raises as it fails."""
    begin = time.monotonic()
    repository.unlock()
    found = repository.snapshot()
    snapshot = str(found["id"])
    manifest = manifest_of(repository, snapshot)
    size = int(manifest["dump_bytes"])
    backup_make.room([(Path(docker_root()), _TIMES * size)], settings.backup_reserve_mib)
    with scratch.server(settings) as server:
        say(f"restoring {human(size)} of snapshot {found['short_id']} into a scratch database")
        files = unpack(repository, snapshot, _DATABASE, server=server)
        rows = dump.counts(_DATABASE, server=server)
        if missing := differing(manifest["rows"], rows):
            raise ProblemError(f"snapshot {found['short_id']} lacks rows: {missing}")
        say("opening stored credentials with its salt key")
        if SALT not in files:
            raise ProblemError(f"snapshot {found['short_id']} holds no salt key")
        salt = SecretStr(files[SALT].decode().strip())
        credentials = scratch.opened(settings, salt, _DATABASE, server=server)
    return DrillDone(
        snapshot=str(found["short_id"]),
        made=datetime.fromisoformat(str(found["time"])).timestamp(),
        seconds=round(time.monotonic() - begin, 1),
        rows=rows,
        credentials=credentials,
    )


def manifest_of(repository: Repository, snapshot: str) -> dict[str, Any]:
    """Give what was noted when a snapshot was made; raises `ProblemError`."""
    try:
        found: dict[str, Any] = json.loads(repository.read(snapshot, WORK / MANIFEST))
    except ValueError:
        raise ProblemError(f"snapshot {snapshot[:8]} has no manifest that can be read") from None
    return found


def differing(noted: dict[str, int], found: dict[str, int]) -> str:
    """Say which rows are not as many as were noted; an empty text where all are."""
    return ", ".join(
        f"{found.get(noun, 0)} {noun} of {number}"
        for noun, number in noted.items()
        if found.get(noun, 0) != number
    )
