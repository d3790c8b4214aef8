"""The optional firewall: strangers are refused, nobody is locked out, and off leaves nothing."""

from collections.abc import Iterator

import pytest

from gatehouse.lab.common import run
from gatehouse.lab.workstation import Workstation
from tests.deploying import Deploy, deploy
from tests.lab.conftest import failing, wait_until_healthy
from tests.waiting import wait_for

SERVICE, PUBLISHED, ALLOWED, ON_BRIDGE, NOT_ALLOWED = 8555, 8556, 8557, 8558, 8559
SETTINGS = {
    "firewall_enabled": True,
    "firewall_ports": [ALLOWED],
    "firewall_bridge_ports": [ON_BRIDGE],
}
# From nowhere: nobody is there (RFC 5737).
LOCKED_OUT = {"firewall_ssh_networks": ["203.0.113.0/24"]}
# Somebody's own programs, and a container whose port Docker publishes for everybody.
STRANGERS = f"""
for port in {SERVICE} {ALLOWED} {ON_BRIDGE} {NOT_ALLOWED}; do
    systemd-run --quiet --collect --unit stranger-$port python3 -I -m http.server $port
done
image=$(docker inspect -f '{{{{.Config.Image}}}}' gatehouse-redis-1)
docker run -d --name stranger -p {PUBLISHED}:6379 --entrypoint redis-server "$image" --protected-mode no
"""
GONE = f"""
systemctl stop $(printf 'stranger-%s ' {SERVICE} {ALLOWED} {ON_BRIDGE} {NOT_ALLOWED})
docker rm -f stranger"""
INSIDE = "docker exec -i gatehouse-litellm-1 python3 -c 'import socket, sys; socket.create_connection((\"172.30.40.1\", {}), timeout=2)'"
LEFT = (
    "ls /etc/gatehouse/firewall.nft /etc/gatehouse/filter.sh /var/lib/gatehouse/firewall.nft "
    "/etc/systemd/system/gatehouse-filter.service; nft list table inet gatehouse; "
    "systemctl list-units --all --no-legend 'gatehouse-filter*'"
)


def seen(workstation: Workstation) -> dict[int, str]:
    """Give what a neighbour sees of the host's ports."""
    with workstation.neighbour() as neighbour:
        ports = (22, 4000, SERVICE, PUBLISHED, ALLOWED)
        return dict(neighbour.scan(workstation.address, ports, timeout_seconds=1))


def comes_in(workstation: Workstation) -> bool:
    """Tell whether a new SSH connection comes about."""
    options = ["-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "ConnectTimeout=2"]
    config = str(workstation.access.ssh_config)
    return not run(
        ["ssh", "-F", config, *options, workstation.name, "true"], check=False
    ).returncode


def rules(workstation: Workstation) -> str:
    """Give our rules, as the kernel has them."""
    return workstation.exec("nft -s list table inet gatehouse").stdout


@pytest.fixture(scope="module")
def strangers(workstation: Workstation) -> Iterator[dict[int, str]]:
    """Have somebody's programs run, and give what a neighbour sees of them without a firewall."""
    workstation.exec(STRANGERS)
    try:
        yield seen(workstation)
    finally:
        workstation.exec(GONE, check=False)


@pytest.fixture(scope="module")
def closed(workstation: Workstation, strangers: dict[int, str]) -> Iterator[Deploy]:
    """Have the firewall on for these tests; afterwards nothing of it is left."""
    assert strangers[SERVICE] == "open"
    try:
        yield deploy(workstation, settings=SETTINGS)
    finally:
        deploy(workstation)
        left = workstation.exec(LEFT, check=False).stdout
        assert left == ""
        assert seen(workstation) == strangers


def test_strangers_are_refused(
    workstation: Workstation, strangers: dict[int, str], closed: Deploy
) -> None:
    """Programs and published ports answer before and not after; what is allowed, and SSH, do."""
    assert "Firewall | Let in only what is allowed" in closed.changed
    before = dict.fromkeys((22, SERVICE, PUBLISHED, ALLOWED), "open") | {4000: "closed"}
    assert strangers == before
    after = dict.fromkeys((4000, SERVICE, PUBLISHED), "filtered") | {22: "open", ALLOWED: "open"}
    assert seen(workstation) == after
    workstation.exec("systemctl restart docker")
    assert seen(workstation) == after
    # A daemon that restarts asks after everybody's health anew.
    wait_until_healthy(workstation)


def test_gateway_works_behind_the_firewall(workstation: Workstation, closed: Deploy) -> None:
    """Every check holds, containers reach what they need on the bridge, and nothing else there."""
    assert closed.code == 0
    assert failing(workstation, **SETTINGS) == []
    workstation.exec("curl -sf http://127.0.0.1:4000/health/liveliness")
    workstation.exec(INSIDE.format(ON_BRIDGE))
    refused = workstation.exec(INSIDE.format(NOT_ALLOWED), check=False)
    assert "timed out" in refused.stderr


def test_second_deploy_changes_nothing(workstation: Workstation, closed: Deploy) -> None:
    """Rules that are in force are left alone: no timer, no new connection."""
    assert closed.changed
    assert deploy(workstation, settings=SETTINGS).changed == []


def test_deploy_that_would_lock_out_is_undone(workstation: Workstation, closed: Deploy) -> None:
    """Rules through which the deploy cannot come in again fail it, and those before stay."""
    assert closed.code == 0
    before = rules(workstation)
    done = deploy(workstation, settings=SETTINGS | LOCKED_OUT, expect=None)
    assert done.code == 1
    assert "the firewall would lock you out: no new connection came in" in done.words
    assert "firewall_ssh_networks" in done.words
    assert rules(workstation) == before
    assert comes_in(workstation)
    # The next deploy puts the file right, too.
    assert deploy(workstation, settings=SETTINGS).code == 0


def test_rules_that_nobody_confirms_undo_themselves(
    workstation: Workstation, closed: Deploy
) -> None:
    """A deploy that dies after it has locked everybody out is undone by the host's own timer."""
    assert closed.code == 0
    before, wanted = rules(workstation), "/etc/gatehouse/firewall.nft"
    workstation.exec(f"cp -a {wanted} /root/kept.nft && sed -i '/ saddr .* dport/d' {wanted}")
    try:
        workstation.exec("sh /etc/gatehouse/filter.sh try 8")
        assert rules(workstation) != before
        assert not comes_in(workstation)
        wait_for(lambda: comes_in(workstation), 30, "the rules to undo themselves")
        assert rules(workstation) == before
        late = workstation.exec("sh /etc/gatehouse/filter.sh confirm", check=False)
        assert late.returncode == 1
        assert "firewall_undo_seconds" in late.stderr
    finally:
        workstation.exec(f"mv /root/kept.nft {wanted}")


def test_drift_is_found_and_mended(workstation: Workstation, closed: Deploy) -> None:
    """A rule that somebody adds is found; the doctor's repair brings back what was confirmed."""
    assert closed.code == 0
    before = rules(workstation)
    workstation.exec("nft insert rule inet gatehouse input tcp dport 4000 accept")
    found = workstation.exec("gatehouse status --component firewall", check=False)
    assert found.returncode == 1
    assert "other rules are in force" in found.stdout
    workstation.exec("gatehouse doctor --fix --yes", check=False)
    assert rules(workstation) == before
    assert failing(workstation, **SETTINGS) == []


def test_rules_are_in_force_after_a_power_cut(workstation: Workstation, closed: Deploy) -> None:
    """The same rules, and SSH comes in, without anybody doing anything."""
    assert closed.code == 0
    before = rules(workstation)
    workstation.restart(power_cut=True)
    wait_until_healthy(workstation)
    assert rules(workstation) == before
    workstation.exec(GONE, check=False)
    workstation.exec(STRANGERS)
    after = dict.fromkeys((4000, SERVICE, PUBLISHED), "filtered") | {22: "open", ALLOWED: "open"}
    assert seen(workstation) == after
    assert failing(workstation, **SETTINGS) == []
