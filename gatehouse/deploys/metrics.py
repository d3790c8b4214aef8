"""Metrics: a Prometheus and an Alertmanager, where they are switched on."""

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.api.deploy import deploy as pyinfra_deploy

from gatehouse.deploys import Commands
from gatehouse.deploys.compose import Service, up
from gatehouse.deploys.facts import Containers
from gatehouse.deploys.gateway import Gateway
from gatehouse.render import metrics as render


@pyinfra_deploy("Metrics")
def deploy(gateway: Gateway) -> None:
    """Have both healthy, or have neither; what they saw is kept."""
    settings, rendered = gateway.settings, gateway.rendered
    wanted = list(render.SERVICES) if settings.metrics_prometheus else []
    removed(name="Remove what is off", services=[n for n in render.SERVICES if n not in wanted])
    for name in wanted:
        service = Service(
            name,
            rendered.release_id,
            rendered.inputs[name],
            settings.metrics_start_timeout_seconds,
        )
        up(name=f"Have {name.capitalize()} healthy", service=service)


@operation()
def removed(services: list[str]) -> Commands:
    """Ensure that these services have no container."""
    there = sorted(c.name for c in host.get_fact(Containers) if c.service in services)
    if not there:
        host.noop("nothing is there that is off")
        return
    yield StringCommand("docker", "rm", "--force", *there)
