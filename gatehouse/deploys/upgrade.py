"""Upgrades: no LiteLLM serves that is older than its database."""

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
from gatehouse.settings import Settings
from gatehouse.upgrade import downgrade, targets


@operation()
def known(settings: Settings) -> Commands:
    """Ensure that LiteLLM's image knows every migration that the database has.

    Nothing is asked while the image that runs is the one that is wanted.
    """
    image = shlex.quote(settings.litellm_image)
    same = (
        "runs=$(docker inspect -f '{{.Image}}' gatehouse-litellm-1 2>/dev/null) || exit 0\n"
        f'[ "$runs" = "$(docker image inspect -f \'{{{{.Id}}}}\' {image} 2>/dev/null)" ]'
    )
    if this_host.get_fact(Run, command=same)["rc"] == 0:
        this_host.noop("no other LiteLLM than the one that runs")
        return
    yield FunctionCommand(_refuse, [settings], {})


def _refuse(state: State, host: Host, settings: Settings) -> bool:  # noqa: ARG001 - pyinfra's call
    command = probe("upgrade", json.dumps(targets(settings)))
    answer = host.get_fact(Run, command=command)["out"].strip().splitlines()
    try:
        found = json.loads(answer[-1])
    except (IndexError, ValueError):
        found = {"errors": {"shipped": "the host gave no answer"}}
    problem = downgrade(settings, found)
    if problem:
        logger.error(f"{host.print_prefix}nothing was switched: {problem}")
    return problem is None
