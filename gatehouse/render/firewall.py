"""The rules: neighbours are kept from the stack's networks; where it is wanted, from all else."""

from ipaddress import ip_network
from urllib.parse import urlsplit

from gatehouse.render import engines
from gatehouse.render.file import File
from gatehouse.render.machine import Machine
from gatehouse.render.template import template
from gatehouse.settings import Settings

SCRIPT = "/etc/gatehouse/firewall.sh"
UNIT = "/etc/systemd/system/gatehouse-firewall.service"
RULES = "/etc/gatehouse/firewall.nft"
FILTER = "/etc/gatehouse/filter.sh"
FILTER_UNIT = "/etc/systemd/system/gatehouse-filter.service"
# What somebody has come in through: it is what a boot loads.
KEPT = "/var/lib/gatehouse/firewall.nft"
_PORTS = {"http": 80, "https": 443}


def files(settings: Settings, machine: Machine) -> dict[str, File]:
    """Give the scripts, rules and units by absolute path."""
    group = settings.host_group
    script = template(
        "firewall/firewall.sh",
        settings=settings,
        engines_with_egress=engines.with_egress(settings),
    )
    found = {
        SCRIPT: File(script, "640", group=group),
        UNIT: File(template("firewall/gatehouse-firewall.service")),
    }
    if settings.firewall_enabled:
        networks = [ip_network(each) for each in settings.firewall_ssh_networks]
        rules = template(
            "firewall/firewall.nft",
            settings=settings,
            ssh_ports=sorted(machine.ssh_ports),
            bridges=sorted(machine.bridges),
            ssh_networks=[str(each) for each in networks if each.version == 4],  # noqa: PLR2004
            ssh_networks_6=[str(each) for each in networks if each.version == 6],  # noqa: PLR2004
            ports=ports(settings),
            bridge=str(settings.network_subnet[1]),
            bridge_ports=bridge_ports(settings),
        )
        found[RULES] = File(rules, "640", group=group)
        found[FILTER] = File(template("firewall/filter.sh", settings=settings), "640", group=group)
        found[FILTER_UNIT] = File(template("firewall/gatehouse-filter.service"))
    return found


def ports(settings: Settings) -> list[int]:
    """Give the ports that anybody may reach."""
    public = settings.network_bind_public and not settings.network_bind_address.is_loopback
    return sorted({*settings.firewall_ports, *([settings.litellm_port] if public else [])})


def bridge_ports(settings: Settings) -> list[int]:
    """Give the ports of the host that containers on the bridge need."""
    here = {"host.docker.internal", str(settings.network_subnet[1])}
    addresses = [model.api_base for model in settings.all_models]
    addresses += [server.url for server in settings.mcp_servers]
    parts = [urlsplit(address) for address in addresses if address]
    found = {part.port or _PORTS.get(part.scheme, 0) for part in parts if part.hostname in here} - {
        0
    }
    found |= {engine.port for engine in settings.active_engines}
    if settings.metrics_prometheus:
        found.add(settings.metrics_port)
    return sorted(found | set(settings.firewall_bridge_ports))
