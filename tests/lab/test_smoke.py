"""`gatehouse smoke` and `gatehouse inventory` on a real gateway."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import CompletedProcess
from typing import Any

import jsonschema
import pytest

from gatehouse.lab.common import ROOT
from gatehouse.lab.workstation import Workstation
from tests.gateway import Gateway
from tests.lab.conftest import wait_until_healthy
from tests.waiting import wait_for

ALIAS = "gatehouse-smoke"


def run(workstation: Workstation, command: str, code: int | None = 0) -> CompletedProcess[str]:
    """Run a command of ours and expect its exit code; None expects nothing."""
    found = workstation.exec(f"gatehouse {command}", check=False)
    assert code is None or found.returncode == code, found.stdout + found.stderr
    return found


def document(workstation: Workstation, command: str, code: int = 0) -> dict[str, Any]:
    """Run a command with --json and give its document, which is as its schema says."""
    name = command.split(maxsplit=1)[0]
    found: dict[str, Any] = json.loads(run(workstation, f"{command} --json", code).stdout)
    schema = json.loads((ROOT / f"docs/schemas/{name}.json").read_text())
    jsonschema.validate(found, schema)
    return found


def steps(workstation: Workstation, code: int = 0) -> dict[str, dict[str, Any]]:
    """Give the steps of a smoke test by name."""
    return {each["name"]: each for each in document(workstation, "smoke", code)["steps"]}


def failed(found: dict[str, dict[str, Any]]) -> set[str]:
    """Give the steps that failed."""
    return {name for name, each in found.items() if each["state"] == "failed"}


def has_key(gateway: Gateway) -> bool:
    """Tell whether the key of a smoke test is there."""
    found = gateway.ask("GET", f"/key/list?return_full_object=true&key_alias={ALIAS}")
    assert found.status == 200, found.text
    return ALIAS in found.text


@contextmanager
def gateway_elsewhere(workstation: Workstation) -> Iterator[None]:
    """Have commands look for the gateway at a port where nobody listens: it need not be stopped."""
    settings = "/etc/gatehouse/settings.json"
    workstation.exec(f"cp -p {settings} /root/ && sed -i 's/4000/4999/' {settings}")
    try:
        yield
    finally:
        workstation.exec(f"mv /root/settings.json {settings}")


@pytest.fixture(autouse=True, scope="module")
def settled(workstation: Workstation) -> None:
    """Begin with a proxy that reaches Redis: it tries again a while after it was gone."""
    wait_for(
        lambda: run(workstation, "smoke", None).returncode == 0, 60, "the gateway to be usable"
    )


def test_every_step_of_a_fresh_gateway_is_fine(workstation: Workstation, gateway: Gateway) -> None:
    """From a new key to a fallback: all works, what it has no model for is skipped, the key goes."""
    found = steps(workstation)
    skipped = {name for name, each in found.items() if each["state"] == "skipped"}
    assert not failed(found)
    assert skipped == {"rerank"}
    assert "models_enable" in found["rerank"]["fix"]
    assert not has_key(gateway)


def test_table_names_steps_and_result(workstation: Workstation) -> None:
    """People get a table, without colours in a pipe, and a sentence."""
    found = run(workstation, "smoke").stdout
    assert "\x1b" not in found
    assert found.rstrip().endswith("The gateway can be used.")
    assert [line.split()[0] for line in found.splitlines()[1:9]] == list(steps(workstation))


def test_cache_without_redis_is_named(workstation: Workstation) -> None:
    """With Redis stopped, the cache is the step that fails, and the only one."""
    workstation.exec("docker stop gatehouse-redis-1")
    try:
        found = steps(workstation, 1)
        assert failed(found) == {"cache"}
        assert "redis" in found["cache"]["fix"]
    finally:
        workstation.exec("docker start gatehouse-redis-1")
        wait_until_healthy(workstation)
    wait_for(
        lambda: run(workstation, "smoke", None).returncode == 0,
        30,
        "the proxy to reach Redis again",
    )


def test_gateway_that_is_not_there_fails_at_the_first_step(workstation: Workstation) -> None:
    """Where nobody listens the key is what fails; the rest is skipped."""
    with gateway_elsewhere(workstation):
        found = steps(workstation, 1)
        assert failed(found) == {"key"}
        assert "cannot be reached" in found["key"]["found"]
        assert {each["state"] for name, each in found.items() if name != "key"} == {"skipped"}
        assert "cannot be reached" in run(workstation, "inventory", 2).stderr


def test_interrupted_smoke_leaves_no_key(workstation: Workstation, gateway: Gateway) -> None:
    """Being stopped in the middle ends it, and the key is removed all the same."""
    workstation.exec("docker pause gatehouse-redis-1")
    try:
        workstation.exec("setsid gatehouse smoke >/root/smoke.log 2>&1 & echo $! >/root/smoke.pid")
        wait_for(lambda: has_key(gateway), 60, "the key of the smoke test")
        workstation.exec("kill -TERM $(cat /root/smoke.pid)")
    finally:
        workstation.exec("docker unpause gatehouse-redis-1")
    wait_for(lambda: not has_key(gateway), 60, "the key to be gone")


def test_smoke_needs_root(workstation: Workstation) -> None:
    """Without root there is no master key: exit code 2, and what to type."""
    found = workstation.exec(
        "setpriv --reuid 65534 --regid 65534 --clear-groups gatehouse smoke", check=False
    )
    assert found.returncode == 2
    assert "sudo gatehouse smoke" in found.stderr


@pytest.mark.parametrize("command", ["smoke now", "smoke --wait", "inventory --recrod"])
def test_wrong_words_are_refused(workstation: Workstation, command: str) -> None:
    """A mistyped command is exit code 2 and a hint."""
    assert "--help" in run(workstation, command, 2).stderr


def test_inventory_shows_what_came_and_went(workstation: Workstation) -> None:
    """What is offered is compared with the record."""
    state = "/var/lib/gatehouse/state/inventory.json"
    document(workstation, "inventory")
    run(workstation, "inventory --record")
    assert workstation.exec(f"stat -c '%a %U %G' {state}").stdout.strip() == "640 root gatehouse"
    changed = json.loads(workstation.exec(f"cat {state}").stdout)
    gone = changed["models"].pop()
    changed["models"].append(gone | {"name": "chat-yesterday-vllm"})
    workstation.exec(f"cat >{state}", text=json.dumps(changed))
    found = document(workstation, "inventory")
    assert (found["added"], found["removed"]) == ([gone["name"]], ["chat-yesterday-vllm"])
    run(workstation, "inventory --record")
    found = document(workstation, "inventory")
    assert found["added"] == found["removed"] == []
    assert found["changes"][0]["added"] == [gone["name"]]
