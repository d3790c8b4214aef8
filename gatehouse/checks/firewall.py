"""The firewall: its rules are in force, and SSH is let in."""

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
    found = [
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
    if settings.firewall_enabled:
        found += _filter()
    return found


def _filter() -> list[Check]:
    """Give the checks of what may come in."""
    return [
        Check(
            name="firewall: only what is allowed comes in",
            component="firewall",
            expected="the rules that the last deploy came in through",
            command="""
cmp -s /etc/gatehouse/firewall.nft /var/lib/gatehouse/firewall.nft || echo other rules are kept
sh /etc/gatehouse/filter.sh same || echo other rules are in force
true""",
            judge=silent,
            fix="systemctl restart gatehouse-filter; for other rules: pyinfra inventory deploy.py",
            repair="systemctl restart gatehouse-filter.service",
        ),
        Check(
            name="firewall: SSH is let in where it listens",
            component="firewall",
            expected="every port of sshd among the rules",
            command="""
known=$(sed -n 's/^# SSH listens on: //p' /etc/gatehouse/firewall.nft) || exit 2
for port in $(/usr/sbin/sshd -T 2>/dev/null | sed -n 's/^port //p'); do
    case " $known " in *" $port "*) ;; *) echo "port $port is not" ;; esac
done""",
            judge=silent,
            fix="deploy again, before your session ends: pyinfra inventory deploy.py",
        ),
    ]
