"""The hosts of an inventory and their merged data, without connecting to any."""

import json
import subprocess
import sys
from typing import Any

import click


class CannotReadError(click.ClickException):
    """The inventory cannot be read, so nothing can be looked at: exit code 2."""

    exit_code = 2


def hosts(inventory: str, *, connection: bool = False) -> dict[str, dict[str, Any]]:
    """Give host name → data, merged as pyinfra merges it; `connection`: how it connects, too.

    pyinfra patches the whole process for its greenlets, so it is asked in a process of its own.
    Raises `CannotReadError` when there is no host or the inventory cannot be read.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-m", "gatehouse.deploys.inventory", inventory),
            *(["--connection"] if connection else []),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CannotReadError(done.stderr.strip() or f"cannot read the inventory {inventory}")
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found
