"""Backups: restic, which the timer and `gatehouse backup` call."""

import shlex
from pathlib import PurePosixPath

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.api.deploy import deploy as pyinfra_deploy

from gatehouse.deploys import Commands
from gatehouse.deploys.facts import Run
from gatehouse.deploys.gateway import Gateway
from gatehouse.deploys.packages import present
from gatehouse.settings.backup import LOCAL

_OTHERWISE = (
    "restic makes the backups. Where no package can be had: install restic 0.14 or later by hand "
    "so that root finds it on the PATH, or set backup_enabled = False"
)


@pyinfra_deploy("Backup")
def deploy(gateway: Gateway) -> None:
    """Have restic where backups are made; the repository is made by the first backup."""
    settings = gateway.settings
    if not settings.backup_enabled:
        return
    present(name="Install restic", commands={"restic": "restic"}, otherwise=_OTHERWISE)
    if settings.backup_local and settings.backup_repository != LOCAL:
        above = str(PurePosixPath(settings.backup_repository).parent)
        folder(name="Have the folder that the repository is in", path=above)


@operation()
def folder(path: str) -> Commands:
    """Ensure a folder; one that is there stays as it is.

    The timer's unit may write to it only where it was there when the unit started.
    """
    quoted = shlex.quote(path)
    if host.get_fact(Run, command=f"[ -d {quoted} ]")["rc"] == 0:
        host.noop("it is there")
        return
    yield StringCommand("install", "-d", "-m", "700", quoted)
