"""The workstation itself: what it must have before anything is changed."""

from typing import Annotated

from gatehouse.settings.field import Component, setting


class HostSettings(Component):
    """What the host must offer, and what is assumed about it when nobody measures it."""

    host_group: Annotated[
        str,
        setting(
            "Group whose members may read /etc/gatehouse and /var/lib/gatehouse.",
            pattern=r"^[a-z_][a-z0-9_-]{0,30}$",
        ),
    ]
    host_disk_min_gib: Annotated[
        int, setting("Free disk below which a deploy is refused.", unit="GiB", ge=1, le=1000)
    ]
    host_memory_min_mib: Annotated[
        int, setting("Memory below which a deploy is refused.", unit="MiB", ge=1024, le=1048576)
    ]
    host_cpu_cores: Annotated[
        int | None,
        setting(
            "Cores to plan for. None: what the host has (`make render` then assumes 4).",
            unit="cores",
            ge=1,
            le=1024,
        ),
    ]
    host_memory_mib: Annotated[
        int | None,
        setting(
            "Memory to plan for. None: what the host has (`make render` then assumes 16384).",
            unit="MiB",
            ge=1024,
            le=16777216,
        ),
    ]
    host_time_sync_required: Annotated[
        bool,
        setting(
            "Refuse a host whose clock nobody keeps: keys expire and tokens are signed by time. "
            "False for a machine whose hypervisor keeps the clock."
        ),
    ]
