"""A Docker data root with the gateway's images in it, made once and copied for each workstation."""

import subprocess
from contextlib import suppress
from pathlib import Path

import docker
from docker.errors import APIError, NotFound

from gatehouse.lab.common import LABEL, OF_HELPERS, OF_SEEDS, PREFIX, LabError
from gatehouse.lab.images import LabImages, identity
from gatehouse.lab.progress import Progress

# The workstation in which a seed is made.
WORKSTATION = "images-seed"
# Only a seed that was finished has this file at the root of its volume.
FINISHED = "lab-seed-finished"


def volume_name(client: docker.DockerClient, images: LabImages) -> str:
    """Name the seed of these images."""
    return f"{PREFIX}-images-{identity(client, images)}"


def usable(client: docker.DockerClient, name: str, helper: str) -> bool:
    """Tell whether the seed is there and was finished; one that was not is removed."""
    try:
        volume = client.volumes.get(name)
    except NotFound:
        return False
    try:
        run_on_volumes(client, helper, f"test -f /seed/{FINISHED}", {name: "/seed"})
    except LabError:
        volume.remove(force=True)
        return False
    return True


def load(container: str, images: LabImages, progress: Progress) -> None:
    """Bring the gateway's images into the engine inside a running workstation."""
    # Those that are built here no registry has.
    ours = [each for each in images.gateway if each.startswith(f"{PREFIX}/")]
    for reference in sorted({*images.gateway} - {*ours}):
        with progress.step(f"pulling {reference} in the workstation"):
            _checked(["docker", "exec", container, "docker", "pull", "--quiet", reference])
    with progress.step("loading the gateway's images into the workstation"):
        save = subprocess.Popen(["docker", "save", *ours], stdout=subprocess.PIPE)
        _checked(["docker", "exec", "-i", container, "docker", "load"], save)
        if save.wait():
            raise LabError(f"`docker save {' '.join(ours)}` failed ({save.returncode})")


def finish(client: docker.DockerClient, name: str, helper: str) -> None:
    """Mark the seed as usable and remove the seeds of images that are no more."""
    # Every engine makes an identity of its own when it finds none.
    run_on_volumes(
        client, helper, f"rm -f /seed/engine-id && touch /seed/{FINISHED}", {name: "/seed"}
    )
    for volume in client.volumes.list(filters={"label": f"{LABEL}={OF_SEEDS}"}):
        if volume.name != name:
            with suppress(APIError):  # in use by another run
                volume.remove()


def copy(client: docker.DockerClient, seed: str, volume: str, helper: str) -> None:
    """Fill a new volume from the seed.

    An engine never changes a layer that it has, so the layers become hard links, several times
    quicker than copies. A link cannot cross a mount, hence the folder of all volumes.
    """
    source, target = (Path(client.volumes.get(name).attrs["Mountpoint"]) for name in (seed, volume))
    volumes = source.parents[1]
    script = f"""
        cd /volumes/{source.relative_to(volumes)}
        target=/volumes/{target.relative_to(volumes)}
        cp -al overlay2 $target/
        rest=$(ls -A -I overlay2 -I {FINISHED})
        cp -a $rest $target/
    """
    run_on_volumes(client, helper, script, {str(volumes): "/volumes"})


def run_on_volumes(
    client: docker.DockerClient, image: str, script: str, volumes: dict[str, str]
) -> None:
    """Run a shell script in a helper container; raises `LabError` with its output when it fails."""
    container = client.containers.create(
        image,
        ["sh", "-ec", script],
        volumes={name: {"bind": path, "mode": "rw"} for name, path in volumes.items()},
        # overlay2 notes replaced folders in trusted.* attributes, which are copied with this only.
        cap_add=["SYS_ADMIN"],
        network_mode="none",
        labels={LABEL: OF_HELPERS},
    )
    try:
        container.start()
        if container.wait()["StatusCode"]:
            raise LabError(f"`{script}` failed: {container.logs().decode(errors='replace')}")
    finally:
        container.remove(force=True)


def _checked(command: list[str], source: "subprocess.Popen[bytes] | None" = None) -> None:
    found = subprocess.run(
        command,
        stdin=source.stdout if source else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if found.returncode:
        raise LabError(f"`{' '.join(command)}` failed ({found.returncode}): {found.stdout[-2000:]}")
