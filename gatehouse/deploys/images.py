"""Images: on the host before anything is switched to them."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from pyinfra import host
from pyinfra.api import FileUploadCommand, StringCommand, operation
from pyinfra.api.command import PyinfraCommand
from pyinfra.api.deploy import deploy as pyinfra_deploy
from pyinfra.api.exceptions import DeployError

from gatehouse.deploys.facts import Images
from gatehouse.deploys.gateway import Gateway
from gatehouse.settings import Settings

ARCHIVE = "/var/lib/gatehouse/images.tar"


@pyinfra_deploy("Images")
def deploy(gateway: Gateway) -> None:
    """Pull the images, or load them from the archive that the operator carries over."""
    settings = gateway.settings
    references = wanted(settings)
    if settings.images_source == "registry":
        pulled(name="Pull the images", references=references)
        return
    archive = Path(settings.images_archive or "")
    if not archive.is_file():
        raise DeployError(f"images_archive = {archive}: there is no such file on this machine")
    loaded(name="Load the images from the archive", references=references, archive=str(archive))


def wanted(settings: Settings) -> list[str]:
    """Give the image references that the stack runs with."""
    return [settings.postgres_image, settings.redis_image, settings.litellm_image]


@operation()
def pulled(references: list[str]) -> Iterator[StringCommand]:
    """Ensure that the host has each image, from its registry."""
    missing = [image for image in references if image not in host.get_fact(Images, references)]
    for image in missing:
        yield StringCommand(
            f"docker pull --quiet {shlex.quote(image)} || {{ echo "
            f"'cannot pull {image}: is a registry reachable from this host? Without one, set "
            'images_source = "archive" (docs/airgap.md)\' >&2; exit 1; }'
        )
    if not missing:
        host.noop("the images are there")


@operation()
def loaded(references: list[str], archive: str) -> Iterator[PyinfraCommand]:
    """Ensure that the host has each image, from an archive on the operator's machine."""
    missing = [image for image in references if image not in host.get_fact(Images, references)]
    if not missing:
        host.noop("the images are there")
        return
    # pyinfra sends a file through its temporary directory; as root it goes straight there.
    yield FileUploadCommand(archive, ARCHIVE)
    words = " ".join(map(shlex.quote, missing))
    yield StringCommand(
        f"docker load --quiet --input {ARCHIVE}; rc=$?; rm -f {ARCHIVE}; [ $rc = 0 ] && "
        f"for image in {words}; do docker image inspect $image >/dev/null 2>&1 || {{ "
        f"echo \"the archive {archive} does not hold $image: make it again, or name the images "
        'that it holds (docs/airgap.md)" >&2; exit 1; }; done'
    )
