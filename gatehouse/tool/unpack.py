"""A snapshot, read in one pass: its database into a server, all else of it into memory."""

from pathlib import Path

from gatehouse.tool import dump
from gatehouse.tool.backup_make import DUMP, GLOBALS, WORK
from gatehouse.tool.errors import ProblemError
from gatehouse.tool.restic import Repository


def unpack(
    source: Repository, snapshot: str, database: str, *, server: str = "postgres"
) -> dict[Path, bytes]:
    """Load a snapshot's dump into a new database; gives its other files: path → content.

    All of it is read, and nothing of it is written to a disk but what the server writes. Raises
    `ProblemError`; what was loaded until then is left for the caller to drop.
    """
    found: dict[Path, bytes] = {}
    loaded = False
    with source.files(snapshot) as files:
        for path, file in files:
            if path != WORK / DUMP:
                found[path] = file.read()
                continue
            # By their names, the roles that own what is in the dump come before it.
            dump.roles(found.get(WORK / GLOBALS, b"").decode(), server=server)
            dump.fill(file, database, server=server)
            loaded = True
    if not loaded:
        raise ProblemError(f"snapshot {snapshot[:8]} holds no dump of the database")
    return found
