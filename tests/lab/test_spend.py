"""Spend on the real gateway: what is reported is what was asked."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from gatehouse.lab.workstation import Workstation
from tests.lab.keys import SELFTEST, ask, document, keys
from tests.waiting import wait_for

# What was spent with a key of an earlier run would count, too.
ALIAS = f"lab-spender-{uuid.uuid4().hex[:8]}"
FILE = f"/root/{ALIAS}.key"
# The batch of this run's workstation is written every 5 seconds.
WRITE_SECONDS = 60


@pytest.fixture
def spender(workstation: Workstation) -> Iterator[str]:
    """Make a key; it is removed in the end."""
    keys(workstation, "new", ALIAS, "--to", FILE)
    yield ALIAS
    keys(workstation, "revoke", ALIAS, "--yes")
    workstation.exec(f"rm -f {FILE}")


def spend(workstation: Workstation, *words: str) -> dict[str, dict[str, Any]]:
    """Give the lines of the report by name, and `total`."""
    done = workstation.exec(["gatehouse", "spend", "--days", "2", "--json", *words])
    found = document(done.stdout, "spend")
    lines = {line["name"]: line for line in found["lines"]}
    for count in ("requests", "failed", "cached", "prompt_tokens", "completion_tokens"):
        assert found["total"][count] == sum(line[count] for line in lines.values())
    return lines | {"total": found["total"]}


def test_report_is_what_was_asked(workstation: Workstation, spender: str) -> None:
    """Requests, failures and tokens of a key are counted, across its rotation and after its end."""
    before = spend(workstation, "--by", "model").get(SELFTEST, {"requests": 0})["requests"]
    seen = ask(workstation, FILE, SELFTEST, times=2)
    keys(workstation, "rotate", spender, "--overlap", "60s", "--to", FILE)
    seen += ask(workstation, FILE, SELFTEST, times=3) + ask(workstation, FILE, "no-such-model")
    assert seen == ["200"] * 5 + ["400"]
    found = wait_for(
        lambda: [
            line for line in [spend(workstation).get(spender)] if line and line["requests"] == 6
        ],
        WRITE_SECONDS,
        "six requests in the report",
    )[0]
    # The self-test model counts 10 tokens asked and 20 answered, whatever is said.
    assert (found["failed"], found["cached"]) == (1, 0)
    assert (found["prompt_tokens"], found["completion_tokens"]) == (50, 100)
    assert spend(workstation, "--by", "model")[SELFTEST]["requests"] >= before + 5
    days = spend(workstation, "--by", "day")
    assert sum(days[day]["requests"] for day in days if day != "total") >= 6


def test_report_without_permission_or_sense_is_refused(workstation: Workstation) -> None:
    """Who is not root is told how to be, and a period that is none is said to be so."""
    done = workstation.ssh("gatehouse spend", user="operator", check=False)
    assert (done.returncode, "sudo gatehouse spend" in done.stderr) == (2, True)
    words = ["gatehouse", "spend", "--since", "2026-02-02", "--until", "2026-02-01"]
    wrong = workstation.exec(words, check=False)
    assert wrong.returncode == 2
    assert "before it begins" in wrong.stderr
    past = ["gatehouse", "spend", "--since", "2020-01-01", "--until", "2020-01-31", "--json"]
    assert json.loads(workstation.exec(past).stdout)["lines"] == []
