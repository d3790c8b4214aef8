"""Keys: what a new one may do, and the teams, users and keys that a deploy makes and keeps."""

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gatehouse.settings.field import Component, setting

# An alias names a file, too. What a rotation renames, and what it makes, ends in @… (below).
NAME = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$"
PERIOD = r"^[1-9]\d{0,3}(s|m|h|d|mo)$"
# LiteLLM's own words for sets of models.
SPECIAL_MODELS = ("all-team-models", "all-proxy-models", "no-default-models")
REPLACED = re.compile(r"@(new|\d{8}-\d{6}(\.\d{6})?)$")

Role = Literal["internal_user", "internal_user_viewer", "proxy_admin", "proxy_admin_viewer"]


class _Limited(BaseModel):
    """What teams, users and keys have in common: models, a budget, limits."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    models: Annotated[
        list[str],
        Field(description="Models and aliases that may be asked; empty: all that are offered."),
    ] = []
    budget: Annotated[
        float | None,
        Field(description="Most that may be spent in budget_period, in US dollars.", ge=0, le=1e9),
    ] = None
    budget_period: Annotated[
        str | None,
        Field(
            description="After which the spend counts from zero again: 1d, 7d, 30d, 1mo. None: "
            "never.",
            pattern=PERIOD,
        ),
    ] = None
    rpm: Annotated[int | None, Field(description="Requests a minute.", ge=1, le=1000000)] = None
    tpm: Annotated[int | None, Field(description="Tokens a minute.", ge=1, le=1000000000)] = None

    @model_validator(mode="after")
    def _budget(self) -> Self:
        if self.budget_period and self.budget is None:
            raise ValueError("budget_period is that of a budget: give budget too")
        return self


class Team(_Limited):
    """One entry of `keys_teams`: keys that share a budget and limits."""

    name: Annotated[
        str, Field(description="Name, by which users and keys refer to it.", pattern=NAME)
    ]


class User(_Limited):
    """One entry of `keys_users`: a person, whose keys share a budget and limits."""

    name: Annotated[str, Field(description="LiteLLM's user id.", pattern=NAME)]
    email: Annotated[
        str | None, Field(description="Mail address.", pattern=r"^\S+@\S+\.\S+$|^\S+@localhost$")
    ] = None
    role: Annotated[
        Role, Field(description="What the person may do in LiteLLM's web interface.")
    ] = "internal_user"
    teams: Annotated[list[str], Field(description="Teams that the person is a member of.")] = []


class DeclaredKey(_Limited):
    """One entry of `keys_declared`: a key whose value is in /etc/gatehouse/keys/ALIAS."""

    alias: Annotated[str, Field(description="Name of the key.", pattern=NAME)]
    team: Annotated[str | None, Field(description="Team that it belongs to.")] = None
    user: Annotated[str | None, Field(description="User that it belongs to.")] = None
    days: Annotated[
        int | None,
        Field(description="How long it is valid; 0: for ever. None: keys_days.", ge=0, le=3650),
    ] = None
    rotate: Annotated[
        bool,
        Field(description="Give it a new value before it expires (gatehouse-keys.timer)."),
    ] = False


class KeysSettings(Component):
    """Virtual keys: limits, how long they live, and who has one."""

    keys_rpm: Annotated[
        int,
        setting("Default limit of a new virtual key.", unit="requests/minute", ge=1, le=1000000),
    ]
    keys_tpm: Annotated[
        int,
        setting("Default limit of a new virtual key.", unit="tokens/minute", ge=1, le=1000000000),
    ]
    keys_days: Annotated[
        int,
        setting("How long a new key is valid; 0: for ever.", unit="days", ge=0, le=3650),
    ]
    keys_warn_days: Annotated[
        int,
        setting("How long before its end a key is reported.", unit="days", ge=0, le=365),
    ]
    keys_rotate_before_days: Annotated[
        int,
        setting(
            "How long before its end a key that is marked for rotation is rotated.",
            unit="days",
            ge=1,
            le=365,
        ),
    ]
    keys_overlap_hours: Annotated[
        int,
        setting(
            "How long the old value of a rotated key still works, never beyond its own end.",
            unit="hours",
            ge=0,
            le=8760,
        ),
    ]
    keys_teams: Annotated[
        list[Team], setting("Teams that a deploy makes and keeps as they are here.")
    ]
    keys_users: Annotated[
        list[User], setting("Users that a deploy makes and keeps as they are here.")
    ]
    keys_declared: Annotated[
        list[DeclaredKey],
        setting(
            "Keys that a deploy makes and keeps as they are here; their values are made on the "
            "host, in /etc/gatehouse/keys/ALIAS, for root only."
        ),
    ]


def base(alias: str) -> str:
    """Give the alias under which a key was known before a rotation renamed it."""
    return REPLACED.sub("", alias)
