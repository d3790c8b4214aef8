"""LiteLLM's database as one file, and back from it.

Everything runs inside the server's container, through its socket: no password, no client on the
host, and always the server's own version of the tools.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from gatehouse.tool import stack
from gatehouse.tool.errors import CannotLookError, ProblemError
from gatehouse.tool.progress import human

# What must not be lost: noun → table.
TABLES = {
    "keys": "LiteLLM_VerificationToken",
    "users": "LiteLLM_UserTable",
    "teams": "LiteLLM_TeamTable",
    "members": "LiteLLM_TeamMembership",
    "organizations": "LiteLLM_OrganizationTable",
    "budgets": "LiteLLM_BudgetTable",
    "models": "LiteLLM_ProxyModelTable",
    "credentials": "LiteLLM_CredentialsTable",
    "spend": "LiteLLM_SpendLogs",
    "spend_daily": "LiteLLM_DailyUserSpend",
}
# What is filled, what a load replaces, what a restore replaces until it has proved itself, and what
# may have been in use when a restore was taken back.
LOADING, OLD, REPLACED, ASIDE = "_loading", "_old", "_replaced", "_aside_"
_ROLE = "litellm"
# Nobody asks a database that is being filled, so no statement of it waits for the disk: the swap
# does, and with it all that came before.
_QUICK = "-c synchronous_commit=off -c maintenance_work_mem=256MB"
_CHUNK = 2**20
_SWAPS = 3
_FULL = "no space left on device"
_LOCK_SECONDS = 60
# A database's name stands in statements: nobody but this code chooses one.
_TABLES = """SELECT coalesce(json_agg(table_name), '[]') FROM information_schema.tables
    WHERE table_schema = 'public'"""


def dump(
    target: Path, database: str = "litellm", *, server: str = "postgres", staged: bool = False
) -> dict[str, int]:
    """Write a dump (0600) that `pg_restore` can read; gives `counts` of the very same moment.

    `target` appears whole or not at all. `staged`: for a backup that compresses, keeps differences
    and outlives it; so the same rows are the same bytes, and the disk is not waited for. Raises
    `ProblemError`.
    """
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    level = "0" if staged else "1"
    try:
        with _snapshot(database, server) as (snapshot, counted):
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(handle, "wb") as file:
                _inside(
                    server,
                    *("pg_dump", "-U", _ROLE, "-d", database, "--format=custom", "-Z", level),
                    *(f"--snapshot={snapshot}", f"--lock-wait-timeout={_LOCK_SECONDS}s"),
                    into=file,
                )
                if not staged:
                    os.fsync(handle)
        _listed(part, server)
        part.replace(target)
    except ProblemError as error:
        if _FULL in error.message.lower():
            free = human(shutil.disk_usage(part.parent).free)
            raise ProblemError(f"{error.message} ({free} free on the disk of {target})") from None
        raise
    except OSError as error:
        raise ProblemError(f"{target} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    return counted


def load(source: Path, database: str = "litellm", *, server: str = "postgres") -> None:
    """Put a dump in the place of the database; whoever calls has stopped LiteLLM.

    It is restored into a new database beside the old one, whose name it takes in one transaction
    when it is whole; only then the old one is dropped. Raises `ProblemError`: nothing has changed.
    """
    with beside(database, server=server) as loading, _opened(source) as file:
        fill(file, loading, server=server)
        swap(database, server=server)


@contextmanager
def beside(database: str = "litellm", *, server: str = "postgres") -> Iterator[str]:
    """Give the name of a database to fill, for `swap`; it goes where it did not come to that."""
    loading = database + LOADING
    # What a load that was killed has left; what a restore keeps goes with `forget` only.
    drop(database + OLD, server=server)
    try:
        yield loading
    finally:
        # A server that is gone is told of by the first error.
        with suppress(ProblemError):
            drop(loading, server=server)


def swap(database: str = "litellm", *, server: str = "postgres", keep: bool = False) -> None:
    """Have what was filled `beside` the database take its place; raises `ProblemError`.

    `keep`: the old one stays for `put_back` until `forget`.
    """
    _swap(database + LOADING, database, database + (REPLACED if keep else OLD), server, keep=keep)


def put_back(*, aside: bool, database: str = "litellm", server: str = "postgres") -> str | None:
    """Put the database back that `swap` has kept, if it has; raises `ProblemError`.

    `aside`: somebody may have used the one that was in its place, which stays; gives its new name.
    """
    old = database + REPLACED
    there = _sql(f"SELECT count(*) FROM pg_database WHERE datname = '{old}'", server)  # noqa: S608 - our own name
    if there.strip() != "1":
        return None
    used = f"{database}{ASIDE}{datetime.now(UTC):%Y%m%d_%H%M%S}"
    _swap(old, database, used if aside else database + LOADING, server, keep=aside)
    return used if aside else None


def forget(database: str = "litellm", *, server: str = "postgres") -> None:
    """Drop what `swap` has kept; raises `ProblemError`."""
    drop(database + REPLACED, server=server)


def fill(source: IO[bytes], database: str, *, server: str = "postgres") -> None:
    """Restore a dump into a new database of that name; one that is there goes first.

    Raises `ProblemError`; what was restored until then is left for the caller to drop.
    """
    drop(database, server=server)
    _sql(f'CREATE DATABASE "{database}" OWNER {_ROLE} TEMPLATE template0', server)
    _fed(
        server,
        *("pg_restore", "-U", _ROLE, "-d", f"dbname={database} options='{_QUICK}'"),
        *("--exit-on-error", "--format=custom"),
        source=source,
    )
    # The planner knows nothing of new tables until somebody has looked at them.
    _sql("ANALYZE", server, database)


def roles(globals_: str, *, server: str = "postgres") -> None:
    """Make the roles that a dumped server had besides LiteLLM's own, where they are not."""
    mine = (" litellm;", " litellm ")
    lines = [
        line
        for line in globals_.splitlines()
        if line.startswith(("CREATE ROLE", "ALTER ROLE", "GRANT"))
        and not any(each in line for each in mine)
    ]
    if lines:
        # A role that is there is an error to psql, and as it should be.
        stack.docker(
            *("exec", "-i", stack.container(server)),
            *("psql", "-X", "-q", "-U", _ROLE, "-d", "postgres"),
            text="\n".join(lines) + "\n",
        )


def drop(*databases: str, server: str = "postgres") -> None:
    """Drop databases where they are there; raises `ProblemError`."""
    for database in databases:
        _sql(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)', server)


def counts(database: str = "litellm", *, server: str = "postgres") -> dict[str, int]:
    """Give the rows of each table that must not be lost, by noun; raises `ProblemError`."""
    there = set(json.loads(_sql(_TABLES, server, database)))
    found: dict[str, int] = json.loads(_sql(_counting(there), server, database))
    return found


def size(database: str = "litellm", *, server: str = "postgres") -> int:
    """Give the bytes that a database takes on the disk; raises `ProblemError`."""
    return int(_sql("SELECT pg_database_size(current_database())", server, database))


def ask(query: str, database: str = "litellm", *, server: str = "postgres") -> str:
    """Give what a question prints; raises `ProblemError`."""
    return _sql(f"SET default_transaction_read_only = on; {query}", server, database)


def _counting(there: set[str]) -> str:
    """Give the question for the rows of the tables; a version of LiteLLM may lack some."""
    parts = ", ".join(
        f"'{noun}', (SELECT count(*) FROM public.\"{table}\")"  # noqa: S608 - names from above
        for noun, table in TABLES.items()
        if table in there
    )
    return f"SELECT json_build_object({parts})"


@contextmanager
def _snapshot(database: str, server: str) -> Iterator[tuple[str, dict[str, int]]]:
    """Hold one moment of the database: its name for `pg_dump`, and the counts of that moment."""
    there = set(json.loads(_sql(_TABLES, server, database)))
    begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot();"
    command = [*_docker(server), *_psql(database)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin  # noqa: S101 - asked for above
        assert process.stdout  # noqa: S101 - the same
        assert process.stderr  # noqa: S101 - the same
        try:
            with suppress(BrokenPipeError):  # then nothing can be read either
                process.stdin.write(f"{begin}\n{_counting(there)};\n")
                process.stdin.flush()
            name, counted = process.stdout.readline().strip(), process.stdout.readline()
            if not name or not counted:
                raise _refused("psql", process.stderr.read())
            yield name, json.loads(counted)
        finally:
            # psql ends, and its transaction with it.
            with suppress(BrokenPipeError):
                process.stdin.close()


def _listed(source: Path, server: str) -> None:
    """Have `pg_restore` list what a dump holds; raises `ProblemError`."""
    with _opened(source) as file:
        _inside(server, "pg_restore", "--format=custom", "--list", source=file)


def _swap(new: str, database: str, old: str, server: str, *, keep: bool) -> None:
    """Give `new` the database's name; both renames happen or none. The old one goes unless `keep`.

    One call: when this process is killed meanwhile, the server does the rest.
    """
    gone = f'\\set ON_ERROR_STOP 0\nDROP DATABASE IF EXISTS "{old}" WITH (FORCE);'
    statement = f"""
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname IN ('{database}', '{new}') AND pid <> pg_backend_pid() \\g /dev/null
BEGIN;
SELECT format('ALTER DATABASE %I RENAME TO %I', datname, '{old}')
    FROM pg_database WHERE datname = '{database}' \\gexec
ALTER DATABASE "{new}" RENAME TO "{database}";
COMMIT;
{"" if keep else gone}
"""  # noqa: S608 - the names are this code's own
    for attempt in range(1, _SWAPS + 1):
        try:
            _sql(statement, server)
        except ProblemError:
            # A check or a page may ask in between; whoever is there makes a rename wait 5 s.
            if attempt == _SWAPS:
                raise
            time.sleep(1)
        else:
            return


def _docker(server: str) -> list[str]:
    return ["docker", "exec", "-i", stack.container(server)]


def _psql(database: str) -> list[str]:
    return ["psql", "-U", _ROLE, "-d", database, "-XAtq", "-v", "ON_ERROR_STOP=1"]


def _sql(statement: str, server: str, database: str = "postgres") -> str:
    """Run statements as the owner; gives what they print."""
    try:
        done = subprocess.run(
            [*_docker(server), *_psql(database)],
            input=f"{statement};\n",
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise _no_docker() from None
    if done.returncode:
        raise _refused("psql", done.stderr)
    return done.stdout


def _inside(
    server: str, *words: str, source: IO[bytes] | None = None, into: IO[bytes] | None = None
) -> None:
    """Run a command in the server's container between two files."""
    try:
        done = subprocess.run(
            [*_docker(server), *words],
            stdin=source or subprocess.DEVNULL,
            stdout=into or subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
    except FileNotFoundError:
        raise _no_docker() from None
    if done.returncode:
        raise _refused(words[0], done.stderr.decode(errors="replace"))


def _fed(server: str, *words: str, source: IO[bytes]) -> None:
    """Run a command in the server's container that reads all of `source`."""
    with tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(
                [*_docker(server), *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
            )
        except FileNotFoundError:
            raise _no_docker() from None
        with process:
            assert process.stdin  # noqa: S101 - asked for above
            try:
                # Who reads no more says why.
                with suppress(BrokenPipeError), process.stdin:
                    shutil.copyfileobj(source, process.stdin, _CHUNK)
            except BaseException:
                process.kill()
                raise
        complaints.seek(0)
        complaint = complaints.read().decode(errors="replace")
    if process.returncode:
        raise _refused(words[0], complaint)


@contextmanager
def _opened(source: Path) -> Iterator[IO[bytes]]:
    try:
        file = source.open("rb")
    except OSError as error:
        raise ProblemError(f"{source} cannot be read: {error.strerror}") from None
    with file:
        yield file


def _refused(program: str, complaint: str) -> ProblemError:
    words = " ".join(complaint.split())[:400] or "it gave no reason"
    return ProblemError(f"{program} failed: {words}")


def _no_docker() -> CannotLookError:
    return CannotLookError("docker is missing on this host: deploy again")
