"""LiteLLM: the gateway, after its database's schema."""

from pyinfra.api.deploy import deploy as pyinfra_deploy

from gatehouse.deploys.compose import Service, up
from gatehouse.deploys.gateway import Gateway


@pyinfra_deploy("LiteLLM")
def deploy(gateway: Gateway) -> None:
    """Bring the database's schema up to date, then have the proxy healthy."""
    rendered = gateway.rendered
    timeout = gateway.settings.litellm_start_timeout_seconds
    migrate, proxy = (
        Service(name, rendered.release_id, rendered.inputs[name], timeout, job=job)
        for name, job in (("litellm-migrate", True), ("litellm", False))
    )
    up(name="Migrate the database", service=migrate)
    up(name="Have it healthy", service=proxy)
