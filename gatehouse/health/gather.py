"""The parts of the document, each read by itself: one that cannot be read leaves the others."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from gatehouse import audit, state
from gatehouse.checks import every
from gatehouse.engines.errors import EngineError
from gatehouse.engines.host import Host
from gatehouse.health import told
from gatehouse.health.document import (
    Action,
    Actions,
    Backups,
    Engine,
    Holder,
    Job,
    Key,
    Keys,
    Pool,
    Space,
    Status,
    Timer,
    Told,
)
from gatehouse.settings import Settings
from gatehouse.tool import checking, engine_facts
from gatehouse.tool import timers as systemd
from gatehouse.tool.errors import CannotLookError

CURRENT = Path("/opt/gatehouse/current")
_MEMINFO = Path("/proc/meminfo")
_DISK = Path("/var/lib")
_ACTIONS = 8
JOBS = ("smoke", "probe", "inventory", "knowledge")
Found = TypeVar("Found")


def part(name: str, ask: Callable[[], Found], troubles: dict[str, str]) -> Found | None:
    """Give a part, or None and say in `troubles` why there is none."""
    try:
        return ask()
    except subprocess.TimeoutExpired as late:
        troubles[name] = f"no answer in {late.timeout:.0f} s"
    except (CannotLookError, EngineError) as error:
        troubles[name] = str(error).splitlines()[0][:200]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        # The first line only: a validation error repeats the values that it was given.
        troubles[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
    return None


def status(settings: Settings) -> Status:
    """Make the checks that are quick, as `gatehouse status` does."""
    found, _ = checking.look([check for check in every(settings) if not check.thorough])
    return Status.model_validate(found.model_dump())


def release() -> tuple[str, float]:
    """Give the id of the release that runs, and since when it does."""
    return CURRENT.readlink().name, CURRENT.lstat().st_mtime


def engines(host: Host) -> list[Engine]:
    """Give every engine and what it does."""
    return [Engine.model_validate(row) for row in engine_facts.engines(host)]


def pools(host: Host) -> list[Pool]:
    """Give the memory that engines take from, and who has it."""
    found = []
    for pool in engine_facts.pools(host):
        if "error" in pool:
            found.append(Pool(name=pool["pool"], error=pool["error"]))
            continue
        holders = [Holder(name=each["name"], mib=each["mib"]) for each in pool["engines"]]
        found.append(
            Pool(
                name=pool["pool"],
                total_mib=pool["total_mib"],
                used_mib=pool["used_mib"],
                reserve_mib=pool["reserve_mib"],
                engines=holders,
            )
        )
    return found


def spaces() -> list[Space]:
    """Give the host's memory and disk."""
    kib = {
        key: int(value)
        for key, value in re.findall(r"^(\w+):\s+(\d+)", _MEMINFO.read_text(), re.MULTILINE)
    }
    disk = shutil.disk_usage(_DISK)
    memory = Space(
        name="memory",
        total_mib=kib["MemTotal"] >> 10,
        used_mib=(kib["MemTotal"] - kib["MemAvailable"]) >> 10,
    )
    used = disk.total - disk.free
    return [
        memory,
        Space(name="disk", total_mib=disk.total >> 20, used_mib=used >> 20, where=str(_DISK)),
    ]


def keys() -> Keys | None:
    """Give what the last `gatehouse keys check` wrote down; None before the first."""
    found = state.read("keys")
    return None if found is None else read_keys(found)


def read_keys(found: dict[str, Any]) -> Keys:
    """Read the state of keys: aliases and dates, nothing else is taken over."""

    def some(*names: str) -> list[Key]:
        rows: list[Any] = next(
            (found[name] for name in names if isinstance(found.get(name), list)), []
        )
        return [
            Key(alias=row, expires=None)
            if isinstance(row, str)
            else Key(alias=str(row["alias"]), expires=_moment(row.get("expires")))
            for row in rows
        ]

    total = found.get("total")
    return Keys(
        written=float(found["written"]),
        total=total if isinstance(total, int) else None,
        expired=some("expired"),
        expiring=some("expiring"),
        unlimited=some("unlimited", "limits"),
    )


def _moment(value: object) -> float | None:
    """Read a moment as seconds since the epoch or in ISO 8601."""
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str) and value:
        return datetime.fromisoformat(value).timestamp()
    return None


def actions() -> Actions:
    """Give the last lines of the audit log, newest first."""
    lines = audit.entries()
    counts: dict[str, int] = {}
    for line in lines:
        result = str(line.get("result", "unknown"))
        counts[result] = counts.get(result, 0) + 1
    last = [
        Action(
            at=_moment(line.get("time")) or 0.0,
            who=str(line.get("who", "")),
            action=str(line.get("action", "")),
            result=str(line.get("result", "")),
        )
        for line in reversed(lines[-_ACTIONS:])
    ]
    return Actions(counts=counts, last=last)


def timers() -> list[Timer]:
    """Give our timers, in the order in which they fire next."""
    found = [
        Timer(
            unit=each.name,
            last=each.last,
            next=each.next,
            result=each.result if each.armed else "off",
        )
        for each in systemd.look().timers
    ]
    return sorted(found, key=lambda each: each.next or float("inf"))


def jobs() -> list[Job]:
    """Give what smoke, probe and the like found last, as far as they ran."""
    found = []
    for name in JOBS:
        kept = state.read(name)
        if kept and isinstance(kept.get("written"), int | float):
            found.append(Job(name=name, written=kept["written"], **_outcome(kept)))
    return found


def _outcome(kept: dict[str, Any]) -> dict[str, Any]:
    """Read whether a job was content, and what it found in short."""
    ok = kept.get("ok")
    return {"ok": ok if isinstance(ok, bool) else None, "words": _words(kept)[:200]}


def _words(kept: dict[str, Any]) -> str:
    words = []
    if isinstance(kept.get("steps"), list):
        tried = [each["state"] for each in kept["steps"] if each["state"] != "skipped"]
        words.append(f"{tried.count('ok')} of {len(tried)} in {kept['seconds']:.1f} s")
    elif isinstance(kept.get("models"), list):
        words.append(f"{len(kept['models'])} models")
    changes = {key: kept[key] for key in ("added", "removed") if isinstance(kept.get(key), list)}
    words += [f"{len(names)} {key}" for key, names in changes.items() if names]
    return ", ".join(words)


def backups(settings: Settings) -> Backups | None:
    """Give what is remembered of backups and drills; None where there are to be none."""
    if not settings.backup_enabled:
        return None
    found, drill = state.read("backup") or {}, state.read("drill") or {}
    good, last, verify, place = (
        found.get(name) or {} for name in ("good", "last", "verify", "repository")
    )
    came_back, tried = drill.get("good") or {}, drill.get("last") or {}
    return Backups(
        limit_seconds=settings.backup_age_hours * 3600,
        good=good.get("at"),
        seconds=good.get("seconds"),
        dump_bytes=good.get("dump_bytes"),
        ok=last.get("ok"),
        error=last.get("error", ""),
        snapshots=place.get("snapshots"),
        bytes=place.get("bytes"),
        verified=verify.get("at"),
        whole=verify.get("ok"),
        drilled=came_back.get("at"),
        drill_seconds=came_back.get("seconds"),
        drill_ok=tried.get("ok"),
        drill_error=tried.get("error", ""),
    )


def alerts(to: str | None) -> Told | None:
    """Give what the alerts' unit did last; None where nobody is to be told."""
    return told.read(to) if to else None


def hostname() -> str:
    """Give the host's name."""
    return os.uname().nodename
