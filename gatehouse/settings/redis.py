"""The cache."""

from typing import Annotated

from gatehouse.settings.field import Component, setting
from gatehouse.settings.postgres import CONTAINER_USER, IMAGE


class RedisSettings(Component):
    """Redis: image, port, limits and how long an answer is cached."""

    redis_image: Annotated[str, setting("Image, pinned to a version.", pattern=IMAGE)]
    redis_user: Annotated[
        str,
        setting(
            "uid:gid that the server runs as: 999:1000 in the Alpine images, 999:999 in Debian's.",
            pattern=CONTAINER_USER,
        ),
    ]
    redis_port: Annotated[int, setting("Port on the bind address.", unit="port", ge=1024, le=65535)]
    redis_cache_ttl_seconds: Annotated[
        int,
        setting(
            "How long the answer to an identical completion or embedding is kept.",
            unit="seconds",
            ge=0,
            le=2592000,
        ),
    ]
    redis_maxmemory_mib: Annotated[
        int,
        setting(
            "Data kept before the least recently used is evicted.", unit="MiB", ge=16, le=1048576
        ),
    ]
    redis_memory_mib: Annotated[
        int, setting("Memory limit of the container.", unit="MiB", ge=32, le=1048576)
    ]
    redis_cpus: Annotated[float, setting("CPU limit.", unit="cores", ge=0.1, le=1024)]
    redis_pids: Annotated[int, setting("Process limit.", unit="processes", ge=16, le=32768)]
    redis_stop_grace_seconds: Annotated[
        int, setting("Time for a clean shutdown before it is killed.", unit="seconds", ge=5, le=600)
    ]
    redis_start_timeout_seconds: Annotated[
        int,
        setting(
            "How long it may take to be healthy; for so long a deploy waits, and Docker does not "
            "call it unhealthy.",
            unit="seconds",
            ge=10,
            le=3600,
        ),
    ]
