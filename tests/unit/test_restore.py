"""What of a snapshot comes back, and what stays the host's own."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from gatehouse.tool import dump, here, restore_back, restore_make, rotation
from gatehouse.tool import restore as restoring
from gatehouse.tool.backup_make import DUMP, GLOBALS, WORK
from gatehouse.tool.errors import CannotLookError, ProblemError
from gatehouse.tool.restic import Repository
from gatehouse.tool.restore import restore
from gatehouse.tool.restore_make import Plan
from gatehouse.tool.unpack import unpack
from tests.given import settings

SAVED = {
    "salt_key": "sk-salt-then",
    "master_key": "sk-then",
    "ui_password": "same",
    "postgres_password": "then",
    "redis_password": "then",
    "backup_password": "then",
    "providers/OLLAMA_API_KEY": "then",
}


@pytest.fixture(autouse=True)
def present(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give secrets of the host."""
    folder = tmp_path / "secrets"
    (folder / "providers").mkdir(parents=True)
    for name in SAVED:
        (folder / name).write_text("same" if name == "ui_password" else "now")
    monkeypatch.setattr(here, "SECRETS", folder)
    return folder


def plan(*, everything: bool) -> Plan:
    """Give what is to come back."""
    return Plan("aa11", {}, all_secrets=everything, folders=False, migrate=False)


def saved(folder: Path) -> dict[Path, bytes]:
    """Give the files of a snapshot."""
    secrets = {folder / name: value.encode() for name, value in SAVED.items()}
    return secrets | {folder.parent / "salt_key": b"of somebody else"}


def test_salt_key_comes_back_and_rotated_ones_stay(present: Path) -> None:
    """In place: what stored credentials need, and nothing that was rotated since."""
    found = restore_make._secrets(saved(present), plan(everything=False))  # noqa: SLF001
    assert {path.relative_to(present): v.get_secret_value() for path, v in found.items()} == {
        Path("salt_key"): "sk-salt-then"
    }


def test_new_host_is_known_by_the_same_secrets(present: Path) -> None:
    """Clients and people need theirs; what the parts tell each other is the host's own."""
    found = restore_make._secrets(saved(present), plan(everything=True))  # noqa: SLF001
    assert {str(path.relative_to(present)) for path in found} == {
        "salt_key",
        "master_key",
        "providers/OLLAMA_API_KEY",
    }
    assert "sk-then" not in repr(found)


def test_new_host_gets_delivered_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was ever declared; in place it has them."""
    monkeypatch.setattr(restore_make, "_KEYS", Path("/keys"))
    monkeypatch.setattr(restore_make, "_DECLARED", Path("/state/declared.json"))
    wanted = {Path("/keys/ci"): b"1", Path("/state/declared.json"): b"{}"}
    found = wanted | {Path("/keys/old/ci"): b"2", Path("/state/keys.json"): b"{}"}
    new = Plan("aa11", {}, all_secrets=True, folders=True, migrate=False)
    assert restore_make._files(found, new) == wanted  # noqa: SLF001
    assert restore_make._files(found, plan(everything=True)) == {}  # noqa: SLF001


class Saved(Repository):
    """A snapshot with files in this order."""

    def __init__(self, *files: tuple[str, str]) -> None:
        """Hold them: path and content."""
        super().__init__("/srv/backups")
        object.__setattr__(self, "held", files)

    @contextmanager
    def files(self, snapshot: str) -> Iterator[Iterator[tuple[Path, IO[bytes]]]]:  # noqa: ARG002 - the signature of what it plays
        """Give them."""
        held: tuple[tuple[str, str], ...] = self.held  # type: ignore[attr-defined]
        yield ((Path(path), io.BytesIO(content.encode())) for path, content in held)


def test_snapshot_is_unpacked_with_the_roles_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dump goes to the server, the roles of others before it; LiteLLM's own stays the host's."""
    told: list[str] = []
    monkeypatch.setattr(dump.stack, "docker", lambda *_words, text="": told.append(text) or "")
    monkeypatch.setattr(dump, "fill", lambda file, name, **_: told.append(f"{name} {file.read()}"))
    roles = (
        "SET default_transaction_read_only = off;\nCREATE ROLE grafana;\n"
        "ALTER ROLE grafana WITH LOGIN PASSWORD 'x';\nCREATE ROLE litellm;\n"
        "ALTER ROLE litellm WITH SUPERUSER PASSWORD 'y';\n"
    )
    held = ((f"{WORK}/{GLOBALS}", roles), (f"{WORK}/{DUMP}", "PGDMP"), ("/var/z", "1"))
    found = unpack(Saved(("/etc/a", "2"), *held), "aa11", "beside")
    assert told == [
        "CREATE ROLE grafana;\nALTER ROLE grafana WITH LOGIN PASSWORD 'x';\n",
        "beside b'PGDMP'",
    ]
    assert found.keys() == {Path("/etc/a"), WORK / GLOBALS, Path("/var/z")}


def test_snapshot_without_a_dump_is_refused() -> None:
    """Nothing is switched to an empty database."""
    with pytest.raises(ProblemError, match="snapshot aa11 holds no dump of the database"):
        unpack(Saved(("/etc/a", "2")), "aa11", "beside")


def test_restore_that_was_broken_off_is_taken_back(
    present: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Database and secrets from before, in this order, then LiteLLM; and only once."""
    told: list[str] = []
    unfinished = present / ".restore"
    monkeypatch.setattr(restore_back, "UNFINISHED", unfinished)
    monkeypatch.setattr(rotation, "write", lambda path, v: path.write_text(v.get_secret_value()))
    monkeypatch.setattr(restore_back.subprocess, "run", lambda words, **_: told.append(words[0]))
    monkeypatch.setattr(restore_back.stack, "docker", lambda *words: told.append(words[0]))
    monkeypatch.setattr(restore_back.stack, "wait_healthy", lambda name, _: told.append(name))
    monkeypatch.setattr(restore_back.dump, "put_back", lambda **_: told.append("database"))
    monkeypatch.setattr(restore_back.dump, "drop", lambda name: told.append(f"drop {name}"))
    restore_back.put_back(settings(), aside=True)
    assert told == []
    then = SecretStr("then")
    names = ("salt_key", "new", "master_key")
    restore_back.begin(
        {present / name: (None if name == "new" else SecretStr("now"), then) for name in names}
    )
    for name in names:
        (present / name).write_text("then")
    (present / "master_key").write_text("rotated since")
    restore_back.put_back(settings(), aside=True)
    assert told == [
        *("systemd-run", "stop", "postgres", "redis", "database", "drop litellm_loading"),
        *("exec", "start", "litellm"),
    ]
    assert (present / "salt_key").read_text() == "now"
    assert (present / "master_key").read_text() == "rotated since"
    assert not (present / "new").exists()
    assert not unfinished.exists()


def test_way_back_has_another_docker_where_this_one_starts_nothing(
    present: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that lost count of a port is restarted, once; a start that fails again is told."""
    told: list[str] = []
    broken = [True]
    unfinished = present / ".restore"

    def docker(*words: str) -> None:
        told.append(words[0])
        if words[0] == "start" and broken:
            raise ProblemError("port is already allocated")

    def run(words: list[str], **_: object) -> None:
        told.append(" ".join(words))
        broken[:] = broken[1:]

    monkeypatch.setattr(restore_back, "UNFINISHED", unfinished)
    monkeypatch.setattr(restore_back.subprocess, "run", run)
    monkeypatch.setattr(restore_back.stack, "docker", docker)
    monkeypatch.setattr(restore_back.stack, "wait_healthy", lambda name, _: told.append(name))
    monkeypatch.setattr(restore_back.dump, "put_back", lambda **_: None)
    monkeypatch.setattr(restore_back.dump, "drop", lambda _name: None)
    unfinished.write_text("{}")
    restore_back.put_back(settings(), aside=True)
    stores, start = ("postgres", "redis"), ("exec", "start")
    again = "systemctl restart docker"
    assert told == ["stop", *stores, *start, again, *stores, *start, "litellm"]
    assert not unfinished.exists()
    broken[:] = [True, True]
    unfinished.write_text("{}")
    with pytest.raises(ProblemError, match="already allocated"):
        restore_back.put_back(settings(), aside=True)
    assert unfinished.exists()


def test_way_back_is_tried_again(
    present: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is not there yet may be in a while; what fails for good is told, and not forgotten."""
    unfinished = present / ".restore"
    outcomes: list[tuple[str, dict[str, object]]] = []
    failures = [ProblemError("postgres is starting"), OSError("no space left on device")]

    def put_back(*_: object, **__: object) -> str:
        if failures:
            raise failures.pop(0)
        unfinished.unlink()
        return "litellm_aside_20261129_123300"

    monkeypatch.setattr(restore_back, "UNFINISHED", unfinished)
    monkeypatch.setattr(restore_back, "_AGAIN_SECONDS", 0)
    monkeypatch.setattr(restore_back.lock, "FILE", tmp_path / "lock")
    monkeypatch.setattr(restore_back, "put_back", put_back)
    monkeypatch.setattr(restore_back.here, "settings", settings)
    monkeypatch.setattr(
        restore_back.audit, "record", lambda _, outcome, **more: outcomes.append((outcome, more))
    )
    unfinished.write_text("{}")
    restore_back.main()
    assert [outcome for outcome, _ in outcomes] == ["ok"]
    assert outcomes[0][1]["aside"] == "litellm_aside_20261129_123300"
    restore_back.main()
    assert len(outcomes) == 1
    unfinished.write_text("{}")
    failures[:] = [ProblemError("postgres is starting")] * 9
    with pytest.raises(SystemExit, match="gatehouse restore --recover"):
        restore_back.main()
    assert unfinished.exists()
    assert [outcome for outcome, _ in outcomes] == ["ok", "failed"]
    with pytest.raises(CannotLookError, match="gatehouse restore --recover"):
        restore_back.refuse()


def test_only_root_restores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are told what to type."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    result = CliRunner().invoke(restore, [])
    assert result.exit_code == 2
    assert "sudo gatehouse restore" in result.output


def test_second_database_needs_room_where_docker_keeps_its_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """That may be another disk than the system's; three times the dump has to fit."""
    asked: list[object] = []
    monkeypatch.setattr(restoring, "docker_root", lambda: str(tmp_path))
    monkeypatch.setattr(restoring.backup_make, "room", lambda needs, _: asked.extend(needs))
    restoring._room(settings(), 1000)  # noqa: SLF001
    assert asked == [(tmp_path, 3000)]
