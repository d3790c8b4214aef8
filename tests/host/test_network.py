"""Addresses: the exact set of sockets and networks that the stack has."""

import json
from ipaddress import IPv4Network

from testinfra.host import Host

from gatehouse.settings import Settings
from tests.host.conftest import lines


def test_stack_listens_on_the_bind_address_only(host: Host, settings: Settings) -> None:
    """The kernel's table has our ports on one address, and no second socket for them."""
    bind, loopback = settings.network_bind_address, settings.health_address
    ports = {
        settings.litellm_port: bind,
        settings.postgres_port: bind,
        settings.redis_port: bind,
        settings.health_port: loopback,
        settings.metrics_port: loopback,
    }
    found = [line.split()[3] for line in lines(host, "ss -Hltn")]
    ours = [each for each in found if int(each.rsplit(":", 1)[1]) in ports]
    assert sorted(ours) == sorted(f"{address}:{port}" for port, address in ports.items())


def test_docker_publishes_nothing_else(host: Host, settings: Settings) -> None:
    """Every port that the stack's containers publish is one of the three."""
    command = (
        "docker ps -q --filter label=com.docker.compose.project=gatehouse | xargs docker inspect "
        "-f '{{range .NetworkSettings.Ports}}{{range .}}{{.HostIp}}:{{.HostPort}}{{println}}{{end}}{{end}}'"
    )
    bind = settings.network_bind_address
    ports = (settings.litellm_port, settings.postgres_port, settings.redis_port)
    assert sorted(filter(None, lines(host, command))) == sorted(f"{bind}:{port}" for port in ports)


def test_gateway_answers_on_its_published_port(host: Host, settings: Settings) -> None:
    """A client of the host reaches the gateway where the settings say."""
    address, port = settings.network_bind_address, settings.litellm_port
    found = host.run(
        f"exec 2>&1; timeout 20 bash -c 'exec 3<>/dev/tcp/{address}/{port}; "
        'printf "GET /health/liveliness HTTP/1.0\\r\\n\\r\\n" >&3; cat <&3\''
    )
    assert found.stdout.startswith("HTTP/1.1 200"), found.stdout


def test_networks_are_as_set(host: Host, settings: Settings) -> None:
    """Postgres and Redis are on the inner network only; the gateway alone is on both."""
    names = "gatehouse_edge gatehouse_inner"
    found = json.loads(host.check_output(f"docker network inspect {names}"))
    subnets = {each["Name"]: IPv4Network(each["IPAM"]["Config"][0]["Subnet"]) for each in found}
    assert subnets == {
        "gatehouse_edge": settings.network_subnet,
        "gatehouse_inner": settings.network_inner_subnet,
    }
    members = {
        each["Name"]: sorted(one["Name"] for one in each["Containers"].values()) for each in found
    }
    assert members == {
        "gatehouse_edge": ["gatehouse-litellm-1"],
        "gatehouse_inner": ["gatehouse-litellm-1", "gatehouse-postgres-1", "gatehouse-redis-1"],
    }
