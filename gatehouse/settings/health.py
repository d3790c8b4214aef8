"""The page that shows how the gateway is."""

from typing import Annotated

from gatehouse.settings.field import Component, setting


class HealthSettings(Component):
    """Where the page is, who may ask for it by which name, and how old it may be."""

    health_port: Annotated[
        int,
        setting(
            "Port of the page, `/healthz`, `/readyz` and `/status.json`, on loopback.",
            unit="port",
            ge=1024,
            le=65535,
        ),
    ]
    health_hosts: Annotated[
        list[str],
        setting(
            "Names, besides localhost, by which browsers may ask for the page: that of a proxy "
            "with a login in front of it. Any other name in the Host header is refused, so that no "
            "web site can point a name of its own at loopback.",
            example=["gateway.example.org"],
        ),
    ]
    health_interval_seconds: Annotated[
        int,
        setting(
            "How often root's collector looks at the host; what is three times as old is stale.",
            unit="seconds",
            ge=10,
            le=3600,
        ),
    ]
