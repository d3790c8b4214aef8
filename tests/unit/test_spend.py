"""Spend: which period is asked for, and what is summed up."""

import json
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from gatehouse.render.template import ROOT
from gatehouse.tool import database, spend
from gatehouse.tool.errors import CannotLookError
from tests.given import settings

NOW = datetime(2026, 11, 21, 13, 30, tzinfo=UTC)
COUNTS = {"failed": 0, "cached": 0, "prompt_tokens": 10, "completion_tokens": 20}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for the database, at a fixed time, and keep what it is asked."""
    queries: list[str] = []
    answer: list[dict[str, Any]] = [
        {"name": "ci@20261120-101112", "requests": 1, "spend": 0.25, **COUNTS},
        {"name": "ci", "requests": 2, "spend": 0.5, **COUNTS},
        {"name": "litellm_proxy_master_key", "requests": 1, "spend": 0, **COUNTS},
        {"name": "me@example.com", "requests": 1, "spend": 4.0, **COUNTS},
    ]

    def rows(query: str) -> list[dict[str, Any]]:
        queries.append(query)
        return answer

    monkeypatch.setattr(spend, "rows", rows)
    monkeypatch.setattr(spend, "be_root", lambda _: None)
    monkeypatch.setattr(spend, "settings", settings)
    monkeypatch.setattr(spend.time, "time", NOW.timestamp)
    return queries


def call(*words: str, code: int = 0) -> str:
    """Call `gatehouse spend`."""
    done = CliRunner().invoke(spend.spend, list(words))
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.output


@pytest.mark.parametrize(
    ("words", "since", "until"),
    [
        ([], "2026-10-23", "2026-11-22"),
        (["--days", "1"], "2026-11-21", "2026-11-22"),
        (["--since", "2026-11-01"], "2026-11-01", "2026-11-22"),
        (["--since", "2026-11-01", "--until", "2026-11-01"], "2026-11-01", "2026-11-02"),
        (["--until", "2026-10-31", "--days", "31"], "2026-10-01", "2026-11-01"),
    ],
)
def test_period_is_whole_days(asked: list[str], words: list[str], since: str, until: str) -> None:
    """The period begins with its first day and ends with its last, both in UTC."""
    call(*words)
    assert f"timestamp '{since} 00:00:00'" in asked[0]
    assert f"< timestamp '{until} 00:00:00'" in asked[0]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--days", "0"], "--days"),
        (["--since", "yesterday"], "--since"),
        (["--since", "2026-11-02", "--until", "2026-11-01"], "before it begins"),
        (["--since", "2026-11-02", "--days", "3"], "give one"),
        (["--by", "user"], "--by"),
    ],
)
def test_wrong_period_is_refused(asked: list[str], words: list[str], found: str) -> None:
    """What is no period is said before the database is asked."""
    assert found in call(*words, code=2)
    assert asked == []


def test_old_values_count_as_the_key(asked: list[str]) -> None:
    """What was spent before a rotation counts under the key's alias, and addresses stay whole."""
    found = json.loads(call("--json"))
    jsonschema.validate(found, json.loads((ROOT / "docs/schemas/spend.json").read_text()))
    lines = {line["name"]: (line["requests"], line["spend"]) for line in found["lines"]}
    assert lines == {"me@example.com": (1, 4.0), "ci": (3, 0.75), "master key": (1, 0)}
    assert next(iter(lines)) == "me@example.com", "the most expensive is not the first"
    assert (found["total"]["requests"], found["total"]["prompt_tokens"]) == (5, 40)
    assert len(asked) == 1


def test_what_is_not_counted_is_said(asked: list[str]) -> None:
    """The last batch may be missing, and what is older than the logs is."""
    done = CliRunner().invoke(spend.spend, ["--since", "2026-01-01"])
    assert "litellm_batch_write_seconds" in done.stderr
    assert "litellm_spend_log_days" in done.stderr
    past = CliRunner().invoke(spend.spend, ["--since", "2026-11-01", "--until", "2026-11-02"])
    assert past.stderr == ""
    assert len(asked) == 2


def test_database_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Docker or its database there is one line, and no traceback."""
    monkeypatch.setattr(database, "_PSQL", ("/nonexistent/docker",))
    with pytest.raises(CannotLookError, match="gatehouse doctor"):
        database.rows("SELECT 1")
    monkeypatch.setattr(database, "_PSQL", ("sh", "-c", "echo no such container >&2; exit 1"))
    with pytest.raises(CannotLookError, match="no such container"):
        database.rows("SELECT 1")
