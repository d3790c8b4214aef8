"""The database."""

from typing import Annotated

from gatehouse.settings.field import Component, setting

# [registry/]name[:tag][@digest], without the characters that a shell or a variables file reads.
IMAGE = r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}$"
CONTAINER_USER = r"^\d{1,5}:\d{1,5}$"


class PostgresSettings(Component):
    """PostgreSQL: image, port and limits."""

    postgres_image: Annotated[str, setting("Image, pinned to a version.", pattern=IMAGE)]
    postgres_user: Annotated[
        str,
        setting(
            "uid:gid that the server runs as: 70:70 in the Alpine images, 999:999 in Debian's.",
            pattern=CONTAINER_USER,
        ),
    ]
    postgres_port: Annotated[
        int, setting("Port on the bind address.", unit="port", ge=1024, le=65535)
    ]
    postgres_connections: Annotated[
        int,
        setting(
            "The server's max_connections: the proxy's pool, its migrations and a person.",
            unit="connections",
            ge=30,
            le=1000,
        ),
    ]
    postgres_memory_mib: Annotated[
        int, setting("Memory limit of the container.", unit="MiB", ge=128, le=1048576)
    ]
    postgres_cpus: Annotated[float, setting("CPU limit.", unit="cores", ge=0.1, le=1024)]
    postgres_pids: Annotated[int, setting("Process limit.", unit="processes", ge=50, le=32768)]
    postgres_idle_seconds: Annotated[
        int,
        setting(
            "How long a session may idle before it counts as forgotten; the proxy's pool may.",
            unit="seconds",
            ge=1,
            le=86400,
        ),
    ]
    postgres_size_warn_mib: Annotated[
        int,
        setting(
            "Size of the database above which the checks warn.", unit="MiB", ge=64, le=16777216
        ),
    ]
    postgres_stop_grace_seconds: Annotated[
        int, setting("Time for a clean shutdown before it is killed.", unit="seconds", ge=5, le=600)
    ]
    postgres_start_timeout_seconds: Annotated[
        int,
        setting(
            "How long it may take to be healthy; for so long a deploy waits, and Docker does not "
            "call it unhealthy.",
            unit="seconds",
            ge=10,
            le=3600,
        ),
    ]
