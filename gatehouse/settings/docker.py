"""The container engine."""

from typing import Annotated, Literal

from gatehouse.settings.field import Component, setting


class DockerSettings(Component):
    """Where Docker comes from and how its daemon is hardened."""

    docker_source: Annotated[
        Literal["docker", "distribution"],
        setting(
            "Where a missing engine comes from: Docker's own repository, or the distribution. "
            "The distribution's is too old on Debian 12 and below the proven floor on Debian 13."
        ),
    ]
    docker_repository_url: Annotated[
        str,
        setting(
            "Docker's package repository or a mirror of it, without the distribution's name.",
            pattern=r"^(https?|file)://\S+$",
        ),
    ]
    docker_repository_fingerprint: Annotated[
        str,
        setting(
            "Fingerprint that the repository's signing key must have.", pattern=r"^[0-9A-F]{40}$"
        ),
    ]
    docker_live_restore: Annotated[
        bool,
        setting(
            "Containers keep running while the daemon restarts, so an engine upgrade does not "
            "drop requests. False where the host joins a swarm, which excludes it."
        ),
    ]
    docker_log_max_mib: Annotated[
        int, setting("Size at which a container's log is rotated.", unit="MiB", ge=1, le=1024)
    ]
    docker_log_files: Annotated[
        int,
        setting("Rotated log files that are kept for each container.", unit="files", ge=1, le=100),
    ]
