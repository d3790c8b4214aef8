"""`plan`: show what a deploy would change on each host, without changing anything."""

import os
import subprocess
import sys
from pathlib import Path

import click

PYINFRA = str(Path(sys.executable).with_name("pyinfra"))


@click.command("plan")
@click.option("--inventory", default="inventory", show_default=True, help="pyinfra's inventory.")
@click.option("--limit", multiple=True, help="Only these hosts, as pyinfra's --limit.")
def command(inventory: str, limit: tuple[str, ...]) -> None:
    """Show, as a diff, which files and services a deploy would change. Nothing is changed."""
    limits = [word for name in limit for word in ("--limit", name)]
    done = subprocess.run(
        [PYINFRA, inventory, "gatehouse.deploys.plan.show", "--dry", *limits],
        stdout=None,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=os.environ | {"PYINFRA_PROGRESS": "off"},
    )
    # pyinfra's own messages are about operations, which a plan has none of: only errors matter.
    if done.returncode:
        click.echo(done.stderr, err=True)
        sys.exit(done.returncode)
