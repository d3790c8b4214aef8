"""A dump appears whole or not at all, and a load that fails has changed nothing."""

import os
import stat
from pathlib import Path

import pytest

from gatehouse.tool import dump
from gatehouse.tool.errors import CannotLookError, ProblemError

# Plays `docker exec -i gatehouse-postgres-1 PROGRAM …`: notes what it was told, and fails where a
# test wants it to.
DOCKER = """#!/bin/sh
shift 3
echo "$*" >>"$PLAYED/calls"
if [ "$1" = "$(cat "$PLAYED/fails" 2>/dev/null)" ]; then
    [ "$1" != pg_dump ] || echo half
    echo "pg: error: no space left on device" >&2; exit 1
fi
case $1 in
    psql) cat | tee -a "$PLAYED/sql" | while read -r line; do case $line in
        *json_agg*) echo '["LiteLLM_VerificationToken", "LiteLLM_SpendLogs"]' ;;
        *export_snapshot*) echo 00000003-1 ;;
        *"datname = 'litellm_replaced'"*) [ ! -e "$PLAYED/replaced" ] || echo 1 ;;
        *json_build_object*) echo '{"keys": 3, "spend": 40}' ;;
        esac; done ;;
    pg_dump) echo PGDMP ;;
    pg_restore) cat >>"$PLAYED/restored" ;;
esac
"""


@pytest.fixture(autouse=True)
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a `docker` that plays the server; gives the folder with what it was told."""
    programs, folder = tmp_path / "bin", tmp_path / "played"
    programs.mkdir()
    folder.mkdir()
    (programs / "docker").write_text(DOCKER)
    (programs / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PLAYED", str(folder))
    return folder


def test_dump_is_whole_and_for_root_only(tmp_path: Path, played: Path) -> None:
    """It is there under its name, and its counts are of the moment that was dumped."""
    target = tmp_path / "litellm.dump"
    assert dump.dump(target) == {"keys": 3, "spend": 40}
    assert target.read_text() == "PGDMP\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    calls = (played / "calls").read_text()
    assert "pg_dump -U litellm -d litellm --format=custom -Z 1 --snapshot=00000003-1" in calls
    assert (played / "restored").read_text() == "PGDMP\n"


@pytest.mark.parametrize("program", ["psql", "pg_dump", "pg_restore"])
def test_dump_that_fails_leaves_the_one_before(tmp_path: Path, played: Path, program: str) -> None:
    """Half a dump is removed, and what has the name stays; the reason is the program's own."""
    target = tmp_path / "litellm.dump"
    target.write_text("yesterday's")
    (played / "fails").write_text(program)
    with pytest.raises(ProblemError, match=f"{program} failed: pg: error: no space left"):
        dump.dump(target)
    assert target.read_text() == "yesterday's"
    assert [path.name for path in tmp_path.glob("litellm*")] == ["litellm.dump"]


def test_dump_that_does_not_fit_names_the_file_and_what_is_free(
    tmp_path: Path, played: Path
) -> None:
    """Which disk is full is not the program's to say."""
    (played / "fails").write_text("pg_dump")
    target = tmp_path / "litellm.dump"
    with pytest.raises(ProblemError, match=rf"no space left .*B free on the disk of {target}\)"):
        dump.dump(target)


def test_dump_takes_the_place_of_what_a_killed_one_left(tmp_path: Path) -> None:
    """A part that lies there is no obstacle."""
    (tmp_path / "litellm.dump.part").write_text("half")
    dump.dump(tmp_path / "litellm.dump", staged=True)
    assert not (tmp_path / "litellm.dump.part").exists()


def test_dump_into_nowhere_names_the_file(tmp_path: Path) -> None:
    """A folder that is missing is said, not a traceback."""
    with pytest.raises(ProblemError, match=r"gone/litellm\.dump cannot be written: No such file"):
        dump.dump(tmp_path / "gone" / "litellm.dump")


def test_load_swaps_only_what_was_restored(tmp_path: Path, played: Path) -> None:
    """A restore that fails renames nothing and drops what it made."""
    source = tmp_path / "litellm.dump"
    source.write_text("PGDMP")
    dump.load(source)
    swapped = (played / "sql").read_text()
    assert 'ALTER DATABASE "litellm_loading" RENAME TO "litellm"' in swapped
    (played / "sql").unlink()
    (played / "fails").write_text("pg_restore")
    with pytest.raises(ProblemError, match="pg_restore failed"):
        dump.load(source)
    failed = (played / "sql").read_text()
    assert "RENAME" not in failed
    assert failed.rstrip().endswith('DROP DATABASE IF EXISTS "litellm_loading" WITH (FORCE);')


def test_load_leaves_what_a_restore_has_replaced(tmp_path: Path, played: Path) -> None:
    """A restore that was broken off weeks ago can still be taken back."""
    source = tmp_path / "litellm.dump"
    source.write_text("PGDMP")
    dump.load(source)
    assert "litellm_replaced" not in (played / "sql").read_text()
    with dump.beside():
        dump.swap(keep=True)
    assert "RENAME TO %I', datname, 'litellm_replaced'" in (played / "sql").read_text()


def test_database_that_was_in_use_is_not_dropped(played: Path) -> None:
    """What a broken-off restore has put in force makes way, under a name that is given."""
    (played / "replaced").touch()
    name = dump.put_back(aside=True)
    said = (played / "sql").read_text()
    assert name
    assert name.startswith("litellm_aside_20")
    assert f"RENAME TO %I', datname, '{name}'" in said
    assert 'ALTER DATABASE "litellm_replaced" RENAME TO "litellm"' in said
    assert "DROP" not in said
    assert dump.put_back(aside=False) is None
    assert 'DROP DATABASE IF EXISTS "litellm_loading"' in (played / "sql").read_text()


def test_without_docker_nobody_can_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no Docker it is said what to do."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotLookError, match="docker is missing"):
        dump.counts()


def test_tables_that_a_version_lacks_are_not_counted(played: Path) -> None:
    """The question names the tables that are there, and no other."""
    assert dump.counts() == {"keys": 3, "spend": 40}
    asked = next(line for line in (played / "sql").read_text().splitlines() if "build" in line)
    assert '"LiteLLM_SpendLogs"' in asked
    assert '"LiteLLM_TeamTable"' not in asked
    assert asked.count("count(*)") == 2
