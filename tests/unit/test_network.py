"""Addresses: loopback unless somebody insists, and networks that do not collide."""

import pytest

from gatehouse.checks.network import OURS, checks
from tests.given import problems, settings, variables


@pytest.mark.parametrize("address", ["0.0.0.0", "192.0.2.10", "10.0.0.1"])  # noqa: S104 - refused
def test_public_bind_is_refused_without_opt_in(address: str) -> None:
    """An address that others reach needs network_bind_public, and the message says so."""
    message = problems(network_bind_address=address)["network_bind_address"]
    assert "network_bind_public = True" in message


def test_public_bind_is_possible_with_opt_in() -> None:
    """Who insists gets it, in every published port."""
    assert variables(network_bind_address="192.0.2.10", network_bind_public=True)[
        "GATEHOUSE_BIND"
    ] == ("192.0.2.10")


def test_loopback_needs_no_opt_in() -> None:
    """Any loopback address is private."""
    assert not problems(network_bind_address="127.0.0.53")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("litellm_port", "postgres_port"),
        ("postgres_port", "redis_port"),
        ("litellm_port", "redis_port"),
        ("litellm_port", "health_port"),
        ("health_port", "metrics_port"),
    ],
)
def test_port_used_twice_is_refused(first: str, second: str) -> None:
    """Two services on one port: the second is told who has it."""
    found = problems(**{first: 7000, second: 7000})
    assert list(found) == [second]
    assert f"7000 is already {first}" in found[second]


@pytest.mark.parametrize("network", ["8.8.8.0/24", "10.0.0.0/8", "172.30.99.0/29", "127.0.0.0/24"])
@pytest.mark.parametrize("key", ["network_subnet", "network_inner_subnet"])
def test_unfit_network_is_refused(key: str, network: str) -> None:
    """A network is private, and neither too big nor too small."""
    assert "private IPv4 network" in problems(**{key: network})[key]


def test_overlapping_networks_are_refused() -> None:
    """The two bridges lie apart."""
    message = problems(network_inner_subnet="172.30.0.0/16")["network_inner_subnet"]
    assert "overlaps network_subnet" in message


def test_host_is_the_first_address_of_its_network() -> None:
    """Containers know the host by the first address of the outer bridge."""
    assert variables(network_subnet="10.9.0.0/20")["GATEHOUSE_HOST_ADDRESS"] == "10.9.0.1"


def test_checks_expect_the_settings() -> None:
    """There is a check for each network, and for each port at the bind address."""
    found = [check.expected for check in checks(settings(redis_port=7000))]
    assert found == [
        "172.30.40.0/24",
        "172.30.41.0/24",
        "Docker's and systemd's own processes, or nobody",
        "127.0.0.1:4000",
        "127.0.0.1:5434",
        "127.0.0.1:7000",
        "127.0.0.1:8181",
        "127.0.0.1:9090",
    ]


def test_check_fails_when_somebody_else_listens_too() -> None:
    """The right address and another one are not the right address only."""
    judge = checks(settings())[3].judge
    assert judge(0, _listening("127.0.0.1:4000", "127.0.0.1:5434")).holds
    assert not judge(0, _listening("0.0.0.0:4000", "127.0.0.1:4000")).holds
    assert not judge(0, _listening("[::]:4000", "127.0.0.1:4000")).holds
    assert not judge(0, _listening("127.0.0.1:5434")).holds
    assert not judge(0, "").holds


def test_stranger_on_a_port_is_named() -> None:
    """A port that another process holds is told with its process; one that nobody holds is not."""
    (check,) = (each for each in checks(settings()) if each.name == OURS)
    assert check.judge(0, _listening("127.0.0.1:4000")).holds
    stranger = check.judge(0, _listening("127.0.0.9:6379", who="python3"))
    assert not stranger.holds
    assert stranger.found == "127.0.0.9:6379 is held by python3 (process 7)"
    assert check.judge(0, _listening("127.0.0.1:9999", who="python3")).holds
    assert not check.judge(0, "").holds


def test_daemon_may_hold_the_ports_of_containers() -> None:
    """With userland-proxy false (CIS 2.16) dockerd holds them; those of the page it may not."""
    (check,) = (each for each in checks(settings()) if each.name == OURS)
    containers = _listening("127.0.0.1:4000", "127.0.0.1:5434", "127.0.0.1:6379", who="dockerd")
    assert check.judge(0, containers).holds
    page = check.judge(0, _listening("127.0.0.1:8181", who="dockerd"))
    assert page.found == "127.0.0.1:8181 is held by dockerd (process 7)"


def _listening(*places: str, who: str = "docker-proxy") -> str:
    return "\n".join(
        f'LISTEN 0 4096 {place} 0.0.0.0:* users:(("{who}",pid=7,fd=4))' for place in places
    )
