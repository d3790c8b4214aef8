"""The keys that LiteLLM has, by their aliases; values are not among what it tells."""

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from gatehouse.settings.keys import REPLACED, base
from gatehouse.settings.rules import suggestion
from gatehouse.tool.errors import ProblemError
from gatehouse.tool.here import Gateway

# In a key's metadata: what Gatehouse remembers of it.
MARK = "gatehouse"
NEXT = "@new"
_PAGE = 100
_DAY = 86400
_ID_DIGITS = 12


@dataclass(frozen=True)
class Key:
    """One key; `raw` is all that LiteLLM says of it."""

    token: str
    raw: dict[str, Any]

    @property
    def alias(self) -> str | None:
        """The name that somebody gave it."""
        return self.raw.get("key_alias")

    @property
    def name(self) -> str:
        """The alias, or for a key without one the beginning of its hash."""
        return self.alias or f"#{self.token[:_ID_DIGITS]}"

    @cached_property
    def created(self) -> float | None:
        """When it was made, in seconds since the epoch."""
        return moment(self.raw.get("created_at"))

    @cached_property
    def expires(self) -> float | None:
        """When it ends; None: never."""
        return moment(self.raw.get("expires"))

    @cached_property
    def used(self) -> float | None:
        """When it was last used, as far as that has been written down."""
        return moment(self.raw.get("last_active"))

    @property
    def expired(self) -> bool:
        """Whether LiteLLM refuses it."""
        return self.expires is not None and self.expires <= time.time()

    @property
    def metadata(self) -> dict[str, Any]:
        """What everybody notes on it."""
        return self.raw.get("metadata") or {}

    @property
    def mark(self) -> dict[str, Any]:
        """What Gatehouse notes on it."""
        found = self.metadata.get(MARK)
        return found if isinstance(found, dict) else {}

    @property
    def rotates(self) -> bool:
        """Whether it is marked for rotation."""
        return bool(self.mark.get("rotate"))

    @property
    def days(self) -> int:
        """For how many days keys of this kind are made; 0: for ever."""
        noted = self.mark.get("days")
        if isinstance(noted, int):
            return noted
        if self.expires is None or self.created is None:
            return 0
        return max(1, round((self.expires - self.created) / _DAY))

    @property
    def old(self) -> bool:
        """Whether a rotation has put another in its place, or is about to with it."""
        return bool(self.alias and REPLACED.search(self.alias))

    @property
    def limited(self) -> bool:
        """Whether both of its limits are set."""
        return self.raw.get("rpm_limit") is not None and self.raw.get("tpm_limit") is not None

    def within(self, days: float) -> bool:
        """Whether it ends within so many days, and has not yet."""
        return (
            self.expires is not None
            and not self.expired
            and self.expires - time.time() <= days * _DAY
        )


@dataclass(frozen=True)
class Book:
    """Every key of people and programs; sessions of the web interface are none."""

    keys: list[Key]
    teams: dict[str, str]

    @classmethod
    def read(cls, gateway: Gateway) -> "Book":
        """Ask LiteLLM."""
        keys: list[Key] = []
        page = 1
        while True:
            found = gateway.get("/key/list", return_full_object="true", size=_PAGE, page=page)
            keys += [Key(each["token"], each) for each in found["keys"]]
            if page >= found["total_pages"]:
                break
            page += 1
        return cls(sorted(keys, key=lambda key: key.name), teams(gateway))

    def get(self, alias: str) -> Key | None:
        """Give the key of this alias, or `#` and the beginning of its hash."""
        for key in self.keys:
            if alias == key.alias or (not key.alias and alias == key.name):
                return key
        return None

    def find(self, alias: str) -> Key:
        """Give the key; raises `ProblemError` where there is none."""
        found = self.get(alias)
        if found:
            return found
        close = suggestion(alias, [key.name for key in self.keys])
        raise ProblemError(f"there is no key {alias!r}{close}: gatehouse keys list")

    def predecessors(self, alias: str) -> list[Key]:
        """Give what rotations have put aside, the newest first."""
        found = [k for k in self.keys if k.alias and k.old and base(k.alias) == alias]
        return sorted(found, key=lambda key: str(key.alias), reverse=True)

    def team(self, key: Key) -> str | None:
        """Give the name of the key's team."""
        team = key.raw.get("team_id")
        return self.teams.get(team, team) if team else None

    def team_id(self, name: str) -> str:
        """Give the id of a team by its name; raises `ProblemError`."""
        for each, alias in self.teams.items():
            if name in {each, alias}:
                return each
        close = suggestion(name, list(self.teams.values()))
        raise ProblemError(f"there is no team {name!r}{close}: declare it in keys_teams")


def teams(gateway: Gateway) -> dict[str, str]:
    """Give the teams: id → name."""
    found = gateway.get("/team/list")
    return {each["team_id"]: each.get("team_alias") or each["team_id"] for each in found}


def moment(text: str | None) -> float | None:
    """Read a time as LiteLLM writes it."""
    if not text:
        return None
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def digest(value: str) -> str:
    """Give the hash by which LiteLLM knows a value."""
    return hashlib.sha256(value.encode()).hexdigest()
