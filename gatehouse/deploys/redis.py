"""Redis: the cache."""

from pyinfra.api.deploy import deploy as pyinfra_deploy

from gatehouse.deploys.compose import Service, up
from gatehouse.deploys.gateway import Gateway


@pyinfra_deploy("Redis")
def deploy(gateway: Gateway) -> None:
    """Have the cache healthy."""
    rendered = gateway.rendered
    service = Service(
        "redis",
        rendered.release_id,
        rendered.inputs["redis"],
        gateway.settings.redis_start_timeout_seconds,
    )
    up(name="Have it healthy", service=service)
