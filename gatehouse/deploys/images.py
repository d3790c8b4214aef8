"""Images: on the host before anything is switched to them."""

import shlex
from pathlib import Path

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.api.deploy import deploy as pyinfra_deploy
from pyinfra.api.exceptions import DeployError

from gatehouse.deploys import Commands, progress
from gatehouse.deploys.facts import Images, Run
from gatehouse.deploys.gateway import Gateway
from gatehouse.render import Machine, engines
from gatehouse.settings import Settings

ARCHIVE = "/var/lib/gatehouse/images.tar"


@pyinfra_deploy("Images")
def deploy(gateway: Gateway) -> None:
    """Pull the images, or load them from the archive that the operator carries over."""
    settings = gateway.settings
    references = wanted(settings, gateway.machine)
    if settings.images_source == "registry":
        pulled(name="Pull the images", references=references)
        return
    archive = Path(settings.images_archive or "")
    # A host that has every image needs no archive: an operator may throw it away afterwards.
    if not archive.is_file() and _missing(references):
        raise DeployError(
            f"images_archive = {archive}: there is no such file on this machine, and the host "
            "lacks images: make it (docs/airgap.md), or correct the path"
        )
    loaded(name="Load the images from the archive", references=references, archive=str(archive))


def wanted(settings: Settings, machine: Machine) -> list[str]:
    """Give the image references that the stack and its engines run with."""
    stack = [settings.postgres_image, settings.redis_image, settings.litellm_image]
    if settings.metrics_prometheus:
        stack += [settings.metrics_prometheus_image, settings.metrics_alertmanager_image]
    return [*stack, *engines.images(settings, machine)]


@operation()
def pulled(references: list[str]) -> Commands:
    """Ensure that the host has each image, from its registry."""
    missing = _missing(references)
    for number, image in enumerate(missing, start=1):
        yield progress.run(
            f"pulling {image} ({number} of {len(missing)})",
            f"docker pull --quiet {shlex.quote(image)} || {{ echo "
            f"'cannot pull {image}: is a registry reachable from this host? Without one, set "
            'images_source = "archive" (docs/airgap.md)\' >&2; exit 1; }',
        )
    if not missing:
        host.noop("the images are there")


@operation()
def loaded(references: list[str], archive: str) -> Commands:
    """Ensure that the host has each image, from an archive on the operator's machine."""
    missing = _missing(references)
    if missing:
        size = Path(archive).stat().st_size / 1e6
        yield progress.upload(f"uploading {archive} ({size:.0f} MB)", archive, ARCHIVE)
        words = " ".join(map(shlex.quote, missing))
        yield progress.run(
            "loading the images",
            f"docker load --quiet --input {ARCHIVE} && "
            f"for image in {words}; do docker image inspect $image >/dev/null 2>&1 || {{ "
            f'echo "the archive {archive} does not hold $image: make it again, or name the images '
            'that it holds (docs/airgap.md)" >&2; exit 1; }; done',
        )
    # Also what a run that died in the middle has left.
    if missing or host.get_fact(Run, command=f"test -e {ARCHIVE}")["rc"] == 0:
        yield StringCommand("rm", "-f", ARCHIVE)
    else:
        host.noop("the images are there")


def _missing(references: list[str]) -> list[str]:
    present = host.get_fact(Images, references=references)
    return [image for image in references if image not in present]
