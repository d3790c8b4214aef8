"""The host's own firewall, which is off unless it is wanted."""

from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, Field

from gatehouse.settings.field import Component, setting

Port = Annotated[int, Field(ge=1, le=65535)]
# What Linux takes as the name of an interface; a star at the end stands for any ending.
Interface = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,15}\*?$")]


def _network(value: str) -> str:
    ip_network(value)
    return value


class FirewallSettings(Component):
    """What may come in, where everything else is refused."""

    firewall_enabled: Annotated[
        bool,
        setting(
            "Let nothing into this host but SSH, what is named below, and what containers of the "
            "stack need. Undone by itself where the deploy cannot come in by a new connection."
        ),
    ]
    firewall_ports: Annotated[
        list[Port],
        setting(
            "TCP ports that others may reach, of programs and of containers' published ports. The "
            "gateway's own is among them where network_bind_public is True.",
            example=[443],
        ),
    ]
    firewall_udp_ports: Annotated[
        list[Port],
        setting(
            "UDP ports that others may reach: of a VPN that this host serves, before all.",
            example=[51820],
        ),
    ]
    firewall_ssh_networks: Annotated[
        list[Annotated[str, AfterValidator(_network)]],
        setting(
            "From where SSH is let in (CIDR), on the ports that sshd listens on.",
            example=["192.0.2.0/24"],
            min_length=1,
        ),
    ]
    firewall_interfaces: Annotated[
        list[Interface],
        setting(
            "Interfaces that everything may come in by: a VPN, or a bridge of other containers.",
            example=["tailscale0", "virbr*"],
        ),
    ]
    firewall_bridge_ports: Annotated[
        list[Port],
        setting(
            "TCP ports of the host that the gateway's container may reach, beside those of engines "
            "and of api_base and url in models and MCP servers: for models in the database.",
            example=[8080],
        ),
    ]
    firewall_undo_seconds: Annotated[
        int,
        setting(
            "New rules undo themselves after this time unless the deploy has come in by a new "
            "connection.",
            unit="seconds",
            ge=20,
            le=600,
        ),
    ]
