"""The host: directories, rendered files, units, disk and memory."""

import json
import shlex
from collections.abc import Callable
from typing import Any

from gatehouse.checks.check import Check, Result
from gatehouse.checks.probe import listed, nothing, of, probe
from gatehouse.settings import Settings

_AGAIN = "deploy again: pyinfra inventory deploy.py"
_MEND = "sudo gatehouse doctor --fix sets modes and owners"
# The host's own, and what a secret of ours is called.
SECRETS = (
    *("master_key", "postgres_password", "redis_password", "salt_key", "ui_password"),
    "backup_password",
)
FILES = "host: files are as rendered"
JOBS = "host: jobs end well"
WRITABLE = "host: nothing is writable for everybody"
# And wherever Docker keeps images and volumes.
_ROOMS = ["/", "/var/lib/containerd", "/var/lib/gatehouse"]
_FULL_MIB = 1024
_MEMORY_MIB = 256


def directories(settings: Settings) -> dict[str, str]:
    """Give mode, owner and group of each directory."""
    group = settings.host_group
    return {
        "/opt/gatehouse": "755 root root",
        "/opt/gatehouse/releases": "755 root root",
        "/etc/gatehouse": f"750 root {group}",
        "/etc/gatehouse/keys": "700 root root",
        "/etc/gatehouse/secrets": "700 root root",
        "/etc/gatehouse/secrets/providers": "750 root gatehouse-secrets",
        "/var/lib/gatehouse": f"750 root {group}",
        "/var/lib/gatehouse/backup": "700 root root",
        "/var/lib/gatehouse/engines": f"750 root {group}",
        "/var/lib/gatehouse/state": f"750 root {group}",
        "/var/lib/gatehouse/releases": "700 root root",
        "/var/lib/gatehouse/snapshots": "700 root root",
    }


def disk(settings: Settings) -> str:
    """Give the command that looks at everything on disk."""
    asked = {
        "directories": directories(settings),
        "secrets": SECRETS,
        "rooms": [*_ROOMS, settings.models_dir],
    }
    return probe("disk", json.dumps(asked))


def modes(settings: Settings) -> str:
    """Give the command that puts modes and owners right."""
    return probe("mend", "modes", json.dumps(directories(settings)))


def _ours(seen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out engines, and who refreshes the CDI (that may be NVIDIA): they have own checks."""
    others = ("gatehouse-engine-", "gatehouse-server-", "gatehouse-cdi.")
    return [each for each in seen if not each["unit"].startswith(others)]


def units(seen: list[dict[str, Any]]) -> Result:
    """Judge that what should run does, now and after a boot."""
    found = []
    for each in _ours(seen):
        if each["runs"] and each["active"] not in ("active", "activating", "reloading"):
            found.append(f"{each['unit']} is {each['active']}")
        elif each["installed"] and each["enabled"] != "enabled":
            found.append(f"{each['unit']} is {each['enabled'] or 'not known'}")
    if not seen:
        return Result(holds=False, found="no unit")
    return nothing(found)


def jobs(seen: list[dict[str, Any]]) -> Result:
    """Judge that what runs now and then ended well the last time."""
    return nothing(
        [
            f"{each['unit']} has failed ({each['result']})"
            for each in _ours(seen)
            if each["active"] == "failed" and not each["runs"]
        ]
    )


def checks(settings: Settings) -> list[Check]:
    """Give the checks of what is on disk and of what it runs on."""
    command = disk(settings)

    def check(name: str, expected: str, key: str, fix: str, **more: Any) -> Check:  # noqa: ANN401
        judge = more.pop("judge", nothing)
        return Check(f"host: {name}", "host", expected, command, of(key, judge), fix, **more)

    def directory(path: str, expected: str) -> Check:
        def judge(seen: dict[str, str]) -> Result:
            return Result(seen.get(path) == expected, seen.get(path, "no such directory"))

        return check(
            path,
            expected,
            "directories",
            _MEND,
            judge=judge,
            needs=(WRITABLE,),
            repair=modes(settings),
        )

    def room(least_mib: int) -> Callable[[dict[str, int]], Result]:
        def judge(rooms: dict[str, int]) -> Result:
            words = [f"{mib / 1024:.1f} GiB below {path}" for path, mib in rooms.items()]
            return Result(bool(rooms) and min(rooms.values()) >= least_mib, listed(words))

        return judge

    def memory(seen: dict[str, int]) -> Result:
        words = f"{seen['available']} of {seen['total']} MiB"
        return Result(seen["available"] >= _MEMORY_MIB, words)

    gib = settings.host_disk_min_gib
    full = "host: the disk is not full"
    return [
        check(
            WRITABLE.removeprefix("host: "),
            "no such path",
            "writable",
            f"{_MEND}; or chmod o-w on the paths that are listed",
            repair=modes(settings),
        ),
        *(directory(path, expected) for path, expected in directories(settings).items()),
        check(
            FILES.removeprefix("host: "),
            "what the current release rendered, unchanged",
            "changed",
            f"change settings, not files, and {_AGAIN}",
        ),
        check(
            "modes of files are as rendered",
            "what the current release rendered",
            "modes",
            _MEND,
            needs=(WRITABLE,),
            repair=modes(settings),
        ),
        check(
            "units run",
            "every unit and timer of the release enabled and active",
            "units",
            "systemctl status UNIT; sudo gatehouse doctor --fix starts it again",
            judge=units,
            needs=(FILES,),
            repair=probe("mend", "units"),
        ),
        check(
            JOBS.removeprefix("host: "),
            "no job of a timer has failed",
            "units",
            "journalctl -u UNIT -n 20; then: systemctl start UNIT",
            judge=jobs,
            severity="warning",
            needs=("host: units run",),
            repair=probe("mend", "units"),
        ),
        check(
            full.removeprefix("host: "),
            f"{_FULL_MIB // 1024} GiB free",
            "rooms",
            "docker system df; du -xh --max-depth=2 /var/lib | sort -h | tail",
            judge=room(_FULL_MIB),
        ),
        check(
            "the disk has room",
            f"{gib} GiB free (host_disk_min_gib)",
            "rooms",
            "docker system df; du -xh --max-depth=2 /var/lib | sort -h | tail",
            judge=room(gib * 1024),
            severity="warning",
            needs=(full,),
        ),
        check(
            "memory is left",
            f"{_MEMORY_MIB} MiB available",
            "memory",
            "ps -eo rss,args --sort=-rss | head; lower litellm_workers, or stop an engine",
            judge=memory,
            severity="warning",
        ),
        check(
            "nothing half-made is left",
            "no release or environment that a killed deploy began more than an hour ago",
            "leftovers",
            "sudo gatehouse doctor --fix removes it",
            severity="warning",
            repair=_remove_leftovers(),
        ),
    ]


def _remove_leftovers() -> str:
    """Remove them, unless a deploy still installs: it holds the lock."""
    folders = shlex.join(["/opt/gatehouse/releases", "/opt/gatehouse/venvs"])
    return (
        "exec 9>>/opt/gatehouse/venvs/.lock; flock -n 9 || { echo a deploy is running; exit 1; }\n"
        f"find {folders} -mindepth 1 -maxdepth 1 \\( -name '*.new' -o -name '*.tar' \\) "
        "-mmin +60 -exec rm -rf {} +"
    )
