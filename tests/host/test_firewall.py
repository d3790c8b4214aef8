"""The firewall: its rules are in force, and come before the engine's at every start."""

from testinfra.host import Host

from gatehouse.render.engines import with_egress
from gatehouse.settings import Settings
from tests.host.conftest import lines


def test_unit_starts_before_docker(host: Host) -> None:
    """No container ever runs without the rules."""
    unit = host.service("gatehouse-firewall.service")
    assert unit.is_running
    assert unit.is_enabled
    assert "docker.service" in unit.systemd_properties["Before"].split()


def test_rules_are_the_known_ones(host: Host, settings: Settings) -> None:
    """Packets from outside to the stack's networks or to loopback are dropped, and no rule is twice."""
    networks = (
        "127.0.0.0/8",
        settings.network_subnet,
        settings.network_inner_subnet,
        settings.network_engines_subnet,
    )
    bridges = ("lo", "gw-edge", "gw-inner", "gw-engines")
    assert lines(host, "iptables -w 10 -t raw -S GATEHOUSE") == [
        "-N GATEHOUSE",
        *(f"-A GATEHOUSE -i {interface} -j RETURN" for interface in bridges),
        *(f"-A GATEHOUSE -d {network} -j DROP" for network in networks),
    ]
    jumps = "iptables -w 10 -t raw -S PREROUTING; iptables -w 10 -t mangle -S FORWARD"
    assert [line for line in lines(host, jumps) if "GATEHOUSE" in line] == [
        "-A PREROUTING -j GATEHOUSE",
        "-A FORWARD -j GATEHOUSE",
    ]


def test_inner_networks_have_no_way_out(host: Host, settings: Settings) -> None:
    """What is only on the inner network, or an engine, opens no connection that leaves it."""
    out = "! -o gw-engines"
    assert lines(host, "iptables -w 10 -t mangle -S GATEHOUSE") == [
        "-N GATEHOUSE",
        "-A GATEHOUSE -i gw-inner ! -o gw-inner -m conntrack --ctstate NEW -j DROP",
        *(
            f"-A GATEHOUSE -s {address}/32 -i gw-engines {out} -j RETURN"
            for address in with_egress(settings)
        ),
        f"-A GATEHOUSE -i gw-engines {out} -m conntrack --ctstate NEW -j DROP",
    ]
