"""Services of the stack: started when what they run with has changed, then waited for."""

import time
from dataclasses import dataclass

from pyinfra import host as this_host
from pyinfra import logger
from pyinfra.api import FunctionCommand, StringCommand, operation
from pyinfra.api.host import Host
from pyinfra.api.state import State

from gatehouse.deploys import Commands, starts
from gatehouse.deploys.facts import Container, Containers, Logs
from gatehouse.deploys.release import directory

_POLL_SECONDS = 1.0
_SAY_EVERY_SECONDS = 10.0


@dataclass(frozen=True)
class Service:
    """A service as it should run: its release, the hash of its inputs, and how long to wait."""

    name: str
    release: str
    inputs: str
    timeout_seconds: int
    # A job runs once and ends with 0; a service goes on running.
    job: bool = False

    def compose(self, arguments: str) -> StringCommand:
        """Give a Compose command with the release's real path."""
        path = directory(self.release)
        return StringCommand(
            f"docker compose --project-directory {path} -f {path}/compose.yaml {arguments}"
        )

    def done(self, container: Container) -> bool:
        """Whether the container does, or has done, what it is for."""
        if self.job:
            return container.status == "exited" and container.exit_code == 0
        return container.ready

    def failed(self, container: Container) -> bool:
        """Whether waiting any longer is useless."""
        if self.job:
            return container.status in {"exited", "dead"} and container.exit_code != 0
        return container.health == "unhealthy" or container.status == "dead"


@operation()
def up(service: Service) -> Commands:
    """Ensure that the service runs with the current inputs, is alone, and is healthy.

    It is recreated when the hash in its label is another one, when a secret that it reads is newer
    than its start, or when it is broken; it is only waited for when it is still starting. What is
    left of a killed run (a second container, one that was created and never started) goes.
    """
    found = [c for c in this_host.get_fact(Containers) if c.service == service.name]
    current = [c for c in found if c.inputs == service.inputs and not c.stale]
    usual = f"gatehouse-{service.name}-1"
    one = current[0] if len(current) == len(found) == 1 and current[0].name == usual else None
    if one and service.done(one):
        this_host.noop(f"{service.name} is {'done' if service.job else one.health}")
        return
    starting = one and one.status == "running" and not service.failed(one)
    if not starting:
        extra = " ".join(c.name for c in found if c.name != usual)
        if extra:
            yield StringCommand(f"docker rm --force {extra}")
        recreate = "--force-recreate" if found else ""
        yield service.compose(f"up -d --no-deps --no-build --quiet-pull {recreate} {service.name}")
    yield FunctionCommand(_wait, [service], {})


def _wait(state: State, host: Host, service: Service) -> bool:  # noqa: ARG001 - pyinfra's call
    """Wait until the service is healthy; on failure show its last lines."""
    started = time.monotonic()
    said = started
    while (now := time.monotonic()) - started < service.timeout_seconds:
        found = [c for c in host.get_fact(Containers) if c.service == service.name]
        container = found[0] if found else None
        seen = _words(container)
        if container and service.done(container):
            logger.info(f"{host.print_prefix}{service.name}: ready after {now - started:.0f} s")
            starts.record(host, service.name)
            return True
        if container is None or service.failed(container):
            break
        if now - said >= _SAY_EVERY_SECONDS:
            said = now
            logger.info(f"{host.print_prefix}{service.name}: {seen} ({now - started:.0f} s)")
        time.sleep(_POLL_SECONDS)
    else:
        seen = f"{seen}, still not healthy after {service.timeout_seconds} s"
    _explain(host, service, seen)
    return False


def _words(container: Container | None) -> str:
    if container is None:
        return "there is no container"
    if container.status == "exited":
        return f"exited with {container.exit_code}"
    return container.status if container.health == "none" else container.health


def _explain(host: Host, service: Service, seen: str) -> None:
    logger.error(f"{host.print_prefix}{service.name}: {seen}. Its last lines:")
    for line in host.get_fact(Logs, service=service.name):
        logger.error(f"{host.print_prefix}  | {line}")
