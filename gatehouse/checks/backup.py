"""Backups: made, whole, and seen to come back; and restores that were not broken off.

What is missing on a host that is new is not due yet. None of these fails a deploy: a deploy makes
no backup, and a host that was off for a week has to be deployed to.
"""

from collections.abc import Callable
from typing import Any

from gatehouse.checks.check import Check, Result
from gatehouse.checks.postgres import ANSWERS
from gatehouse.checks.probe import listed, of, probe
from gatehouse.settings import Settings

_HOUR, _DAY = 3600, 86400
_MIB = 2**20
# A part is read with every backup; one that is missed is made good by the next.
_VERIFY_DAYS = 3
# So long the operator has time to keep the password elsewhere.
_SHOWN_DAYS = 7

UNFINISHED = "backup: no restore was broken off"

Known = dict[str, Any]


def known(settings: Settings) -> str:
    """Give the command that looks at what is remembered."""
    return probe("backup", settings.backup_repository if settings.backup_local else "")


def made(limit_hours: int) -> Callable[[Known], Result]:
    """Judge that the last backup was good, and is not too old."""

    def judge(seen: Known) -> Result:
        good, last = seen["backup"].get("good"), seen["backup"].get("last") or {}
        if last and not last["ok"]:
            return _failed("it failed", last, seen["now"])
        if not good:
            left = seen["since"] + limit_hours * _HOUR - seen["now"]
            return Result(left > 0, f"none yet, due in {_span(left)}" if left > 0 else "none yet")
        age = seen["now"] - good["at"]
        return Result(age <= limit_hours * _HOUR, f"{good['snapshot']}, {_span(age)} ago")

    return judge


def verified(seen: Known) -> Result:
    """Judge that what is in the repository could be read."""
    last, first = seen["backup"].get("verify") or {}, seen["backup"].get("first")
    if last and not last["ok"]:
        return _failed("it is damaged", last, seen["now"])
    since = last.get("at", first)
    if since is None:
        return Result(holds=True, found="no backup yet")
    age = seen["now"] - since
    return Result(age <= _VERIFY_DAYS * _DAY, f"last read {_span(age)} ago")


def drilled(limit_days: int) -> Callable[[Known], Result]:
    """Judge that the last drill was good, and is not too old."""

    def judge(seen: Known) -> Result:
        good, last = seen["drill"].get("good"), seen["drill"].get("last") or {}
        first = seen["backup"].get("first")
        if last and not last["ok"]:
            return _failed("it did not come back", last, seen["now"])
        if good:
            age = seen["now"] - good["at"]
            words = f"{good['snapshot']} came back in {good['seconds']:.0f} s, {_span(age)} ago"
            return Result(age <= limit_days * _DAY, words)
        if first is None:
            return Result(holds=True, found="no backup yet")
        left = first + limit_days * _DAY - seen["now"]
        return Result(left > 0, f"none yet, due in {_span(left)}" if left > 0 else "none yet")

    return judge


def there(seen: Known) -> Result:
    """Judge that the repository is where backups were made."""
    repository = seen["backup"].get("repository") or {}
    if not repository:
        return Result(holds=True, found="made by the first backup")
    return Result(seen["there"], repository["location"] + ("" if seen["there"] else " is gone"))


def shown(seen: Known) -> Result:
    """Judge that the operator has seen the password, once there was time to."""
    backup = seen["backup"]
    first = backup.get("first")
    if backup.get("shown") or first is None:
        return Result(holds=True, found="shown" if backup.get("shown") else "no backup yet")
    return Result(seen["now"] - first < _SHOWN_DAYS * _DAY, "never shown")


def taken_back(seen: str) -> Result:
    """Judge that no restore waits to be taken back."""
    return Result(seen != "broken off", seen)


def none_aside(seen: list[Known]) -> Result:
    """Judge that no database takes room that a way back has put aside."""
    found = listed([f"{each['name']} ({each['bytes'] / _MIB:.0f} MiB)" for each in seen])
    return Result(not seen, found or "none")


def _failed(what: str, last: Known, now: float) -> Result:
    return Result(holds=False, found=f"{what} {_span(now - last['at'])} ago: {last['error']}")


def _span(seconds: float) -> str:
    seconds = max(0.0, seconds)
    if seconds < 2 * _HOUR:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / _HOUR:.0f} h" if seconds < 2 * _DAY else f"{seconds / _DAY:.0f} days"


def checks(settings: Settings) -> list[Check]:
    """Give the checks of restores, and those of backups where they are made."""
    command = known(settings)
    restores = _restores(command)
    if not settings.backup_enabled:
        return restores
    place = "backup: the repository is there"

    def check(  # noqa: PLR0913 - what a check is made of
        name: str,
        expected: str,
        judge: Callable[[Known], Result],
        fix: str,
        *,
        needs: tuple[str, ...] = (),
        repair: str | None = None,
    ) -> Check:
        return Check(
            name=f"backup: {name}",
            component="backup",
            expected=expected,
            command=command,
            judge=of("backup", judge),
            fix=fix,
            needs=needs,
            repair=repair,
            past=True,
        )

    return [
        check(
            place.removeprefix("backup: "),
            settings.backup_repository if settings.backup_local else "known, or elsewhere",
            there,
            "mount its disk or put it back; to begin another: sudo gatehouse backup now "
            "--begin-anew",
        ),
        check(
            "the last one is good and new",
            f"one that is no older than {settings.backup_age_hours} h (backup_age_hours)",
            made(settings.backup_age_hours),
            "sudo gatehouse backup now says why; journalctl -u gatehouse-backup",
            needs=(place,),
            repair="gatehouse backup now",
        ),
        check(
            "what it holds can be read",
            f"a part of the repository read within {_VERIFY_DAYS} days, undamaged",
            verified,
            "sudo gatehouse backup verify --all; a damaged repository: move it away, then sudo "
            "gatehouse backup now --begin-anew",
            needs=(place,),
        ),
        check(
            "it comes back",
            f"a good drill within {settings.backup_drill_age_days} days (backup_drill_age_days)",
            drilled(settings.backup_drill_age_days),
            "sudo gatehouse drill says why",
            needs=(place, "backup: what it holds can be read"),
        ),
        Check(
            name="backup: its password is kept elsewhere",
            component="backup",
            expected=f"shown to somebody within {_SHOWN_DAYS} days",
            command=command,
            judge=of("backup", shown),
            fix="sudo gatehouse backup password, and keep it off this host",
            severity="warning",
        ),
        *restores,
    ]


def _restores(command: str) -> list[Check]:
    """Give the checks of what a restore has left, which may be one of another host's repository."""
    return [
        Check(
            name=UNFINISHED,
            component="backup",
            expected="none, or the state from before it serves again",
            command=command,
            judge=of("restore", taken_back),
            fix="sudo gatehouse restore --recover; to stay with what serves now: docs/backup.md",
            past=True,
        ),
        Check(
            name="backup: no database was put aside",
            component="backup",
            expected="none that served before a restore was taken back",
            command=command,
            judge=of("aside", none_aside),
            fix="docs/backup.md says how to look into it and how to remove it",
            severity="warning",
            needs=(ANSWERS, UNFINISHED),
        ),
    ]
