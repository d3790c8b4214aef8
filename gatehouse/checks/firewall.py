"""The firewall: its rules are in force."""

from gatehouse.checks.check import Check, silent
from gatehouse.settings import Settings


def checks(settings: Settings) -> list[Check]:
    """Give the checks of the rules, as the kernel has them."""
    drops = "\n".join(
        f"iptables -w 10 -t raw -C GATEHOUSE -d {network} -j DROP"
        for network in (
            "127.0.0.0/8",
            settings.network_subnet,
            settings.network_inner_subnet,
            settings.network_engines_subnet,
        )
    )
    engines = (
        "iptables -w 10 -t mangle -C GATEHOUSE "
        "-i gw-engines ! -o gw-engines -m conntrack --ctstate NEW -j DROP"
    )
    return [
        Check(
            name="firewall: neighbours are kept out",
            component="firewall",
            expected="the rules of gatehouse-firewall.service",
            command=f"""
iptables -w 10 -t raw -C PREROUTING -j GATEHOUSE
{drops}
iptables -w 10 -t mangle -C FORWARD -j GATEHOUSE
iptables -w 10 -t mangle -C GATEHOUSE -i gw-inner ! -o gw-inner -m conntrack --ctstate NEW -j DROP
{engines}
true""",
            judge=silent,
            fix="systemctl restart gatehouse-firewall",
            repair="systemctl restart gatehouse-firewall.service",
        )
    ]
