"""Virtual keys: ended, about to end, or without limits. Told by alias; values are nowhere."""

import json
from collections.abc import Callable
from typing import Any

from gatehouse.checks.check import Check, Result
from gatehouse.settings import Settings

# Keys of people and programs: no session of the web interface, and none that a rotation replaced.
_PROBE = """docker exec -i gatehouse-postgres-1 psql -U litellm -d litellm -XAtq <<'SQL'
SELECT json_build_object('keys', coalesce(json_agg(json_build_object(
    'alias', coalesce(key_alias, '#' || left(token, 12)),
    'left', extract(epoch FROM expires - (now() AT TIME ZONE 'UTC')),
    'limited', rpm_limit IS NOT NULL AND tpm_limit IS NOT NULL) ORDER BY key_alias), '[]'::json))
FROM "LiteLLM_VerificationToken"
WHERE (team_id IS NULL OR team_id <> 'litellm-dashboard')
    AND (key_alias IS NULL OR key_alias !~ '@(new|[0-9]{8}-[0-9]{6})$')
SQL"""
_DAY = 86400
_MOST_NAMES = 5


def checks(settings: Settings) -> list[Check]:
    """Give the checks of the keys; all ask the database once."""
    soon = settings.keys_warn_days * _DAY
    return [
        _check(
            "none has ended",
            "no key that is refused because it ended",
            lambda key: key["left"] is not None and key["left"] <= 0,
            "gatehouse keys list --expired, then gatehouse keys rotate ALIAS or gatehouse keys "
            "prune",
        ),
        _check(
            "none ends soon",
            f"no key that ends within {settings.keys_warn_days} days",
            lambda key: key["left"] is not None and 0 < key["left"] <= soon,
            f"gatehouse keys list --expiring {settings.keys_warn_days}, then gatehouse keys rotate "
            "ALIAS",
        ),
        _check(
            "all have limits",
            "no key without a limit of requests or tokens",
            lambda key: not key["limited"],
            "gatehouse keys list, then set rpm and tpm in keys_declared or in the web interface",
        ),
    ]


def _check(name: str, expected: str, wrong: Callable[[dict[str, Any]], bool], fix: str) -> Check:
    def judge(code: int, output: str) -> Result:
        try:
            keys = json.loads(output)["keys"] if code == 0 else None
        except (ValueError, TypeError, KeyError):
            keys = None
        if keys is None:
            return Result(holds=False, found=output.strip()[:200] or f"nothing (exit code {code})")
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
        command=_PROBE,
        judge=judge,
        fix=f"sudo {fix}",
        severity="warning",
        needs=("postgres: healthy", "litellm: migrations done"),
    )
