"""The engine's daemon.json: ours, merged into what the operator already had."""

import json
from collections.abc import Mapping
from typing import Any

from gatehouse.settings import Settings


def wanted(settings: Settings) -> dict[str, Any]:
    """Give the daemon's settings that Gatehouse stands for; reasons are in docs/hardening.md."""
    return {
        "icc": False,
        "live-restore": settings.docker_live_restore,
        "log-driver": "local",
        "log-opts": {
            "max-file": str(settings.docker_log_files),
            "max-size": f"{settings.docker_log_max_mib}m",
        },
        "no-new-privileges": True,
    }


def merge(
    present: Mapping[str, Any], ours_before: Mapping[str, Any], ours_now: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Merge our keys into the daemon's present settings.

    A key that the operator set, or changed after we had set it (`ours_before`), stays the
    operator's. Returns the merged settings and the keys that were left to the operator. The
    options of another log driver than ours are not ours to set.
    """
    merged = dict(present)
    kept = []
    for key in [key for key in ours_before if key not in ours_now and key in present]:
        if present[key] == ours_before[key]:
            del merged[key]
    for key, value in ours_now.items():
        if key not in present or present[key] == ours_before.get(key):
            merged[key] = value
        elif present[key] != value:
            kept.append(key)
    if "log-driver" in kept and present.get("log-opts") in (None, ours_before.get("log-opts")):
        merged.pop("log-opts", None)
    return merged, kept


def text(values: Mapping[str, Any]) -> str:
    """Write daemon.json in one canonical form."""
    return json.dumps(values, indent=2, sort_keys=True) + "\n"
