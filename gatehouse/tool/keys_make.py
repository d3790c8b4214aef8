"""Make a key, and give one a new value without a moment in which none works.

LiteLLM's own `/key/regenerate` needs a licence. Here the new key is made beside the old one as
`ALIAS@new`, its value is delivered, then the old one becomes `ALIAS@DATE` with an end, and the new
one takes the alias. Whatever step is the last that happened, clients have a value that works, and
the next rotation goes on from there.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gatehouse.settings import Settings
from gatehouse.tool.errors import ProblemError
from gatehouse.tool.here import Gateway
from gatehouse.tool.keys_book import MARK, NEXT, Book, Key
from gatehouse.tool.keys_deliver import Target, value

# What a key may do and has spent, in the words of LiteLLM's key table.
RIGHTS = (
    *("models", "user_id", "team_id", "max_budget", "budget_duration", "budget_limits"),
    *("rpm_limit", "tpm_limit", "tpd_limit", "max_parallel_requests", "spend", "aliases", "config"),
    *("permissions", "allowed_cache_controls", "allowed_routes", "key_type", "model_max_budget"),
    *("budget_fallbacks", "budget_id", "access_group_ids", "router_settings", "agent_id"),
    *("project_id",),
)
# LiteLLM fills these from default_key_generate_params where they are not given.
_DEFAULTED = ("rpm_limit", "tpm_limit")
_NEVER = "-1"
_DAY = 86400


@dataclass(frozen=True)
class Wish:
    """What a new key is to be: `rights` in LiteLLM's words; 0 days: for ever."""

    rights: dict[str, Any]
    days: int
    rotate: bool

    @property
    def mark(self) -> dict[str, Any]:
        """What is noted on the key."""
        return {"days": self.days} | ({"rotate": True} if self.rotate else {})


def new(gateway: Gateway, alias: str, wish: Wish, target: Target) -> str:
    """Make a key; gives its hash.

    Its value is in the target's hands before any key has it, so that none is lost.
    """
    target.check()
    rights = {**wish.rights, "metadata": {MARK: wish.mark}}
    made = _generate(gateway, alias, rights, wish.days, target)
    target.commit()
    return made


def _generate(
    gateway: Gateway, alias: str, rights: dict[str, Any], days: int, target: Target
) -> str:
    secret = value()
    target.stage(secret)
    body = {name: given for name, given in rights.items() if given is not None}
    body |= {"key": secret, "key_alias": alias}
    if days:
        body["duration"] = f"{days}d"
    token = str(gateway.post("/key/generate", body)["token"])
    # None means no limit, and no end: LiteLLM has put its defaults there.
    changes: dict[str, Any] = {
        name: None for name in _DEFAULTED if name in rights and rights[name] is None
    }
    if not days:
        changes["duration"] = _NEVER
    if changes:
        gateway.post("/key/update", {"key": token, **changes})
    return token


def limits(settings: Settings, rpm: int | None, tpm: int | None) -> dict[str, int]:
    """Give the limits of a new key."""
    return {"rpm_limit": rpm or settings.keys_rpm, "tpm_limit": tpm or settings.keys_tpm}


def rotate(gateway: Gateway, book: Book, alias: str, overlap: int, target: Target) -> str:
    """Give a key a new value; gives what happened, in words.

    The old value works for `overlap` seconds more, but never beyond its own end. Raises
    `ProblemError` where there is no such key, or where it is blocked.
    """
    target.check()
    staged = book.get(f"{alias}{NEXT}")
    current = book.get(alias)
    if staged and target.holds(staged.token):
        # Broken off after the delivery: who has the new value is right to use it.
        _switch(gateway, alias, current, staged, overlap)
        return "finished the rotation that was broken off"
    if staged:
        # Its value is not where this one is to go. Should somebody have it all the same, it ends
        # like any old one.
        _aside(gateway, alias, staged, overlap, seconds_ago=1)
    if current is None and staged:
        current = _restore(gateway, book, alias)
    if current is None:
        current = book.find(alias)
    if current.old or not current.alias:
        raise ProblemError(
            f"{alias} cannot be rotated: "
            + ("it is an old one itself" if current.old else "it has no alias")
        )
    if current.raw.get("blocked"):
        raise ProblemError(f"{alias} is blocked: let it in again first, or revoke it")
    rights = {name: current.raw.get(name) for name in RIGHTS}
    rights["organization_id"] = current.raw.get("org_id")
    rights["metadata"] = current.metadata
    permission = current.raw.get("object_permission")
    if isinstance(permission, dict):
        rights["object_permission"] = {
            name: given
            for name, given in permission.items()
            if name != "object_permission_id" and given
        }
    token = _generate(gateway, f"{alias}{NEXT}", rights, current.days, target)
    target.commit()
    _switch(gateway, alias, current, Key(token, {}), overlap)
    return "rotated"


def _switch(
    gateway: Gateway, alias: str, current: Key | None, following: Key, overlap: int
) -> None:
    """Let the old one end, and the new one have the alias."""
    if current:
        mark = {"replaced": True, "until": current.expires, "was": current.mark}
        _aside(gateway, alias, current, overlap, mark=mark)
    gateway.post("/key/update", {"key": following.token, "key_alias": alias})


def _aside(  # noqa: PLR0913 - two have defaults
    gateway: Gateway,
    alias: str,
    key: Key,
    overlap: int,
    *,
    mark: dict[str, Any] | None = None,
    seconds_ago: int = 0,
) -> None:
    """Name a key after the time, and let it end."""
    # LiteLLM refuses an alias that is there: two rotations may fall into one second.
    stamp = datetime.fromtimestamp(time.time() - seconds_ago, UTC).strftime("%Y%m%d-%H%M%S.%f")
    changes: dict[str, Any] = {
        "key_alias": f"{alias}@{stamp}",
        "metadata": {**key.metadata, MARK: mark or {}},
    }
    if key.expires is None or key.expires > time.time() + overlap:
        changes["duration"] = f"{max(1, overlap)}s"
    gateway.post("/key/update", {"key": key.token, **changes})


def _restore(gateway: Gateway, book: Book, alias: str) -> Key | None:
    """Give the key back its alias and its end, whose successor's value nobody has."""
    old = next((key for key in book.predecessors(alias) if key.mark.get("replaced")), None)
    if old is None:
        return None
    until = old.mark.get("until")
    metadata = {**old.metadata, MARK: old.mark.get("was") or {}}
    left = _NEVER if until is None else f"{max(1, int(until - time.time()))}s"
    body = {"key": old.token, "key_alias": alias, "duration": left, "metadata": metadata}
    gateway.post("/key/update", body)
    raw = {**old.raw, "key_alias": alias, "metadata": metadata}
    raw["expires"] = None if until is None else datetime.fromtimestamp(until, UTC).isoformat()
    return Key(old.token, raw)
