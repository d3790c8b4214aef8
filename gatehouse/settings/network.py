"""Addresses: what is listened on, and the stack's own networks."""

from ipaddress import IPv4Address, IPv4Network
from typing import Annotated

from pydantic import BeforeValidator

from gatehouse.settings.field import Component, setting


def _address(value: object) -> object:
    return IPv4Address(value) if isinstance(value, str) else value


def _network(value: object) -> object:
    return IPv4Network(value) if isinstance(value, str) else value


class NetworkSettings(Component):
    """Where the published ports listen, and the three bridge networks behind them."""

    network_bind_address: Annotated[
        IPv4Address,
        BeforeValidator(_address),
        setting("IPv4 address that every published port is bound to."),
    ]
    network_bind_public: Annotated[
        bool,
        setting(
            "Explicit opt-in for a bind address that is not loopback. There is no TLS in front: "
            "anyone on that network can read keys and prompts."
        ),
    ]
    network_subnet: Annotated[
        IPv4Network,
        BeforeValidator(_network),
        setting(
            "Subnet of the bridge between the proxy and the host's own model servers; the host "
            "is its first address, known in containers as host.docker.internal."
        ),
    ]
    network_inner_subnet: Annotated[
        IPv4Network,
        BeforeValidator(_network),
        setting("Subnet of the bridge between the proxy, Postgres and Redis; it has no way out."),
    ]
    network_engines_subnet: Annotated[
        IPv4Network,
        BeforeValidator(_network),
        setting("Subnet of the bridge that the engines' containers are on, each with its address."),
    ]
