"""The graphics card and what containers need to use it."""

from typing import Annotated, Literal

from gatehouse.settings.field import Component, setting


class GpuSettings(Component):
    """Whether engines may use the host's NVIDIA cards, and where the container toolkit is from."""

    gpu_mode: Annotated[
        Literal["auto", "nvidia", "none"],
        setting(
            "auto: the NVIDIA cards that answer, else the CPU. nvidia: a host without a working "
            "card is refused. none: the CPU, and nothing of NVIDIA's is installed."
        ),
    ]
    gpu_reserve_mib: Annotated[
        int,
        setting(
            "Memory that engines leave free on each card, for the desktop and for what CUDA itself "
            "takes.",
            unit="MiB",
            ge=0,
            le=1048576,
        ),
    ]
    gpu_driver_min: Annotated[
        str,
        setting(
            "Oldest driver that is accepted, in as many numbers as matter.",
            example="550.54",
            pattern=r"^\d{3,4}(\.\d+){0,2}$",
        ),
    ]
    gpu_toolkit_source: Annotated[
        Literal["nvidia", "distribution"],
        setting(
            "Where a missing NVIDIA Container Toolkit comes from: NVIDIA's own repository (or its "
            "mirror), or the package sources that the host knows already. Either must have 1.18."
        ),
    ]
    gpu_toolkit_repository_url: Annotated[
        str,
        setting(
            "NVIDIA's repository of the toolkit or a mirror of it: the key is `gpgkey` in it, the "
            "packages are in `stable/deb`.",
            pattern=r"^(https?|file)://\S+[^/\s]$",
        ),
    ]
    gpu_toolkit_repository_fingerprint: Annotated[
        str,
        setting(
            "Fingerprint that the repository's signing key must have.", pattern=r"^[0-9A-F]{40}$"
        ),
    ]
    gpu_watch_seconds: Annotated[
        int,
        setting(
            "How often engines that are awake are asked whether they still see their card.",
            unit="seconds",
            ge=10,
            le=86400,
        ),
    ]
