"""Restarts: by hand, of the engine, and of the whole machine."""

from collections.abc import Iterator

import pytest

from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy
from tests.gateway import Gateway
from tests.lab.conftest import OURS, containers, failing, recreated, wait_until_healthy

BY_HAND = "cd /opt/gatehouse/current && docker compose"


@pytest.fixture(autouse=True)
def _key(gateway: Gateway) -> Iterator[None]:
    """Make a key before, and see that it still works afterwards."""
    made = gateway.ask("POST", "/key/generate", {}, keep={"key": "lasting"})
    assert made.status == 200, made.text
    token = gateway.ask("GET", "/key/info", key="{lasting}").json()["key"]
    yield
    known = gateway.ask("GET", f"/key/info?key={token}")
    assert known.status == 200, "the key is gone"
    gateway.ask("POST", "/key/delete", {"keys": [token]})


def test_service_can_be_restarted_by_hand(workstation: Workstation) -> None:
    """`docker compose restart litellm` in the current release works as people expect."""
    before = containers(workstation)
    workstation.ssh(f"{BY_HAND} restart litellm", user="root")
    wait_until_healthy(workstation)
    assert containers(workstation) == before
    assert failing(workstation) == []


def test_up_by_hand_leaves_the_data_alone(workstation: Workstation) -> None:
    """`docker compose up -d` in the current release works, and a deploy has nothing to mend.

    It may run the migrations again. Before 2.30 Compose takes a service that was started without
    its dependencies (`--no-deps`) for a changed one, so it replaces the gateway's container too.
    """
    before = containers(workstation)
    workstation.ssh(f"{BY_HAND} up -d", user="root")
    wait_until_healthy(workstation)
    assert recreated(before, containers(workstation)) <= {"litellm", "litellm-migrate"}
    assert failing(workstation) == []
    assert deploy(workstation).changed == []


def test_engine_restart_leaves_the_containers_running(workstation: Workstation) -> None:
    """An upgrade of the engine does not drop requests: the same processes go on."""
    started = f"{OURS} | xargs docker inspect -f '{{{{.Name}}}} {{{{.State.StartedAt}}}}' | sort"
    before = workstation.exec(started).stdout
    workstation.exec("systemctl restart docker")
    assert workstation.exec(started).stdout == before
    wait_until_healthy(workstation)
    assert failing(workstation) == []


@pytest.mark.parametrize("power_cut", [False, True], ids=["reboot", "power cut"])
def test_everything_comes_back_after(workstation: Workstation, *, power_cut: bool) -> None:
    """Nobody has to do anything: services, data and firewall are there again."""
    before = containers(workstation)
    workstation.restart(power_cut=power_cut)
    wait_until_healthy(workstation)
    assert containers(workstation) == before
    assert failing(workstation) == []
