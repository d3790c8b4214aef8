"""A dump of the real database, and its way back: whole, or nothing has changed."""

import json
from collections.abc import Iterator

import pytest

from gatehouse.lab.workstation import Workstation

COPY = "gatehouse_test_copy"
FOLDER = "/root/dumps"


def run(workstation: Workstation, words: str) -> str:
    """Run lines of Python with what the host's command is made of; gives what they print."""
    head = "import json; from pathlib import Path; from gatehouse.tool import dump"
    done = workstation.exec(
        ["/opt/gatehouse/venv/bin/python", "-c", f"{head}\n{words}"], check=False
    )
    return done.stdout + done.stderr


def sql(workstation: Workstation, statement: str, database: str = "litellm") -> str:
    """Ask the database server."""
    psql = f"docker exec -i gatehouse-postgres-1 psql -U litellm -d {database} -XAtq"
    return workstation.exec(f"{psql} -v ON_ERROR_STOP=1", text=statement).stdout.strip()


@pytest.fixture
def folder(workstation: Workstation) -> Iterator[str]:
    """Give a folder on the host; it goes again, and so do the databases of the test."""
    workstation.exec(f"install -d -m 700 {FOLDER}")
    yield FOLDER
    for database in (COPY, f"{COPY}_loading", f"{COPY}_old"):
        sql(workstation, f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
    workstation.exec(f"rm -r {FOLDER}")


def test_database_comes_back_as_it_was(workstation: Workstation, folder: str) -> None:
    """What is dumped from the running gateway is loaded again with every row, and nothing beside."""
    counted = json.loads(
        run(workstation, f"print(json.dumps(dump.dump(Path('{folder}/all'), staged=True)))")
    )
    assert counted["users"] >= 1
    assert workstation.exec(f"stat -c '%a %U' {folder}/*").stdout == "600 root\n"
    said = run(workstation, f"dump.load(Path('{folder}/all'), '{COPY}')")
    assert said == ""
    assert json.loads(run(workstation, f"print(json.dumps(dump.counts('{COPY}')))")) == counted
    # A second one takes the place of what is there, even while somebody is connected to it.
    sql(workstation, 'DELETE FROM "LiteLLM_UserTable"', COPY)
    psql = f"docker exec gatehouse-postgres-1 psql -U litellm -d {COPY}"
    workstation.exec(f"systemd-run --quiet --collect {psql} -c 'SELECT pg_sleep(600)'")
    assert run(workstation, f"dump.load(Path('{folder}/all'), '{COPY}')") == ""
    assert json.loads(run(workstation, f"print(json.dumps(dump.counts('{COPY}')))")) == counted
    left = sql(workstation, "SELECT datname FROM pg_database").splitlines()
    assert sorted(left) == [COPY, "litellm", "postgres", "template0", "template1"]


def test_damaged_dump_changes_nothing(workstation: Workstation, folder: str) -> None:
    """A dump that ends in the middle is refused, and the database is the one from before."""
    run(workstation, f"dump.dump(Path('{folder}/all'), staged=True)")
    assert run(workstation, f"dump.load(Path('{folder}/all'), '{COPY}')") == ""
    sql(workstation, "CREATE TABLE mine (a int); INSERT INTO mine VALUES (7)", COPY)
    workstation.exec(f"head -c $(($(stat -c %s {folder}/all) * 2 / 3)) {folder}/all >{folder}/half")
    said = run(workstation, f"dump.load(Path('{folder}/half'), '{COPY}')")
    assert "ProblemError: pg_restore failed: " in said
    assert sql(workstation, "SELECT a FROM mine", COPY) == "7"
    assert f"{COPY}_loading" not in sql(workstation, "SELECT datname FROM pg_database")


def test_full_disk_leaves_no_half_dump(workstation: Workstation, folder: str) -> None:
    """Where the dump does not fit it fails, and says why."""
    workstation.exec(f"mount -t tmpfs -o size=64k none {folder}")
    try:
        said = run(workstation, f"dump.dump(Path('{folder}/all'), staged=True)")
        assert "ProblemError" in said
        assert "no space left on device" in said.lower()
        assert workstation.exec(f"ls -A {folder}").stdout == ""
    finally:
        workstation.exec(f"umount {folder}")
