"""Virtual keys: ended, about to end, or without limits. Told by alias; values are nowhere."""

from collections.abc import Callable
from typing import Any

from gatehouse.checks.check import Check, Result
from gatehouse.checks.postgres import ANSWERS, database
from gatehouse.checks.probe import of
from gatehouse.settings import Settings

_DAY = 86400
_MOST_NAMES = 5


def checks(settings: Settings) -> list[Check]:
    """Give the checks of the keys; what asks Postgres asks for these, too."""
    command, soon = database(settings), settings.keys_warn_days * _DAY
    return [
        _check(
            command,
            "none has ended",
            "no key that is refused because it ended",
            lambda key: key["left"] is not None and key["left"] <= 0,
            "gatehouse keys list --expired, then gatehouse keys rotate ALIAS or gatehouse keys "
            "prune",
        ),
        _check(
            command,
            "none ends soon",
            f"no key that ends within {settings.keys_warn_days} days",
            lambda key: key["left"] is not None and 0 < key["left"] <= soon,
            f"gatehouse keys list --expiring {settings.keys_warn_days}, then gatehouse keys rotate "
            "ALIAS",
        ),
        _check(
            command,
            "all have limits",
            "no key without a limit of requests or tokens",
            lambda key: not key["limited"],
            "gatehouse keys list, then set rpm and tpm in keys_declared or in the web interface",
        ),
    ]


def _check(
    command: str, name: str, expected: str, wrong: Callable[[dict[str, Any]], bool], fix: str
) -> Check:
    def judge(keys: list[dict[str, Any]]) -> Result:
        found = [key["alias"] for key in keys if wrong(key)]
        if not found:
            return Result(holds=True, found=f"{len(keys)} keys")
        more = len(found) - _MOST_NAMES
        names = ", ".join(found[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
        return Result(holds=False, found=names)

    return Check(
        name=f"keys: {name}",
        component="keys",
        expected=expected,
        command=command,
        judge=of("keys", judge),
        fix=f"sudo {fix}",
        severity="warning",
        needs=(ANSWERS, "litellm: migrations complete"),
    )
