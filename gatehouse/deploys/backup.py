"""Backups: restic, which the timer and `gatehouse backup` call."""

from pyinfra.api.deploy import deploy as pyinfra_deploy

from gatehouse.deploys.gateway import Gateway
from gatehouse.deploys.packages import present

_OTHERWISE = (
    "restic makes the backups. Where no package can be had: install restic 0.14 or later by hand "
    "so that root finds it on the PATH, or set backup_enabled = False"
)


@pyinfra_deploy("Backup")
def deploy(gateway: Gateway) -> None:
    """Have restic where backups are made; the repository is made by the first backup."""
    if gateway.settings.backup_enabled:
        present(name="Install restic", commands={"restic": "restic"}, otherwise=_OTHERWISE)
