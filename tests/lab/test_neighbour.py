"""What a stranger on the same LAN can reach."""

import json
from collections.abc import Callable, Iterator

import pytest

from gatehouse.lab.common import ROOT
from gatehouse.lab.workstation import Workstation
from tests.lab.conftest import wait_until_healthy

OURS = (4000, 5434, 6379)
INSIDE = (4000, 5432, 6379)
ADDRESSES = "docker ps -q | xargs docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}'"
# The highest of all: a sweep that sees it has looked at every port.
OPENED = 65535
# A network namespace beside the workstation's, and an IPv6 address on the LAN.
STRANGER = f"""
ip netns add stranger
ip link add stranger0 type veth peer name outside netns stranger
sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0 net.ipv6.conf.stranger0.disable_ipv6=0
ip -n stranger link set lo up
ip netns exec stranger sysctl -qw net.ipv6.conf.outside.disable_ipv6=0
ip addr add 10.99.0.1/30 dev stranger0
ip addr add fd00:9a7e::1/64 dev stranger0 nodad
ip addr add fd00:9a7e:1::1/64 dev eth0 nodad
ip link set stranger0 up
ip -n stranger addr add 10.99.0.2/30 dev outside
ip -n stranger addr add fd00:9a7e::2/64 dev outside nodad
ip -n stranger link set outside up
ip -n stranger route add default via 10.99.0.1
ip -n stranger route add default via fd00:9a7e::1
systemd-run --quiet --collect --unit opened python3 -I -m http.server --bind :: {OPENED}
for i in $(seq 50); do ss -Hltn | grep -q ':{OPENED} ' && break; sleep 0.1; done"""
NO_STRANGER = """
systemctl stop opened
ip netns del stranger
ip link del stranger0
ip addr del fd00:9a7e:1::1/64 dev eth0
sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1"""


def test_neighbour_reaches_nothing_but_ssh(workstation: Workstation) -> None:
    """No port of the stack answers on the LAN, on the bridges, or in the containers themselves."""
    bridges = ["172.30.40.1", "172.30.41.1"]
    inside = workstation.exec(ADDRESSES).stdout.split()
    assert len(inside) == 4
    with workstation.neighbour() as neighbour:
        assert neighbour.scan(workstation.address, [22]) == {22: "open"}
        seen = {
            f"{address}:{port}": state
            for address, ports in [
                (workstation.address, OURS),
                *((address, (22, *OURS)) for address in bridges),
                *((address, INSIDE) for address in inside),
            ]
            for port, state in neighbour.scan(address, ports, timeout_seconds=1).items()
        }
        neighbour.route(["127.0.0.0/8"], via=workstation.address)
    assert "open" not in seen.values(), {place for place, state in seen.items() if state == "open"}


def test_neighbour_is_kept_out_by_the_firewall(workstation: Workstation) -> None:
    """The same probe has a hit as soon as the rules are gone: it is they that keep strangers out."""
    engine = workstation.exec("docker version -f '{{.Server.Version}}'").stdout
    if int(engine.split(".")[0]) >= 28:
        pytest.skip("this engine keeps neighbours from the containers itself")
    inside = workstation.exec(ADDRESSES).stdout.split()
    workstation.exec("systemctl stop gatehouse-firewall")
    try:
        with workstation.neighbour() as neighbour:
            seen = [
                state
                for address in inside
                for state in neighbour.scan(address, INSIDE, timeout_seconds=1).values()
            ]
    finally:
        workstation.exec("systemctl start gatehouse-firewall")
    assert "open" in seen


def test_inner_network_has_no_way_out(workstation: Workstation) -> None:
    """Redis opens no connection to the LAN; the gateway's own network does."""
    pid = "nsenter -n -t $(docker inspect -f '{{{{.State.Pid}}}}' gatehouse-{}-1)"
    with workstation.neighbour() as neighbour:
        neighbour.exec("sh", "-c", "setsid python3 -m http.server 8000 >/dev/null 2>&1 &")
        there = f"timeout 3 bash -c 'until </dev/tcp/{neighbour.address}/8000; do sleep 0.1; done' 2>/dev/null"
        reached = {
            name: workstation.exec(f"{pid.format(name)} {there}", check=False).returncode == 0
            for name in ("litellm", "redis", "postgres")
        }
    assert reached == {"litellm": True, "redis": False, "postgres": False}


@pytest.fixture
def sweep(workstation: Workstation) -> Iterator[Callable[[], dict[str, list[int]]]]:
    """Put a stranger beside the workstation, by IPv4 and IPv6, and give what it finds everywhere."""
    program = (ROOT / "gatehouse/lab/sweep.py").read_text()
    try:
        workstation.exec(STRANGER)

        def swept() -> dict[str, list[int]]:
            links = json.loads(workstation.exec("ip -j addr").stdout)
            places = [
                each["local"] + ("%outside" if each["scope"] == "link" else "")
                for link in links
                for each in link["addr_info"]
                # A link's own addresses are reached on that link only.
                if each["scope"] == "global" or link["ifname"] == "stranger0"
            ]
            command = ["ip", "netns", "exec", "stranger", "python3", "-I", "-", *places]
            found: dict[str, list[int]] = json.loads(workstation.exec(command, text=program).stdout)
            return found

        yield swept
    finally:
        workstation.exec(NO_STRANGER, check=False)


def test_stranger_finds_ssh_on_every_address_and_nothing_else(
    workstation: Workstation, sweep: Callable[[], dict[str, list[int]]]
) -> None:
    """Of all ports on all addresses, IPv6 too, only SSH's and one that was opened for it answer.

    So it is after the Docker daemon has been started again. The inner networks do not even refuse.
    """
    before = sweep()
    workstation.exec("systemctl restart docker")
    after = sweep()
    wait_until_healthy(workstation)
    bridges = {"172.30.40.1", "172.30.41.1"}
    outside = {workstation.address, "10.99.0.1", "fd00:9a7e::1", "fd00:9a7e:1::1"}
    assert bridges | outside <= before.keys()
    assert any(address.startswith("fe80:") for address in before)
    expected = {address: [] if address in bridges else [22, OPENED] for address in before}
    assert before == expected
    assert after == expected
