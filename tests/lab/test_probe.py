"""`gatehouse probe` and `gatehouse knowledge` on a real gateway."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gatehouse.lab.workstation import Workstation
from tests.lab.test_smoke import document, run

STATE = "/var/lib/gatehouse/state/probe.json"
BUILTIN = "chat-selftest-builtin"
URL = "http://127.0.0.1:9177/prices.json"
MIRROR = "/root/mirror"


@pytest.fixture(autouse=True)
def state(workstation: Workstation) -> Iterator[None]:
    """Begin without records and knowledge, and leave none."""
    remove = f"rm -rf {STATE} /var/lib/gatehouse/knowledge /var/lib/gatehouse/state/knowledge.json"
    workstation.exec(remove)
    yield
    workstation.exec(remove)


@contextmanager
def mirror(workstation: Workstation) -> Iterator[str]:
    """Serve a list of 60 models on the workstation's loopback; gives its address."""
    models = {f"openai/model-{n}": {"mode": "chat", "max_tokens": 10} for n in range(60)}
    workstation.exec(f"mkdir -p {MIRROR} && cat >{MIRROR}/prices.json", text=json.dumps(models))
    workstation.exec(
        "systemd-run --quiet --collect --unit mirror "
        f"python3 -m http.server 9177 --bind 127.0.0.1 --directory {MIRROR}; "
        f"until curl -sf {URL} -o /dev/null; do sleep 0.2; done"
    )
    try:
        yield URL
    finally:
        workstation.exec(f"systemctl stop mirror; rm -r {MIRROR}")


def capabilities(found: dict[str, Any], name: str) -> dict[str, Any]:
    """Give what a model can do, by name."""
    model = next(each for each in found["models"] if each["name"] == name)
    return {each["name"]: each for each in model["capabilities"]}


def test_builtin_models_are_found_out(workstation: Workstation) -> None:
    """What talks, talks; what embeds has its dimensions; the failing one is left alone."""
    found = document(workstation, "probe")
    talks = capabilities(found, BUILTIN)
    assert {name: each["value"] for name, each in talks.items()} == {
        "chat": True,
        "stream": True,
        "tools": False,
        "json": False,
        "vision": False,
        "context": 8192,
    }
    assert capabilities(found, "embed-selftest-builtin")["embedding"]["value"] == 4
    failing = next(each for each in found["models"] if each["name"] == "chat-selftest-failing")
    assert failing["skipped"] == "it fails on purpose"


def test_change_since_the_last_record_is_shown(workstation: Workstation) -> None:
    """A capability that was recorded and is gone is lost, with exit code 1; a new one is new."""
    run(workstation, "probe --record")
    record = json.loads(workstation.exec(f"cat {STATE}").stdout)
    for each in next(each for each in record["models"] if each["name"] == BUILTIN)["capabilities"]:
        each["value"] = each["last"] = {"tools": True, "stream": False}.get(
            each["name"], each["value"]
        )
    workstation.exec(f"cat >{STATE}", text=json.dumps(record))
    found = capabilities(document(workstation, "probe", 1), BUILTIN)
    assert (found["tools"]["change"], found["stream"]["change"]) == ("lost", "new")
    assert found["chat"]["change"] == "same"
    table = run(workstation, "probe", 1).stdout
    assert "no (lost)" in table
    assert "yes (new)" in table
    run(workstation, "probe --record", 1)
    run(workstation, "probe")


def test_unknown_model_is_refused(workstation: Workstation) -> None:
    """Exit code 2 and the close name."""
    assert BUILTIN in run(workstation, "probe chat-selftest-bultin", 2).stderr


def test_prices_are_fetched_only_where_that_is_allowed(workstation: Workstation) -> None:
    """Refused by default; then from a mirror, and what is no list changes nothing."""
    assert "knowledge_refresh = False" in run(workstation, "knowledge refresh", 2).stderr
    settings = "/etc/gatehouse/settings.json"
    allowed = json.loads(workstation.exec(f"cat {settings}").stdout)
    allowed |= {"knowledge_refresh": True, "knowledge_url": URL}
    workstation.exec(f"cp -p {settings} /root/")
    try:
        workstation.exec(f"cat >{settings}", text=json.dumps(allowed))
        with mirror(workstation):
            run(workstation, "knowledge refresh")
            found = document(workstation, "knowledge show")
            assert found["known"] == 60
            assert {each["state"] for each in found["models"]} == {"local"}
            workstation.exec(f"echo '<html>' >{MIRROR}/prices.json")
            assert "is no JSON" in run(workstation, "knowledge refresh", 1).stderr
            assert document(workstation, "knowledge show")["known"] == 60
    finally:
        workstation.exec(f"mv /root/settings.json {settings}")
