"""The engine's daemon.json: ours, merged into what the operator already had."""

import json
from collections.abc import Mapping
from typing import Any

from gatehouse.settings import Settings

# Keys whose value is a collection of things of their own: each of these has its own owner.
_COLLECTIONS = ("features", "runtimes")


def wanted(settings: Settings, card: str = "none") -> dict[str, Any]:
    """Give the daemon's settings that Gatehouse stands for; reasons are in docs/hardening.md.

    Where engines run on a card (`nvidia`), containers can ask for it: CDI is on by itself since
    28.3 only, and people know `--runtime=nvidia` from NVIDIA's guide.
    """
    nvidia = {
        "features": {"cdi": True},
        "runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}},
    }
    return (nvidia if card == "nvidia" else {}) | {
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
    options of another log driver than ours are not ours to set. In `features` and `runtimes` each
    entry is merged by itself: the operator's own stand beside ours.
    """
    merged, kept = _merge(present, ours_before, ours_now)
    for key in _COLLECTIONS:
        inner, inner_before, inner_now = (
            dict(each.get(key) or {}) for each in (present, ours_before, ours_now)
        )
        entries, entries_kept = _merge(inner, inner_before, inner_now)
        merged.pop(key, None)
        if entries or (key in present and key not in ours_before):
            merged[key] = entries
        kept = [each for each in kept if each != key] + ([key] if entries_kept else [])
    if "log-driver" in kept and present.get("log-opts") in (None, ours_before.get("log-opts")):
        merged.pop("log-opts", None)
    return merged, kept


def _merge(
    present: Mapping[str, Any], ours_before: Mapping[str, Any], ours_now: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
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
    return merged, kept


def text(values: Mapping[str, Any]) -> str:
    """Write daemon.json in one canonical form."""
    return json.dumps(values, indent=2, sort_keys=True) + "\n"
