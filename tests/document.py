"""A document as root's collector writes it, of a host where everything is to be seen."""

import time
from typing import Any

COMPONENTS = ("host", "secrets", "docker", "network", "postgres", "redis", "keys", "litellm")
STATEMENTS = ("healthy", "answers in time", "is as it was rendered", "listens on loopback only")


def check(name: str, **fields: object) -> dict[str, Any]:
    """Give one check that holds, with changes."""
    return {
        "name": name,
        "component": name.split(":", maxsplit=1)[0],
        "expected": "running healthy",
        "found": "running healthy",
        "state": "ok",
        "severity": "failure",
        "because": None,
        "fix": f"docker compose logs {name.split(':', maxsplit=1)[0]}",
        "repair": False,
    } | fields


def checks(**changed: dict[str, object]) -> list[dict[str, Any]]:
    """Give checks of every component; `changed` is name, with _ for what is no letter → fields."""
    found = [check(f"{of}: {words}") for of in COMPONENTS for words in STATEMENTS]
    by_name = {each["name"].replace(": ", "_").replace(" ", "_"): each for each in found}
    for name, fields in changed.items():
        by_name[name] |= fields
    return found


def status(found: list[dict[str, Any]], checked: float) -> dict[str, Any]:
    """Give the status document of these checks."""
    states = [each["state"] for each in found]
    names = {"ok": "ok", "warnings": "warning", "failures": "failure", "hushed": "hushed"}
    return {
        "checked": checked,
        "seconds": 1.1,
        "summary": {name: states.count(state) for name, state in names.items()},
        "checks": found,
    }


def document(age: float = 12, **changes: object) -> dict[str, Any]:
    """Give a document, `age` seconds old, with changes; everything holds."""
    at = time.time() - age
    hour = int(at) // 3600 * 3600
    engine = {"pool": "card 0", "connections": 0, "models": ["chat-a"]}
    return {
        "version": 1,
        "host": "atelier",
        "gatehouse": "0.1.0",
        "release": "bf4c76e95d23",
        "release_since": at - 3 * 86400,
        "gathered": at,
        "seconds": 1.31,
        "interval_seconds": 60,
        "status": status(checks(), at),
        "engines": [
            engine | {"name": "chat-a", "state": "awake", "since": at - 900, "need_mib": 7900},
            engine | {"name": "chat-b", "state": "refused", "since": at, "reason": "too large"},
            engine | {"name": "chat-c", "state": "asleep", "need_mib": None},
        ],
        "pools": [
            {
                "name": "card 0",
                "total_mib": 24000,
                "used_mib": 10000,
                "reserve_mib": 512,
                "engines": [{"name": "chat-a", "mib": 7900}],
            }
        ],
        "spaces": [
            {"name": "memory", "total_mib": 64000, "used_mib": 21000, "where": ""},
            {"name": "disk", "total_mib": 940000, "used_mib": 410000, "where": "/var/lib"},
        ],
        "usage": {
            "requests": 1872,
            "failed": 14,
            "tokens": 2841200,
            "spend": 1.8342,
            "hours": [
                {"start": hour - n * 3600, "requests": 10 * n, "failed": n % 2}
                for n in reversed(range(24))
            ],
            "models": [
                {"model": "chat-a", "requests": 1872, "failed": 14, "tokens": 28412, "spend": 1.83}
            ],
        },
        "keys": {
            "written": at - 3600,
            "total": 12,
            "expired": [{"alias": "old-laptop", "expires": at - 3 * 86400}],
            "expiring": [{"alias": "ci-runner", "expires": at + 6 * 86400}],
            "unlimited": [],
        },
        "actions": {
            "counts": {"ok": 20, "failed": 1},
            "last": [
                {"at": at - 700, "who": "maria", "action": "keys rotate ci-runner", "result": "ok"}
            ],
        },
        "timers": [
            {"unit": "collect", "last": at, "next": at + 60, "result": "running"},
            {"unit": "probe", "last": None, "next": at + 9000, "result": "failed"},
        ],
        "jobs": [{"name": "smoke", "written": at - 5000, "ok": True, "words": "8 of 8 in 3.1 s"}],
        "backups": {
            "limit_seconds": 26 * 3600,
            "good": at - 9 * 3600,
            "seconds": 4.0,
            "dump_bytes": 52_000_000,
            "ok": True,
            "snapshots": 12,
            "bytes": 64_000_000,
            "verified": at - 9 * 3600,
            "whole": True,
            "drilled": at - 2 * 86400,
            "drill_seconds": 17.2,
            "drill_ok": True,
        },
        "alerts": {"to": "hooks.example.org", "last": at - 500, "firing": 1, "trouble": None},
        "troubles": {},
    } | changes
