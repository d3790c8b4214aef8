"""Engines after a reboot, a power cut, and a stack that was taken down and up again by hand."""

import pytest

from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy
from tests.gateway import Gateway, question
from tests.lab.conftest import failing, wait_until_healthy
from tests.lab.engines import CHAT, EMBED, PORTS, ask, running, sleep_all, state
from tests.lab.test_engines import sockets

BY_HAND = "cd /opt/gatehouse/current && docker compose"


@pytest.fixture(autouse=True)
def asleep(engine_host: Workstation) -> None:
    """Begin with every engine asleep."""
    sleep_all(engine_host)


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
    found = engine_gateway.ask("POST", "/v1/embeddings", {"model": EMBED, "input": ["a gate"]})
    assert found.status == 200, found.text
    assert running(engine_host) == {EMBED}
    assert failing(engine_host) == []


def test_stack_taken_down_by_hand_is_healed(
    engine_host: Workstation, engine_gateway: Gateway
) -> None:
    """After `docker compose down` and `up -d` the next request finds or makes all it needs."""
    engine_host.ssh(f"{BY_HAND} down", user="root")
    engine_host.ssh(f"{BY_HAND} up -d", user="root")
    wait_until_healthy(engine_host)
    found = engine_gateway.ask(
        "POST", "/v1/chat/completions", question(CHAT, "hello", max_tokens=3)
    )
    assert found.status == 200, found.text
    assert found.headers["x-gatehouse-engine"] == "woken"
    assert failing(engine_host) == []
    assert deploy(engine_host).changed == []
