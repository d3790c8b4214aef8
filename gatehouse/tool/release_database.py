"""The database before a release that migrates it, and back.

LiteLLM's migrations have no way down. So it is dumped before they run, while nobody writes to it;
and where they have run in vain, the dump takes the database's place. What was made, changed or
removed since is so in it, too, as far as the older schema knows it.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from gatehouse.probes.common import docker_root
from gatehouse.tool import dump, stack
from gatehouse.tool.errors import ProblemError
from gatehouse.tool.release_store import SNAPSHOTS

# A dump is smaller than the database; the restored one stands beside the old one for a moment.
_ROOM = 1.2
_SPARE = 512 * 2**20
_FINGERPRINT = """
SELECT md5(string_agg(line, E'\\n' ORDER BY line)) FROM (
    SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable, column_default) AS line
        FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT concat_ws(' ', migration_name, finished_at IS NOT NULL)
        FROM _prisma_migrations WHERE rolled_back_at IS NULL) AS lines"""
_COLUMNS = """
SELECT coalesce(json_object_agg(table_name, columns), '{}') FROM (
    SELECT table_name, json_agg(column_name ORDER BY ordinal_position) AS columns
        FROM information_schema.columns WHERE table_schema = 'public' GROUP BY table_name) AS t"""
_PRIMARY = """
SELECT coalesce(json_object_agg(table_name, columns), '{}') FROM (
    SELECT table_name, json_agg(column_name) AS columns FROM information_schema.table_constraints
        JOIN information_schema.key_column_usage USING (table_schema, table_name, constraint_name)
        WHERE table_schema = 'public' AND constraint_type = 'PRIMARY KEY'
        GROUP BY table_name) AS t"""
_MIGRATIONS = """
SELECT coalesce(json_agg(migration_name), '[]') FROM _prisma_migrations
    WHERE finished_at IS NOT NULL AND rolled_back_at IS NULL"""
_TABLES = dump.TABLES | {
    "permissions": "LiteLLM_ObjectPermissionTable",
    "aliases": "LiteLLM_ModelTable",
    "projects": "LiteLLM_ProjectTable",
    "memberships": "LiteLLM_OrganizationMembership",
    "invitations": "LiteLLM_InvitationLink",
    "customers": "LiteLLM_EndUserTable",
}
# Parents first: a row is refused whose foreign key leads nowhere.
_BROUGHT = (
    *("budgets", "permissions", "aliases", "organizations", "teams", "projects", "users"),
    *("members", "memberships", "invitations", "customers", "models", "credentials", "keys"),
    *("spend", "spend_daily"),
)
# Only ever added to, and too large to be compared.
_ADDED = "spend"
# Rows of these keep a user from being removed.
_OF_USERS = ("memberships", "invitations")


def room() -> None:
    """Raise `ProblemError` where there is no room for a dump, and for the way back from it."""
    SNAPSHOTS.mkdir(mode=0o700, exist_ok=True)
    size = int(dump.size() * _ROOM)
    for path, needed in _by_disk({SNAPSHOTS: size, Path(docker_root()): size}).items():
        free = shutil.disk_usage(path).free
        if free < needed + _SPARE:
            raise ProblemError(
                f"{free // 2**20} MiB are free on the disk of {path}, {(needed + _SPARE) // 2**20} "
                "MiB are needed to dump the database before it changes and to put it back: free "
                "some space"
            )


def _by_disk(needs: Mapping[Path, int]) -> dict[Path, int]:
    """Add up what is needed on the same file system, below the first of its paths."""
    first: dict[int, Path] = {}
    found: dict[Path, int] = {}
    for path, size in needs.items():
        same = first.setdefault(path.stat().st_dev, path)
        found[same] = found.get(same, 0) + size
    return found


def take(release: str, *, stop: bool) -> dict[str, int]:
    """Dump the database before a release; raises `ProblemError`, also where there is no room.

    `stop`: LiteLLM first. What it still holds of spend is written, and nobody writes after.
    """
    room()
    if stop:
        stack.stop("litellm")
    target = SNAPSHOTS / f"{release}.dump"
    about = SNAPSHOTS / f"{release}.json"
    about.unlink(missing_ok=True)
    counted = dump.dump(target)
    known = {
        "when": time.time(),
        "schema": _sql(_FINGERPRINT),
        "columns": json.loads(_sql(_COLUMNS)),
        "migrations": json.loads(_sql(_MIGRATIONS)),
        "rows": counted,
    }
    new = about.with_suffix(".new")
    with new.open("w") as file:
        json.dump(known, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(about)
    return counted


def snapshot(release: str) -> Path | None:
    """Give the dump that was made before a release, if there is one."""
    target = SNAPSHOTS / f"{release}.dump"
    return target if target.is_file() and _about(release) else None


def migrated(release: str) -> bool:
    """Tell whether the schema is another one than before a release; raises `ProblemError`."""
    return bool(_sql(_FINGERPRINT) != _about(release).get("schema"))


def left(since: float, releases: Iterable[str]) -> str | None:
    """Give the release whose dump has the schema in which one that was good then has left it.

    Of several (one that failed keeps its dump) it is the newest. None where the database has that
    schema, or an older one, which the release itself brings up to date. Raises `ProblemError`.
    """
    abouts = {name: _about(name) for name in releases if snapshot(name)}
    later = [
        name
        for name in sorted(abouts, key=lambda each: abouts[each]["when"])
        if abouts[name]["when"] > since
    ]
    if not later:
        return None
    schema = abouts[later[0]]["schema"]
    newest = [name for name in later if abouts[name]["schema"] == schema][-1]
    ahead = set(abouts[newest].get("migrations", ())) - set(json.loads(_sql(_MIGRATIONS)))
    return newest if not ahead and migrated(newest) else None


def _about(release: str) -> dict[str, Any]:
    """Give what was written down with a dump; empty where there is none, or half of one."""
    with suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads((SNAPSHOTS / f"{release}.json").read_text())
        return found
    return {}


def put_back(release: str, say: Callable[[str], None], since: float = 0.0) -> None:
    """Put the database back as it was before a release, where that has changed its schema.

    A dump from before `since` is of an earlier deploy of that release, and is let be. LiteLLM is
    stopped for it, by us. Raises `ProblemError`; the database is then as it was. By hand (without
    `since`) that is also raised where something cannot be brought over; else it is said, and left.
    """
    source = snapshot(release)
    if source is None or not migrated(release):
        return
    about = _about(release)
    if about["when"] < since:
        return
    stack.stop("litellm")
    say("migrations have run: putting the database back as it was before them")
    whole = SNAPSHOTS / f"{release}.failed.dump"
    kept = f"; those of since are in {whole}"
    try:
        # All of it, for reading: what the older schema does not know is in here only.
        dump.dump(whole)
    except ProblemError as error:
        if not since:  # By hand there is time to free some space.
            raise
        kept = ""
        say(f"what the newer schema alone knows is not kept: {error.message}")

    def trouble(noun: str, error: ProblemError) -> None:
        if not since:
            raise ProblemError(
                f"the {noun} of now cannot be brought over to the older schema, the database is as "
                f"it was: {error.message}"
            )
        say(
            f"the {noun} are those from before the migrations, also where they were removed or "
            f"blocked since, look at them: {error.message}{kept}"
        )

    files = _set_aside(about["columns"], about["when"])
    try:
        with dump.beside() as loading, source.open("rb") as file:
            dump.fill(file, loading)
            _bring(files, loading, trouble, by_hand=not since)
            # Nobody's job has migrated this one.
            with suppress(ProblemError):
                stack.docker("rm", "--force", stack.container("litellm-migrate"))
            dump.swap()
    finally:
        for path, _ in files.values():
            path.unlink(missing_ok=True)


def _set_aside(columns: dict[str, list[str]], since: float) -> dict[str, tuple[Path, list[str]]]:
    """Write down the rows of the tables that must not be lost; of spend only those since then."""
    present: dict[str, list[str]] = json.loads(_sql(_COLUMNS))
    found = {}
    for noun in _BROUGHT:
        table = _TABLES[noun]
        both = [name for name in columns.get(table, []) if name in present.get(table, [])]
        if not both:
            continue
        recent = f" WHERE \"startTime\" >= to_timestamp({since:.0f}) AT TIME ZONE 'UTC'"
        path = SNAPSHOTS / f".{noun}.copy"
        query = f'SELECT {_names(both)} FROM "{table}"{recent if noun == _ADDED else ""}'  # noqa: S608 - names of columns
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            _psql(f"COPY ({query}) TO STDOUT", into=file.fileno())
        found[noun] = (path, both)
    return found


def _bring(
    files: dict[str, tuple[Path, list[str]]],
    database: str,
    trouble: Callable[[str, ProblemError], None],
    *,
    by_hand: bool,
) -> None:
    """Have the rows of the older schema be those that were set aside, as far as it knows them."""
    keys: dict[str, list[str]] = json.loads(_sql(_PRIMARY, database))
    for noun in reversed(files):
        path, columns = files[noun]
        # A table that is empty may have lost its rows to the migration that has failed.
        sure = by_hand or path.stat().st_size or noun in _OF_USERS
        if noun != _ADDED and sure:
            try:
                _removed(_TABLES[noun], path, columns, keys, database)
            except ProblemError as error:
                trouble(noun, error)
    for noun, (path, columns) in files.items():
        try:
            _written(_TABLES[noun], path, columns, keys, database)
        except ProblemError as error:
            trouble(noun, error)


def _removed(
    table: str, path: Path, columns: list[str], keys: dict[str, list[str]], database: str
) -> None:
    """Remove the rows that are there no more: a key that was revoked opens nothing again."""
    same = _same(keys.get(table, []))
    _with_rows(
        table,
        path,
        columns,
        database,
        f'DELETE FROM "{table}" AS old WHERE NOT EXISTS (SELECT FROM added AS new WHERE {same})',  # noqa: S608 - names of tables and columns
    )


def _written(
    table: str, path: Path, columns: list[str], keys: dict[str, list[str]], database: str
) -> None:
    """Have the rows that are in both be as they are now, and add those that were made since."""
    same, names = _same(keys.get(table, [])), _names(columns)
    values = ", ".join(f'"{name}" = new."{name}"' for name in columns)
    statements = [
        f'UPDATE "{table}" AS old SET {values} FROM added AS new WHERE {same}',  # noqa: S608 - names of tables and columns
        f'INSERT INTO "{table}" ({names}) SELECT {names} FROM added AS new '  # noqa: S608 - the same
        f'WHERE NOT EXISTS (SELECT FROM "{table}" AS old WHERE {same})',
    ]
    if table == _TABLES["aliases"]:  # the one whose key is counted
        statements.append(
            f"SELECT setval(pg_get_serial_sequence('\"{table}\"', 'id'), max(id)) FROM \"{table}\""  # noqa: S608 - the same
        )
    _with_rows(table, path, columns, database, *statements)


def _with_rows(table: str, path: Path, columns: list[str], database: str, *statements: str) -> None:
    """Run statements in one transaction, with the rows of a file in the table `added`."""
    with path.open("rb") as file:
        _psql(
            f'CREATE TEMP TABLE added (LIKE "{table}" INCLUDING DEFAULTS) ON COMMIT DROP',
            f"COPY added ({_names(columns)}) FROM STDIN",
            *statements,
            database=database,
            source=file.fileno(),
        )


def _names(columns: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _same(columns: list[str]) -> str:
    return " AND ".join(f'old."{name}" = new."{name}"' for name in columns)


def _sql(query: str, database: str = "litellm") -> str:
    return _psql(query, database=database).strip()


def _psql(
    *statements: str,
    database: str = "litellm",
    source: int = subprocess.DEVNULL,
    into: int = subprocess.PIPE,
) -> str:
    """Run statements in one transaction; `source` is what a COPY of them reads."""
    words = ["psql", "-U", "litellm", "-d", database, "-XAtq1", "-v", "ON_ERROR_STOP=1"]
    done = subprocess.run(
        ["docker", "exec", "-i", stack.container("postgres"), *words]
        + [f"--command={each}" for each in statements],
        stdin=source,
        stdout=into,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        # Only the first line: the next ones quote the row.
        complaint = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise ProblemError(f"psql failed: {complaint[0]}")
    return (done.stdout or b"").decode()


def main() -> None:
    """Look for room, or dump the database before a release: `… room|running|stopped RELEASE`."""
    how, release = sys.argv[1:]
    try:
        if how == "room":
            room()
            return
        counted = take(release, stop=how == "stopped")
    except (click.ClickException, OSError) as error:
        sys.exit(error.message if isinstance(error, click.ClickException) else str(error))
    click.echo(", ".join(f"{number} {noun}" for noun, number in counted.items()))


if __name__ == "__main__":
    main()
