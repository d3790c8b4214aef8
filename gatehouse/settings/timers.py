"""What the host does by itself, and when."""

from typing import Annotated

from gatehouse.settings.field import Component, setting

OFF = "off"


class TimersSettings(Component):
    """When each job runs: a systemd calendar expression (`man systemd.time`), or "off"."""

    timers_status: Annotated[
        str, setting("When the checks run (`gatehouse status --record`).", example="*:0/15")
    ]
    timers_inventory: Annotated[
        str,
        setting(
            "When it is noted which models came and went (`gatehouse inventory --record`).",
            example="off",
        ),
    ]
    timers_probe: Annotated[
        str,
        setting(
            "When models are asked what they can do (`gatehouse probe --record`); no engine is "
            "woken and no provider asked.",
            example="Sun 04:00",
        ),
    ]
    timers_smoke: Annotated[
        str,
        setting(
            "When the gateway is tried as a client would (`gatehouse smoke --record`).",
            example="hourly",
        ),
    ]
    timers_keys: Annotated[
        str,
        setting(
            "When keys that expire are looked for, and those marked so are rotated (`gatehouse "
            "keys check --record --rotate`).",
            example="Mon..Fri 06:00",
        ),
    ]
    timers_knowledge: Annotated[
        str,
        setting(
            "When prices and context lengths are fetched (`gatehouse knowledge refresh`), where "
            "knowledge_refresh allows it.",
            example="monthly",
        ),
    ]
    timers_backup: Annotated[
        str,
        setting(
            "When a backup is made and a part of the repository read (`gatehouse backup now "
            "--record`), where backup_enabled says so.",
            example="*-*-* 04:00",
        ),
    ]
    timers_drill: Annotated[
        str,
        setting(
            "When the newest snapshot is restored into a scratch database (`gatehouse drill "
            "--record`), where backup_enabled says so.",
            example="Wed 04:00",
        ),
    ]
