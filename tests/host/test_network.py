"""Addresses: the exact set of sockets and networks that the stack has."""

import json
from ipaddress import IPv4Network

from testinfra.host import Host

from gatehouse.settings import Settings
from tests.host.conftest import lines


def published(settings: Settings) -> list[str]:
    """Give where Docker listens for the stack's containers."""
    bind = settings.network_bind_address
    ports = (settings.litellm_port, settings.postgres_port, settings.redis_port)
    found = [f"{bind}:{port}" for port in ports]
    if settings.metrics_prometheus:
        own = (settings.metrics_prometheus_port, settings.metrics_alertmanager_port)
        found += [f"{settings.health_address}:{port}" for port in own]
    return found


def test_stack_listens_on_the_bind_address_only(host: Host, settings: Settings) -> None:
    """The kernel's table has our ports on one address, and no second socket for them."""
    wanted = [*published(settings), f"{settings.health_address}:{settings.health_port}"]
    wanted += settings.metrics_addresses
    ports = {place.rpartition(":")[2] for place in wanted}
    found = [line.split()[3] for line in lines(host, "ss -Hltn")]
    assert sorted(each for each in found if each.rpartition(":")[2] in ports) == sorted(wanted)


def test_docker_publishes_nothing_else(host: Host, settings: Settings) -> None:
    """Every port that the stack's containers publish is one that the settings name."""
    command = (
        "docker ps -q --filter label=com.docker.compose.project=gatehouse | xargs docker inspect "
        "-f '{{range .NetworkSettings.Ports}}{{range .}}{{.HostIp}}:{{.HostPort}}{{println}}{{end}}{{end}}'"
    )
    assert sorted(filter(None, lines(host, command))) == sorted(published(settings))


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
    names = ("alertmanager", "prometheus") if settings.metrics_prometheus else ()
    watchers = [f"gatehouse-{name}-1" for name in names]
    assert members == {
        "gatehouse_edge": sorted(["gatehouse-litellm-1", *watchers]),
        "gatehouse_inner": ["gatehouse-litellm-1", "gatehouse-postgres-1", "gatehouse-redis-1"],
    }
