"""`prisma migrate deploy` and `prisma migrate resolve` without Prisma's schema engine, for the `prisma` stand-in.

Works on ./migrations of the current directory and the database of DATABASE_URL, keeps Prisma's own ledger
(`_prisma_migrations`, checksum = sha256 of the file) and answers failures with Prisma's codes, which LiteLLM reads.
"""

import hashlib
import os
import sys
import uuid
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import sql

LEDGER = """
CREATE TABLE IF NOT EXISTS _prisma_migrations (
    id varchar(36) PRIMARY KEY, checksum varchar(64) NOT NULL, finished_at timestamptz,
    migration_name varchar(255) NOT NULL, logs text, rolled_back_at timestamptz,
    started_at timestamptz NOT NULL DEFAULT now(), applied_steps_count integer NOT NULL DEFAULT 0)
"""
BEGUN = "INSERT INTO _prisma_migrations (id, checksum, migration_name) VALUES (%s, %s, %s)"
FINISHED = "UPDATE _prisma_migrations SET finished_at = now(), applied_steps_count = 1 WHERE id = %s"
FAILED = "UPDATE _prisma_migrations SET logs = %s WHERE id = %s"
ROLLED_BACK = (
    "UPDATE _prisma_migrations SET rolled_back_at = now() "
    "WHERE migration_name = %s AND finished_at IS NULL AND rolled_back_at IS NULL"
)
# The key of Prisma's own advisory lock: two deploys must not run at once.
ADVISORY_LOCK = 72707369
LIBPQ = {"sslmode", "sslcert", "sslkey", "sslrootcert", "connect_timeout", "options", "application_name"}


class Refused(Exception):
    """A failure with the code that Prisma prints for it."""


def connect() -> psycopg.Connection:
    """Connect to DATABASE_URL, without the parameters that only Prisma knows. Raises Refused (P1001, P1000)."""
    url = urlsplit(os.environ["DATABASE_URL"])
    query = parse_qsl(url.query)
    schema = dict(query).get("schema", "public")
    address = urlunsplit(url._replace(query=urlencode([pair for pair in query if pair[0] in LIBPQ])))
    try:
        connection = psycopg.connect(address, autocommit=True)
    except psycopg.OperationalError as error:
        where = f"`{url.hostname}:{url.port or 5432}`"
        if "authentication failed" in str(error):
            raise Refused(f"P1000: Authentication failed against database server at {where}: {error}") from error
        raise Refused(f"P1001: Can't reach database server at {where}: {error}") from error
    connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(schema)))
    connection.execute("SET TimeZone TO 'UTC'")
    if not os.environ.get("PRISMA_SCHEMA_DISABLE_ADVISORY_LOCK"):
        connection.execute("SELECT pg_advisory_lock(%s)", (ADVISORY_LOCK,))
    return connection


def apply(connection: psycopg.Connection, name: str, script: bytes) -> None:
    """Run one migration and record it. Raises Refused (P3018); its ledger row then stays unfinished, as Prisma's does."""
    row = str(uuid.uuid4())
    connection.execute(BEGUN, (row, hashlib.sha256(script).hexdigest(), name))
    try:
        # No parameters: the simple protocol, a whole file in one implicit transaction.
        connection.execute(script)
    except psycopg.Error as error:
        # A script with a BEGIN of its own leaves the transaction open.
        connection.rollback()
        text = f"Database error code: {error.sqlstate}\n\nDatabase error:\nERROR: {error}"
        connection.execute(FAILED, (f"A migration failed to apply.\n\nMigration name: {name}\n\n{text}", row))
        raise Refused(f"P3018\n\nA migration failed to apply.\n\nMigration name: {name}\n\n{text}") from error
    connection.execute(FINISHED, (row,))


def deploy() -> None:
    """Apply what the ledger does not know. Raises Refused (P3005 not empty, P3009 an earlier failure, P3018)."""
    with connect() as connection:
        if connection.execute("SELECT to_regclass('_prisma_migrations')").fetchone() == (None,):
            query = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()"
            if connection.execute(query).fetchone() != (0,):
                raise Refused("P3005\n\nThe database schema is not empty.")
        connection.execute(LEDGER)
        rows = connection.execute(
            "SELECT migration_name, finished_at IS NOT NULL, started_at FROM _prisma_migrations "
            "WHERE rolled_back_at IS NULL"
        ).fetchall()
        for name, finished, started in rows:
            if not finished:
                raise Refused(
                    "P3009\n\nmigrate found failed migrations in the target database.\n"
                    f"The `{name}` migration started at {started:%Y-%m-%d %H:%M:%S.%f} UTC failed"
                )
        files = sorted(Path("migrations").glob("*/migration.sql"))
        done = {name for name, _, _ in rows}
        pending = [file for file in files if file.parent.name not in done]
        print(f"{len(files)} migrations found in prisma/migrations")
        for file in pending:
            apply(connection, file.parent.name, file.read_bytes())
        print("All migrations have been successfully applied." if pending else "No pending migrations to apply.")


def resolve(how: str, name: str) -> None:
    """Correct the ledger only: mark a failed migration as rolled back, or as applied."""
    with connect() as connection:
        connection.execute(LEDGER)
        rolled_back = connection.execute(ROLLED_BACK, (name,)).rowcount
        if how == "--rolled-back" and not rolled_back:
            raise Refused(f"P3012\n\nMigration `{name}` cannot be rolled back because it is not in a failed state.")
        if how == "--applied":
            row = str(uuid.uuid4())
            script = Path("migrations", name, "migration.sql").read_bytes()
            connection.execute(BEGUN, (row, hashlib.sha256(script).hexdigest(), name))
            connection.execute("UPDATE _prisma_migrations SET finished_at = now() WHERE id = %s", (row,))
    print(f"Migration {name} marked as {how.removeprefix('--')}.")


def main(arguments: list[str]) -> int:
    """Run `deploy` or `resolve --applied|--rolled-back NAME`; 1 when refused."""
    try:
        match arguments:
            case ["deploy", *_]:
                deploy()
            case ["resolve", ("--applied" | "--rolled-back") as how, name]:
                resolve(how, name)
            case _:
                raise Refused(f"prisma migrate {' '.join(arguments)}: not available in this test image")
    except Refused as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
