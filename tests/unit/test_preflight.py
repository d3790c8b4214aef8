"""Preflight: what cannot work is refused with every reason, before anything is changed."""

from dataclasses import replace

import pytest
from pyinfra.api.exceptions import DeployError

from gatehouse.deploys.facts import HostFact
from gatehouse.deploys.preflight import SYSTEMS, idle, problems, refuse
from tests.given import BARE_HOST, settings

GOOD = HostFact().process(BARE_HOST.splitlines())
NGINX = '(("nginx",pid=1,fd=7))'


@pytest.mark.parametrize("system", SYSTEMS)
def test_supported_system_is_accepted(system: str) -> None:
    """Debian 12 and 13, Ubuntu 22.04 and 24.04 can be provisioned."""
    assert not problems(settings(), replace(GOOD, system=system))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"system": "fedora 42", "system_name": "Fedora 42"}, "Fedora 42 is not supported"),
        ({"system": "debian 11", "system_name": "Debian 11"}, "use Debian 12, Debian 13"),
        ({"system": "", "system_name": ""}, "this system is not supported"),
        ({"systemd": False}, "PID 1"),
        ({"memory_mib": 3499}, "3499 MiB of memory, 3500 MiB needed (host_memory_min_mib)"),
        ({"disk_mib": 10 * 1024 - 1}, "9 GiB free on /var/lib, 10 GiB needed (host_disk_min_gib)"),
        ({"rooms": {"/opt": 255, "/etc": 256}}, "255 MiB free on /opt, 256 MiB needed for what a"),
        ({"clock_kept": False}, "host_time_sync_required = False"),
        ({"secrets_group": "staff"}, "the group staff has the number 14670"),
        ({"listeners": {4000: NGINX}}, f"port 4000 is taken by {NGINX}"),
        ({"listeners": {5434: NGINX}}, "give postgres_port another port"),
        ({"listeners": {6379: "the container cache"}}, "taken by the container cache"),
        ({"routes": {"172.30.40.128/25": "wg0"}}, "which this host reaches through wg0"),
        ({"routes": {"172.30.40.7": "eth0"}}, "network_subnet = 172.30.40.0/24 overlaps"),
        ({"routes": {"172.30.41.0/25": "br-1"}}, "network_inner_subnet = 172.30.41.0/24 overlaps"),
        ({"daemon_json": '{"a": }'}, "/etc/docker/daemon.json cannot be read"),
        ({"daemon_json": "[]"}, "it holds no object"),
    ],
)
def test_unfit_host_is_refused(changes: dict[str, object], reason: str) -> None:
    """Each reason says what was found and what to do; it is the only one."""
    (found,) = problems(settings(), replace(GOOD, **changes))  # type: ignore[arg-type]
    assert reason in found


@pytest.mark.parametrize(
    "changes",
    [
        {"listeners": {4000: "docker-proxy"}, "own_ports": frozenset({4000})},
        {"listeners": {80: NGINX, 22: "sshd"}},
        {"routes": {"172.30.40.0/24": "gw-edge", "172.30.43.0/24": "eth0"}},
        {"secrets_group": "gatehouse-secrets"},
        {"daemon_json": '{"log-driver": "journald"}'},
        {"memory_mib": 3500, "disk_mib": 10 * 1024},
    ],
    ids=["own port", "other ports", "own network", "own group", "daemon.json", "just enough"],
)
def test_fit_host_is_accepted(changes: dict[str, object]) -> None:
    """What is Gatehouse's own, or somebody's who is not in the way, is no reason."""
    assert not problems(settings(), replace(GOOD, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ufw", "firewalld"])
def test_second_firewall_is_refused_where_ours_is_wanted(name: str) -> None:
    """Another firewall that refuses by default is named with what to do; alone it may be."""
    host = replace(GOOD, firewalls=(name,))
    (found,) = problems(settings(firewall_enabled=True), host)
    assert f"{name} is active" in found
    assert "firewall_enabled = False" in found
    assert not problems(settings(), host)


def test_clock_may_be_kept_by_the_hypervisor() -> None:
    """host_time_sync_required = False accepts a host without a time service."""
    host = replace(GOOD, clock_kept=False)
    assert not problems(settings(host_time_sync_required=False), host)


def test_refusal_holds_every_reason() -> None:
    """All reasons are in one error, and it says that nothing was touched."""
    host = replace(GOOD, systemd=False, memory_mib=1, listeners={4000: NGINX})
    with pytest.raises(DeployError, match="nothing was touched") as caught:
        refuse(settings(), host)
    assert str(caught.value).count("\n  - ") == 3


def test_rules_of_a_firewall_that_is_off_are_told() -> None:
    """Who names ports and does not switch it on would think himself protected."""
    (said,) = idle(settings(firewall_ports=[443]))
    assert said.startswith("firewall_ports does nothing: firewall_enabled = False")
    assert idle(settings(firewall_ports=[443], firewall_enabled=True)) == []
    assert idle(settings()) == []
