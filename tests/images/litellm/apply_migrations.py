# ruff: noqa: INP001, T201 -- a program of the image, not a module
"""`prisma migrate deploy` and `resolve` without Prisma's schema engine, for the `prisma` stand-in.

Works on ./migrations of the current directory and the database of DATABASE_URL, keeps Prisma's own
ledger (`_prisma_migrations`, checksum = sha256 of the file) and answers failures with Prisma's
codes and words, which LiteLLM reads.
"""

import hashlib
import os
import sys
import uuid
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import sql

Connection = psycopg.Connection[tuple[object, ...]]

LEDGER = """
CREATE TABLE IF NOT EXISTS _prisma_migrations (
    id varchar(36) PRIMARY KEY, checksum varchar(64) NOT NULL, finished_at timestamptz,
    migration_name varchar(255) NOT NULL, logs text, rolled_back_at timestamptz,
    started_at timestamptz NOT NULL DEFAULT now(), applied_steps_count integer NOT NULL DEFAULT 0)
"""
BEGUN = "INSERT INTO _prisma_migrations (id, checksum, migration_name) VALUES (%s, %s, %s)"
FINISHED = """
UPDATE _prisma_migrations SET finished_at = now(), applied_steps_count = %s WHERE id = %s
"""
FAILED = "UPDATE _prisma_migrations SET logs = %s WHERE id = %s"
ROLLED_BACK = """
UPDATE _prisma_migrations SET rolled_back_at = now()
WHERE migration_name = %s AND finished_at IS NULL AND rolled_back_at IS NULL
"""
KNOWN = """
SELECT migration_name, finished_at IS NOT NULL, to_char(started_at, 'YYYY-MM-DD HH24:MI:SS.US')
FROM _prisma_migrations WHERE rolled_back_at IS NULL
"""
# Prisma's own: two deploys must not run at once. LiteLLM may hold it already, and then says so.
ADVISORY_LOCK = 72707369
LOCK_IS_HELD = "PRISMA_SCHEMA_DISABLE_ADVISORY_LOCK"
LIBPQ = ("sslmode", "sslcert", "sslkey", "sslrootcert", "connect_timeout", "application_name")


class MigrateError(Exception):
    """A failure that begins with the code that Prisma prints for it."""


def connect() -> Connection:
    """Connect to DATABASE_URL less what only Prisma knows. Raises MigrateError P1000 or P1001."""
    url = urlsplit(os.environ["DATABASE_URL"])
    query = dict(parse_qsl(url.query))
    libpq = urlencode({key: value for key, value in query.items() if key in LIBPQ})
    where = f"`{url.hostname}:{url.port or 5432}`"
    try:
        connection = psycopg.connect(urlunsplit(url._replace(query=libpq)), autocommit=True)
    except psycopg.OperationalError as error:
        if "authentication failed" in str(error):
            message = f"P1000: Authentication failed against database server at {where}: {error}"
        else:
            message = f"P1001: Can't reach database server at {where}: {error}"
        raise MigrateError(message) from error
    schema = sql.Identifier(query.get("schema", "public"))
    connection.execute(sql.SQL("SET search_path TO {}").format(schema))
    connection.execute("SET TimeZone TO 'UTC'")
    if not os.environ.get(LOCK_IS_HELD):
        connection.execute("SELECT pg_advisory_lock(%s)", (ADVISORY_LOCK,))
    return connection


def begin(connection: Connection, name: str, script: bytes) -> str:
    """Enter a migration as started and return the id of its row in the ledger."""
    row = str(uuid.uuid4())
    connection.execute(BEGUN, (row, hashlib.sha256(script).hexdigest(), name))
    return row


def apply(connection: Connection, file: Path) -> None:
    """Run one migration. Raises MigrateError P3018; the row in the ledger then stays unfinished."""
    script = file.read_bytes()
    row = begin(connection, file.parent.name, script)
    try:
        # No parameters: the simple protocol, a whole file in one implicit transaction.
        connection.execute(script)
    except psycopg.Error as error:
        # A script with a BEGIN of its own leaves the transaction open.
        connection.rollback()
        message = (
            "A migration failed to apply. New migrations cannot be applied before the error is "
            f"recovered from.\n\nMigration name: {file.parent.name}\n\n"
            f"Database error code: {error.sqlstate}\n\nDatabase error:\nERROR: {error}"
        )
        connection.execute(FAILED, (message, row))
        raise MigrateError(f"P3018\n\n{message}") from error
    connection.execute(FINISHED, (1, row))


def deploy() -> None:
    """Apply what the ledger lacks. Raises MigrateError P3005 (not empty), P3009 (failed), P3018."""
    with connect() as connection:
        if connection.execute("SELECT to_regclass('_prisma_migrations')").fetchone() == (None,):
            tables = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()"
            if connection.execute(tables).fetchone() != (0,):
                raise MigrateError("P3005\n\nThe database schema is not empty.")
        connection.execute(LEDGER)
        known = connection.execute(KNOWN).fetchall()
        for name, finished, started in known:
            if not finished:
                raise MigrateError(
                    "P3009\n\nmigrate found failed migrations in the target database.\n"
                    f"The `{name}` migration started at {started} UTC failed"
                )
        files = sorted(Path("migrations").glob("*/migration.sql"))
        done = {name for name, _, _ in known}
        pending = [file for file in files if file.parent.name not in done]
        print(f"{len(files)} migrations found in prisma/migrations")
        for file in pending:
            apply(connection, file)
        print(f"{len(pending)} applied." if pending else "No pending migrations to apply.")


def resolve(how: str, name: str) -> None:
    """Correct the ledger only: the migration is marked `--rolled-back` or `--applied`."""
    with connect() as connection:
        connection.execute(LEDGER)
        failed = connection.execute(ROLLED_BACK, (name,)).rowcount
        if how == "--applied":
            script = Path("migrations", name, "migration.sql").read_bytes()
            connection.execute(FINISHED, (0, begin(connection, name, script)))
        elif not failed:
            raise MigrateError(f"P3012\n\nMigration `{name}` is not in a failed state.")
    print(f"Migration {name} marked as {how.removeprefix('--')}.")


def main(arguments: list[str]) -> int:
    """Run `deploy` or `resolve --applied|--rolled-back NAME`; 1 when that fails, 2 if unknown."""
    try:
        match arguments:
            case ["deploy"]:
                deploy()
            case ["resolve", ("--applied" | "--rolled-back") as how, name]:
                resolve(how, name)
            case _:
                print(f"prisma migrate {' '.join(arguments)}: not in this image", file=sys.stderr)
                return 2
    except MigrateError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
