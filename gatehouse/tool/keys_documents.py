"""What `gatehouse keys … --json` prints. No value of a key but that of one just made, once."""

from pydantic import BaseModel, ConfigDict, Field

from gatehouse.tool.keys_book import Book, Key


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Row(_Document):
    """One key."""

    alias: str | None = Field(description="Its name; null: nobody gave it one.")
    id: str = Field(description="Beginning of its hash; says nothing about its value.")
    team: str | None = Field(description="Name of the team that it belongs to.")
    user: str | None = Field(description="User that it belongs to.")
    created: float | None = Field(description="When it was made, seconds since the epoch.")
    expires: float | None = Field(description="When it ends; null: never.")
    used: float | None = Field(description="When it was last used; null: never, or not noted yet.")
    spend: float = Field(description="What was spent with it in its budget's period, US dollars.")
    budget: float | None = Field(description="Most that may be spent; null: no budget.")
    budget_period: str | None = Field(description="After which the spend counts from zero.")
    rpm: int | None = Field(description="Requests a minute; null: no limit.")
    tpm: int | None = Field(description="Tokens a minute; null: no limit.")
    models: list[str] = Field(description="Models that it may ask; empty: all.")
    rotate: bool = Field(description="Marked for rotation.")
    replaced: bool = Field(description="A rotation has put another in its place.")
    state: str = Field(description="active, expired or blocked.")


class KeyList(_Document):
    """`gatehouse keys list --json`."""

    keys: list[Row]


class Made(_Document):
    """`gatehouse keys new --json` and `gatehouse keys rotate ALIAS --json`."""

    alias: str
    done: str = Field(description="made, rotated, or what was finished.")
    to: str = Field(description="File that holds the value, or standard output.")
    key: str | None = Field(description="The value, where no file was named; else null.")


class Removed(_Document):
    """`gatehouse keys revoke --json` and `gatehouse keys prune --json`."""

    removed: list[str] = Field(description="Aliases of the keys that are no more.")


class Ending(_Document):
    """A key that ends soon."""

    alias: str
    expires: float = Field(description="When, in seconds since the epoch.")


class Failure(_Document):
    """A key that could not be rotated."""

    alias: str
    problem: str


class Summary(_Document):
    """`gatehouse keys check --json`, and state/keys.json (with `written` added)."""

    total: int = Field(description="How many keys there are, old ones of rotations aside.")
    expired: list[str] = Field(description="Aliases of keys that are refused.")
    expiring: list[Ending] = Field(description="Keys that end within keys_warn_days.")
    unlimited: list[str] = Field(description="Keys without a limit of requests or of tokens.")
    rotated: list[str] = Field(description="Keys that this run gave a new value.")
    failed: list[Failure] = Field(description="Keys that were due and could not be rotated.")


class Declared(_Document):
    """`gatehouse keys declare --json`."""

    changes: list[str] = Field(description="What was done, or with --plan would be.")
    reports: list[str] = Field(description="What only a person can set right.")
    left: list[str] = Field(description="What is no longer declared, and is left alone.")


def row(book: Book, key: Key) -> Row:
    """Describe a key."""
    raw = key.raw
    state = "expired" if key.expired else "blocked" if raw.get("blocked") else "active"
    return Row(
        alias=key.alias,
        id=key.token[:12],
        team=book.team(key),
        user=raw.get("user_id"),
        created=key.created,
        expires=key.expires,
        used=key.used,
        spend=raw.get("spend") or 0.0,
        budget=raw.get("max_budget"),
        budget_period=raw.get("budget_duration"),
        rpm=raw.get("rpm_limit"),
        tpm=raw.get("tpm_limit"),
        models=raw.get("models") or [],
        rotate=key.rotates,
        replaced=key.old,
        state=state,
    )


def summary(book: Book, warn_days: int, rotated: list[str], failed: list[Failure]) -> Summary:
    """Sum up what people should know of their keys; old ones of a rotation end as they should."""
    ours = [key for key in book.keys if not key.old]
    return Summary(
        total=len(ours),
        expired=[key.name for key in ours if key.expired],
        expiring=[
            Ending(alias=key.name, expires=key.expires)
            for key in ours
            if key.expires is not None and key.within(warn_days)
        ],
        unlimited=[key.name for key in ours if not key.limited],
        rotated=rotated,
        failed=failed,
    )
