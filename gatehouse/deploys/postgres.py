"""Postgres: the database."""

from pyinfra.api.deploy import deploy as pyinfra_deploy

from gatehouse.deploys.compose import Service, up
from gatehouse.deploys.gateway import Gateway
from gatehouse.deploys.networks import apart


@pyinfra_deploy("Postgres")
def deploy(gateway: Gateway) -> None:
    """Have the database healthy."""
    settings, rendered = gateway.settings, gateway.rendered
    # Compose cannot change a network that is in use.
    apart(
        name="Make way for changed networks",
        subnets={
            "edge": str(settings.network_subnet),
            "inner": str(settings.network_inner_subnet),
            "engines": str(settings.network_engines_subnet),
        },
    )
    service = Service(
        "postgres",
        rendered.release_id,
        rendered.inputs["postgres"],
        settings.postgres_start_timeout_seconds,
    )
    up(name="Have it healthy", service=service)
