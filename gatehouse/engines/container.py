"""An engine's container, found fit to be started or made anew."""

import subprocess

from gatehouse.engines.config import Engine
from gatehouse.engines.docker import Container
from gatehouse.engines.errors import RefusedError
from gatehouse.engines.host import Host

_CREATE_SECONDS = 120


def ready_to_start(host: Host, engine: Engine) -> str | None:
    """Make the container anew if somebody removed it or its network; give its configuration's hash.

    `docker compose down`, `docker system prune` and a person with `docker rm` all do that to
    containers that do not run, and an engine's container does not run most of the time.
    """
    name = engine.container or ""
    container = host.docker.container(name)
    if not _fit(host, container):
        _create(host, engine)
        container = host.docker.container(name)
    return container.config if container else None


def _fit(host: Host, container: Container | None) -> bool:
    return container is not None and all(
        host.docker.has_network(network) for network in container.networks
    )


def _create(host: Host, engine: Engine) -> None:
    release = host.paths.release.resolve()
    made = subprocess.run(
        [
            *("docker", "compose", "--project-directory", str(release)),
            *("-f", str(release / "compose.yaml"), "--profile", "engines"),
            *("create", "--no-build", "--force-recreate", engine.name),
        ],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_CREATE_SECONDS,
    )
    if made.returncode:
        last = made.stdout.decode(errors="replace").strip().splitlines()[-1:]
        raise RefusedError(
            f"its container {engine.container} was gone and could not be made anew "
            f"({' '.join(last)}): deploy again with `pyinfra inventory deploy.py`"
        )
