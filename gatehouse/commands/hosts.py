"""The hosts of an inventory and their merged data, without connecting to any."""

import json
import subprocess
import sys
from typing import Any

import click


def hosts(inventory: str, *, connection: bool = False) -> dict[str, dict[str, Any]]:
    """Give host name → data, merged as pyinfra merges it; `connection`: how it connects, too.

    pyinfra patches the whole process for its greenlets, so it is asked in a process of its own.
    Raises `click.ClickException` when there is no host or the inventory cannot be read.
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
        raise click.ClickException(done.stderr.strip() or f"cannot read the inventory {inventory}")
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found
