"""Upgrades: no LiteLLM serves that is older than its database, no Postgres that cannot read it."""

import json
import shlex

from pyinfra import host as this_host
from pyinfra import logger
from pyinfra.api import FunctionCommand, operation
from pyinfra.api.host import Host
from pyinfra.api.state import State

from gatehouse.checks.probe import probe
from gatehouse.deploys import Commands
from gatehouse.deploys.facts import Run
from gatehouse.probes.upgrade import VOLUME
from gatehouse.settings import Settings
from gatehouse.upgrade import refused, targets

# Ends where a service runs with another image than the one that is wanted. Where it has no
# container (`docker compose down`), only the data can say what they need.
_OTHER = """
if runs=$(docker inspect -f '{{{{.Image}}}}' gatehouse-{service}-1 2>/dev/null); then
    [ "$runs" = "$(docker image inspect -f '{{{{.Id}}}}' {image} 2>/dev/null)" ] || exit 1
else
    ! docker volume inspect {volume} >/dev/null 2>&1 || exit 1
fi"""


@operation()
def known(settings: Settings) -> Commands:
    """Ensure that LiteLLM's image knows every migration of the database, and Postgres' its format.

    Nothing is asked while the images that run are those that are wanted, or there are no data.
    """
    if this_host.get_fact(Run, command=same(settings))["rc"] == 0:
        this_host.noop("no other images than those that run")
        return
    yield FunctionCommand(_refuse, [settings], {})


def same(settings: Settings) -> str:
    """Give the command that fails where other images would take over the data than had them."""
    images = {"litellm": settings.litellm_image, "postgres": settings.postgres_image}
    parts = [
        _OTHER.format(service=service, image=shlex.quote(image), volume=VOLUME)
        for service, image in images.items()
    ]
    return "\n".join([*parts, "true"])


def _refuse(state: State, host: Host, settings: Settings) -> bool:  # noqa: ARG001 - pyinfra's call
    command = probe("upgrade", json.dumps(targets(settings)))
    answer = host.get_fact(Run, command=command)["out"].strip().splitlines()
    try:
        found = json.loads(answer[-1])
    except (IndexError, ValueError):
        found = {"errors": {"server": "the host gave no answer"}}
    problem = refused(settings, found)
    if problem:
        logger.error(f"{host.print_prefix}nothing was switched: {problem}")
    return problem is None
