"""The firewall: its rules are in force, and SSH is let in."""

from gatehouse.checks.check import Check, silent
from gatehouse.settings import Settings

# Prints where SSH is served, a port a line: as sshd is configured, where systemd listens for it,
# and where it listens itself (`-p`). Of sshd's processes only the one that says `[listener]`
# counts: the others forward for somebody who is logged in.
SSH_PORTS = r"""
{
    "$(PATH=$PATH:/usr/sbin command -v sshd || echo false)" -T 2>/dev/null | sed -n 's/^port //p'
    for unit in ssh.socket sshd.socket dropbear.socket; do
        systemctl is-active --quiet "$unit" 2>/dev/null &&
            systemctl show -p Listen --value "$unit" | sed -n 's/.*:\([0-9]*\) (Stream).*/\1/p'
    done
    ss -Hltnp 2>/dev/null | awk '{ print $4, $6 }' |
        sed -nE 's/^(.+):([0-9]+) .*"(sshd|dropbear)",pid=([0-9]+),.*/\1 \2 \3 \4/p' |
        while read -r address port name process; do
            case $address in 127.* | "[::1]") continue ;; esac
            [ "$name" = dropbear ] || grep -q '\[listener\]' "/proc/$process/cmdline" &&
                echo "$port"
        done
} | sort -un
"""
# Prints the bridges whose names begin as those of Docker's networks do, and that are not Docker's.
BRIDGES = r"""
for bridge in /sys/class/net/br-*; do
    [ -e "$bridge" ] || continue
    echo "${bridge##*/}" | grep -vxE 'br-[0-9a-f]{12}'
done
"""


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
            command=_known("SSH listens on", SSH_PORTS, "port $each is not let in"),
            judge=silent,
            fix="deploy again, before your session ends: pyinfra inventory deploy.py",
        ),
        Check(
            name="firewall: only Docker's bridges are taken for Docker's",
            component="firewall",
            expected="every other bridge that is named like them among the rules",
            command=_known("Bridges named like Docker's that are not", BRIDGES, "$each is not"),
            judge=silent,
            fix="deploy again: pyinfra inventory deploy.py",
        ),
    ]


def _known(line: str, seen: str, words: str) -> str:
    """Give the command that says which of what is seen the rules' own comment does not name."""
    return f"""
[ -r /etc/gatehouse/firewall.nft ] || {{ echo /etc/gatehouse/firewall.nft cannot be read; exit 2; }}
known=$(sed -n "s/^# {line}: //p" /etc/gatehouse/firewall.nft)
for each in $({seen}); do
    case " $known " in *" $each "*) ;; *) echo "{words}" ;; esac
done"""
