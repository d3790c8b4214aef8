"""What can be known to be wrong before pyinfra connects to a host.

pyinfra itself treats an inventory without hosts, and a `--limit` that matches nobody, as success
with nothing to do (3.10: exit code 0). It also connects before it runs deploy.py, so the settings
are read here, with pyinfra's own merging of group data, host data and `--data`.
"""

import sys
from fnmatch import fnmatch
from typing import Any

import click
from pyinfra import logger
from pyinfra.api import Inventory
from pyinfra_cli.util import parse_cli_arg

from gatehouse import signature
from gatehouse.deploys.inventory import load
from gatehouse.images import lock_of
from gatehouse.providers import given
from gatehouse.settings import Invalid, validate


def check() -> None:
    """Check the hosts, the limit and the settings of the pyinfra command that is running.

    Ends the process with exit code 1 and what is wrong. (An exception would reach the operator as
    pyinfra's traceback of config.py.)
    """
    try:
        _check()
    except ValueError as error:
        logger.error(f"--> {click.style('Gatehouse', 'red', bold=True)}: {error}")
        sys.exit(1)


def _check() -> None:
    context = click.get_current_context(silent=True)
    if context is None or "inventory" not in context.params:
        return
    params = context.params
    inventory = load(
        params["inventory"], _overrides(params), params["chdir"] or ".", params["group_data"]
    )
    names = _limited(inventory, params)
    problems: list[str] = []
    for name in names:
        try:
            settings = validate(inventory.get_host(name).data.dict())
            given(settings)
            lock_of(settings)
            signature.wanted(settings)
        except Invalid as invalid:
            problems.extend(f"  {name}: {problem}" for problem in invalid.problems)
    if problems:
        lines = "\n".join(problems)
        raise ValueError(
            f"problems in the settings: {len(problems)}; nothing was touched:\n{lines}"
        )


def _overrides(params: dict[str, Any]) -> dict[str, Any]:
    overrides: dict[str, Any] = {}
    for argument in params["data"]:
        key, separator, value = argument.partition("=")
        if not separator:
            raise ValueError(f"--data {argument}: write it as key=value")
        overrides[key] = parse_cli_arg(value)
    return overrides


def _limited(inventory: Inventory, params: dict[str, Any]) -> list[str]:
    """Give the names of the hosts that `--limit` and `--exclude` leave, at least one."""
    hosts = {host.name: host for host in inventory}

    def matching(pattern: str) -> set[str]:
        return {
            name for name, host in hosts.items() if fnmatch(name, pattern) or pattern in host.groups
        }

    # A name that is misspelt in --exclude would let the deploy reach the host that it was to spare.
    for option in ("limit", "exclude"):
        for pattern in params[option]:
            if not matching(pattern):
                known = ", ".join(hosts)
                raise ValueError(f"--{option} {pattern} matches no host; the hosts are: {known}")
    limits = params["limit"] or ["*"]
    left = set().union(*map(matching, limits)) - set().union(*map(matching, params["exclude"]))
    if not left:
        raise ValueError("--limit and --exclude together leave no host")
    return [name for name in hosts if name in left]
