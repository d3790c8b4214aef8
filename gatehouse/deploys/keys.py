"""Keys: teams, users and keys that the settings declare."""

import base64
import json
from collections.abc import Mapping
from typing import Any

from pyinfra import host as this_host
from pyinfra import logger
from pyinfra.api import FunctionCommand, StringCommand, operation
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, pop_global_arguments
from pyinfra.api.deploy import deploy as pyinfra_deploy
from pyinfra.api.host import Host
from pyinfra.api.state import State

from gatehouse.deploys import Commands
from gatehouse.deploys.facts import Run
from gatehouse.deploys.gateway import Gateway
from gatehouse.settings import Settings
from gatehouse.settings.keys import KeysSettings

_DECLARE = "/opt/gatehouse/venv/bin/gatehouse keys declare"
# What was ever declared here; without it nothing was.
_STATE = "/var/lib/gatehouse/state/declared.json"


@pyinfra_deploy("Keys")
def deploy(gateway: Gateway) -> None:
    """Have teams, users and keys as they are declared; what no longer is stays."""
    declared(name="Keep what is declared", settings=gateway.settings)


@operation()
def declared(settings: Settings) -> Commands:
    """Ensure the declared teams, users and keys; the values of keys never leave the host."""
    wanted = settings.model_dump(mode="json", include=set(KeysSettings.model_fields))
    anything = wanted["keys_teams"] or wanted["keys_users"] or wanted["keys_declared"]
    # The settings on the host may still be those of the deploy before.
    given = base64.b64encode(json.dumps(wanted).encode()).decode()
    look = f"printf %s {given} | base64 -d | {_DECLARE} --plan --json --settings -"
    seen = this_host.get_fact(Run, command=look if anything else f"[ ! -e {_STATE} ] || {look}")
    found = _document(seen)
    if found is None or found["changes"]:
        yield FunctionCommand(_declare, [], {})
        return
    for line in [*found["reports"], *(f"{each}: no longer declared" for each in found["left"])]:
        logger.info(f"{this_host.print_prefix}{line}")
    this_host.noop("everything is as it is declared")


def _document(seen: dict[str, Any]) -> dict[str, list[str]] | None:
    """Read what differs; None where the host could not say, as before the first deploy."""
    if seen["rc"]:
        return None
    if not seen["out"]:
        return {"changes": [], "reports": [], "left": []}
    try:
        found: dict[str, list[str]] = json.loads(seen["out"])
    except ValueError:
        return None
    return found


def _declare(state: State, host: Host) -> bool:
    """Make the difference, and say what it was."""
    everything: Mapping[str, Any] = pop_global_arguments(state, host, {})[0]
    arguments = {key: everything[key] for key in CONNECTOR_ARGUMENT_KEYS if key in everything}
    status, output = host.run_shell_command(StringCommand(_DECLARE), **arguments)
    for line in output:
        (logger.info if status else logger.error)(f"{host.print_prefix}{line.line}")
    return bool(status)
