"""What a stranger on the same LAN can reach."""

import pytest

from gatehouse.lab.workstation import Workstation

OURS = (4000, 5434, 6379)
INSIDE = (4000, 5432, 6379)
ADDRESSES = "docker ps -q | xargs docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}'"


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
