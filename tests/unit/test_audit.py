"""The audit log: one line for each change, only ever added to, and readable again."""

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from gatehouse import audit
from gatehouse.tool.log import log

EARLIER = (
    '{"time": "2020-01-02T03:04:05+00:00", "who": "ann", "action": "deploy", "result": "ok"}\n'
)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the log in a folder of the test."""
    path = tmp_path / "audit.jsonl"
    monkeypatch.setattr(audit, "FILE", path)
    return path


def test_line_says_who_did_what(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The person behind sudo counts; what is None is left out; only owner and group may read."""
    monkeypatch.setenv("SUDO_USER", "ann")
    monkeypatch.setenv(audit.CAME_FROM, "ann@laptop")
    audit.record("keys new", "ok", alias="bob", team=None)
    (entry,) = audit.entries()
    assert entry.pop("time")
    assert entry == {
        "who": "ann",
        "action": "keys new",
        "result": "ok",
        "from": "ann@laptop",
        "alias": "bob",
    }
    assert file.stat().st_mode & 0o777 == 0o640


def test_lines_are_only_added(file: Path) -> None:
    """What is there stays; a line that a full disk cut off does not hide the others."""
    file.write_text(EARLIER + '{"time": "2020-01-02T')
    with file.open("a") as handle:
        handle.write("\n")
    audit.record("deploy", "failed", step="Redis")
    assert [entry["result"] for entry in audit.entries()] == ["ok", "failed"]
    assert file.read_text().startswith(EARLIER)


def _many(path: Path, name: str) -> None:
    audit.FILE = path
    for _ in range(50):
        audit.record(name, "ok", padding="x" * 5000)


def test_writers_at_once_lose_nothing(file: Path) -> None:
    """Lines of several processes never mix."""
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.starmap(_many, [(file, f"writer {number}") for number in range(4)])
    assert len(file.read_text().splitlines()) == 200
    assert len([json.loads(line) for line in file.read_text().splitlines()]) == 200


def test_timer_is_named_as_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What systemd starts is not said to be root's doing."""
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setenv("INVOCATION_ID", "0123")
    monkeypatch.setattr(audit.Path, "read_text", lambda *_: "4294967295")
    monkeypatch.setattr(audit.os, "getuid", lambda: 0)
    assert audit.actor() == "timer"


def test_deploy_writes_by_command(tmp_path: Path) -> None:
    """`python -m gatehouse.audit` refuses a result that is none."""
    command = [sys.executable, "-m", "gatehouse.audit", "deploy", "fine"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "'fine' is none of" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ([], {"first", "second", "third"}),
        (["-n", "1"], {"third"}),
        (["--failed"], {"second"}),
        (["--since", "7d"], {"second", "third"}),
        (["--since", "2001-01-01"], {"second", "third"}),
        (["--since", "1m", "--failed"], {"second"}),
    ],
)
def test_log_shows_what_is_asked_for(file: Path, arguments: list[str], shown: set[str]) -> None:
    """By number, by time, and by result."""
    file.write_text(EARLIER.replace("2020", "2000").replace("deploy", "first"))
    audit.record("second", "failed", reason="it [bold]broke[/]")
    audit.record("third", "ok")
    output = CliRunner().invoke(log, [*arguments, "--json"]).stdout
    assert {entry["action"] for entry in json.loads(output)["entries"]} == shown
    table = CliRunner().invoke(log, arguments).stdout
    assert {word for word in ("first", "second", "third") if word in table} == shown
    assert ("it [bold]broke[/]" in table) == ("second" in shown)


@pytest.mark.parametrize("text", ["yesterday", "7", "7w", "", "2026-13-01", "-1d"])
def test_wrong_time_is_wrong_usage(file: Path, text: str) -> None:
    """The message names the option and the forms."""
    result = CliRunner().invoke(log, ["--since", text])
    if text:
        assert result.exit_code == 2
        assert "30m, 12h, 7d" in result.output


def test_log_of_a_host_that_is_no_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to look at is exit code 2."""
    monkeypatch.setattr(audit, "FILE", Path("/nowhere/audit.jsonl"))
    result = CliRunner().invoke(log, [])
    assert result.exit_code == 2
    assert "no gateway" in result.output
