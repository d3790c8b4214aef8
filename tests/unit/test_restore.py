"""What of a snapshot comes back, and what stays the host's own."""

import io
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from gatehouse.tool import here, restore_make
from gatehouse.tool.restic import Repository
from gatehouse.tool.restore import restore
from gatehouse.tool.restore_make import Plan

SAVED = {
    "salt_key": "sk-salt-then",
    "master_key": "sk-then",
    "ui_password": "same",
    "postgres_password": "then",
    "redis_password": "then",
    "backup_password": "then",
    "providers/OLLAMA_API_KEY": "then",
}


class Saved(Repository):
    """A snapshot whose folders are archives, as restic gives them."""

    prefix = ""

    def read(self, snapshot: str, path: Path) -> bytes:  # noqa: ARG002 - the signature of what it plays
        """Give a folder."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, value in {**SAVED, "../../escape": "x"}.items():
                info = tarfile.TarInfo(f"{str(path).lstrip('/')}/{name}" if self.prefix else name)
                info.size = len(value)
                tar.addfile(info, io.BytesIO(value.encode()))
        return buffer.getvalue()


class FromRoot(Saved):
    """The same, named from the root: restic's versions differ."""

    prefix = "yes"


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


@pytest.mark.parametrize("kind", [Saved, FromRoot])
def test_salt_key_comes_back_and_rotated_ones_stay(kind: type[Saved], present: Path) -> None:
    """In place: what stored credentials need, and nothing that was rotated since."""
    found = restore_make._secrets(kind("/srv/backups"), plan(everything=False))  # noqa: SLF001
    assert {path.relative_to(present): v.get_secret_value() for path, v in found.items()} == {
        Path("salt_key"): "sk-salt-then"
    }


@pytest.mark.parametrize("kind", [Saved, FromRoot])
def test_new_host_is_known_by_the_same_secrets(kind: type[Saved], present: Path) -> None:
    """Clients and people need theirs; what the parts tell each other is the host's own."""
    found = restore_make._secrets(kind("/srv/backups"), plan(everything=True))  # noqa: SLF001
    assert {str(path.relative_to(present)) for path in found} == {
        "salt_key",
        "master_key",
        "providers/OLLAMA_API_KEY",
    }
    assert "sk-then" not in repr(found)


def test_roles_of_others_come_back_and_litellms_own_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its password is the host's, not the snapshot's."""
    told: list[str] = []
    monkeypatch.setattr(
        restore_make.stack, "docker", lambda *_words, text="": told.append(text) or ""
    )
    dumped = tmp_path / "globals.sql"
    dumped.write_text(
        "SET default_transaction_read_only = off;\nCREATE ROLE grafana;\n"
        "ALTER ROLE grafana WITH LOGIN PASSWORD 'x';\nCREATE ROLE litellm;\n"
        "ALTER ROLE litellm WITH SUPERUSER PASSWORD 'y';\n"
    )
    restore_make._roles(dumped)  # noqa: SLF001
    assert told == ["CREATE ROLE grafana;\nALTER ROLE grafana WITH LOGIN PASSWORD 'x';\n"]


def test_only_root_restores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are told what to type."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    result = CliRunner().invoke(restore, [])
    assert result.exit_code == 2
    assert "sudo gatehouse restore" in result.output
