"""Engines after a reboot, a power cut, and a stack that was taken down and up again by hand."""

from uuid import uuid4

import pytest

from gatehouse.lab.workstation import Workstation
from tests.gateway import Gateway, question
from tests.lab.conftest import failing, wait_until_healthy
from tests.lab.engines import CHAT, EMBED, PORTS, ask, running, sleep_all, state
from tests.lab.test_engines import sockets

BY_HAND = "cd /opt/gatehouse/current && docker compose"


@pytest.fixture(autouse=True)
def asleep(engine_host: Workstation) -> None:
    """Begin with every engine asleep."""
    sleep_all(engine_host)


def woken(gateway: Gateway, name: str) -> bool:
    """Ask an engine through the gateway, for what is in no cache; say whether that woke it."""
    text = f"hello {uuid4()}"
    if name == EMBED:
        found = gateway.ask("POST", "/v1/embeddings", {"model": name, "input": [text]})
    else:
        found = gateway.ask("POST", "/v1/chat/completions", question(name, text, max_tokens=3))
    assert found.status == 200, found.text
    return found.headers["x-gatehouse-engine"] == "woken"


@pytest.mark.parametrize("power_cut", [False, True], ids=["reboot", "power cut"])
def test_nothing_is_loaded_after(
    engine_host: Workstation, engine_gateway: Gateway, *, power_cut: bool
) -> None:
    """An engine that was awake sleeps, every port is held, and the next request wakes it."""
    assert ask(engine_host, EMBED, "/v1/embeddings", model=EMBED, input="a gate").status == 200
    assert state(engine_host, EMBED) == "awake"
    engine_host.restart(power_cut=power_cut)
    wait_until_healthy(engine_host)
    assert not running(engine_host)
    assert {state(engine_host, name) for name in PORTS} == {"asleep"}
    processes = engine_host.exec("ps -eo args=").stdout
    assert "socket-proxyd" not in processes
    assert "gatehouse.engines" not in processes
    held = {f"{at}:{port}" for at in ("127.0.0.1", "172.30.40.1") for port in PORTS.values()}
    assert sockets(engine_host) == held
    assert woken(engine_gateway, EMBED)
    assert failing(engine_host) == []


def test_stack_taken_down_by_hand_is_healed(
    engine_host: Workstation, engine_gateway: Gateway
) -> None:
    """After `docker compose down` and `up -d` the next request finds or makes all it needs."""
    engine_host.ssh(f"{BY_HAND} down", user="root")
    engine_host.ssh(f"{BY_HAND} up -d", user="root")
    wait_until_healthy(engine_host)
    assert woken(engine_gateway, CHAT)
    assert woken(engine_gateway, EMBED)
    assert failing(engine_host) == []
