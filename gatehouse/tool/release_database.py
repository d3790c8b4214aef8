"""The database before a release that migrates it, and back.

LiteLLM's migrations have no way down. So it is dumped before they run, while nobody writes to it;
and where they have run in vain, the dump takes the database's place. What was written since (by the
release that was given up) is added to it again, as far as the older schema knows it.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import click

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
# Parents first. The key decides what is there already.
_ADDED = (
    *("budgets", "organizations", "teams", "users", "members", "models", "credentials", "keys"),
    *("spend", "spend_daily"),
)


def room() -> None:
    """Raise `ProblemError` where there is no room for a dump."""
    SNAPSHOTS.mkdir(mode=0o700, exist_ok=True)
    size, free = dump.size(), shutil.disk_usage(SNAPSHOTS).free
    needed = int(size * _ROOM) + _SPARE
    if free < needed:
        raise ProblemError(
            f"{free // 2**20} MiB are free on {SNAPSHOTS}, {needed // 2**20} MiB are needed to "
            "dump the database before it changes: free some space"
        )


def take(release: str, *, stop: bool) -> dict[str, int]:
    """Dump the database before a release; raises `ProblemError`, also where there is no room.

    `stop`: LiteLLM first. What it still holds of spend is written, and nobody writes after.
    """
    room()
    if stop:
        with suppress(ProblemError):  # there may be none
            stack.docker("stop", stack.container("litellm"))
    target = SNAPSHOTS / f"{release}.dump"
    about = SNAPSHOTS / f"{release}.json"
    about.unlink(missing_ok=True)
    counted = dump.dump(target)
    known = {
        "when": time.time(),
        "schema": _sql(_FINGERPRINT),
        "columns": json.loads(_sql(_COLUMNS)),
        "rows": counted,
    }
    new = about.with_suffix(".new")
    new.write_text(json.dumps(known))
    new.replace(about)
    return counted


def snapshot(release: str) -> Path | None:
    """Give the dump that was made before a release, if there is one."""
    target = SNAPSHOTS / f"{release}.dump"
    return target if target.is_file() and target.with_suffix(".json").is_file() else None


def migrated(release: str) -> bool:
    """Tell whether the schema is another one than before a release; raises `ProblemError`."""
    about = json.loads((SNAPSHOTS / f"{release}.json").read_text())
    return bool(_sql(_FINGERPRINT) != about["schema"])


def put_back(release: str, say: Callable[[str], None], since: float = 0.0) -> None:
    """Put the database back as it was before a release, where that has changed its schema.

    A dump from before `since` is of an earlier deploy of that release, and is let be. LiteLLM is
    stopped for it, by us. Raises `ProblemError`; the database is then as it was.
    """
    source = snapshot(release)
    if source is None or not migrated(release):
        return
    about = json.loads(source.with_suffix(".json").read_text())
    if about["when"] < since:
        return
    with suppress(ProblemError):
        stack.docker("stop", stack.container("litellm"))
    say("migrations have run: putting the database back as it was before them")
    try:
        # All of it, for reading: what the older schema does not know is in here only.
        dump.dump(SNAPSHOTS / f"{release}.failed.dump")
    except ProblemError as error:
        if not since:  # By hand there is time to free some space.
            raise
        say(f"what the newer schema alone knows is not kept: {error.message}")
    files = _set_aside(about["columns"], about["when"])
    try:
        dump.load(source)
        for noun, (path, columns) in files.items():
            _add(noun, path, columns, say)
    finally:
        for path, _ in files.values():
            path.unlink(missing_ok=True)


def _set_aside(columns: dict[str, list[str]], since: float) -> dict[str, tuple[Path, list[str]]]:
    """Write down the rows of the tables that must not be lost; of spend only those since then."""
    present: dict[str, list[str]] = json.loads(_sql(_COLUMNS))
    found = {}
    for noun in _ADDED:
        table = dump.TABLES[noun]
        both = [name for name in columns.get(table, []) if name in present.get(table, [])]
        if not both:
            continue
        recent = f" WHERE \"startTime\" >= to_timestamp({since:.0f}) AT TIME ZONE 'UTC'"
        names = ", ".join(f'"{name}"' for name in both)
        path = SNAPSHOTS / f".{noun}.copy"
        query = f'SELECT {names} FROM "{table}"{recent if noun == "spend" else ""}'  # noqa: S608 - names of columns
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            _psql(f"COPY ({query}) TO STDOUT", into=file.fileno())
        found[noun] = (path, both)
    return found


def _add(noun: str, path: Path, columns: list[str], say: Callable[[str], None]) -> None:
    """Add the rows that are not there."""
    table, names = dump.TABLES[noun], ", ".join(f'"{name}"' for name in columns)
    statement = f"""BEGIN;
CREATE TEMP TABLE added (LIKE "{table}" INCLUDING DEFAULTS) ON COMMIT DROP;
COPY added ({names}) FROM STDIN;
{path.read_text()}\\.
INSERT INTO "{table}" ({names}) SELECT {names} FROM added ON CONFLICT DO NOTHING;
COMMIT;
"""  # noqa: S608 - names of tables and columns
    try:
        _psql("", statement)
    except ProblemError as error:
        say(f"{noun} that were written since cannot be added again ({error.message})")


def _sql(query: str) -> str:
    return _psql(query).strip()


def _psql(query: str, script: str = "", into: int = subprocess.PIPE) -> str:
    words = ["psql", "-U", "litellm", "-d", "litellm", "-XAtq", "-v", "ON_ERROR_STOP=1"]
    done = subprocess.run(
        ["docker", "exec", "-i", stack.container("postgres"), *words],
        input=(script or f"{query};\n").encode(),
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
