"""The one document that root's collector writes and that everything else here reads.

No secret is in it, and no value of a key: keys are named by their aliases.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

FILE = Path("/run/gatehouse/health/status.json")
STALE_AFTER = 3

State = Literal["ok", "warning", "failure", "hushed"]


class Part(BaseModel):
    """A part of the document; what a newer writer adds is passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Summary(Part):
    """How many checks there are of each state."""

    ok: int = 0
    warnings: int = 0
    failures: int = 0
    hushed: int = 0


class Checked(Part):
    """One check with what was found."""

    name: str
    component: str
    expected: str
    found: str
    state: State
    severity: Literal["failure", "warning"]
    because: list[str] | None = Field(
        default=None, description="Failed checks that this one follows from."
    )
    fix: str
    repair: bool = Field(default=False, description="Whether `gatehouse doctor --fix` mends it.")


class Status(Part):
    """The document of `gatehouse status`."""

    checked: float = Field(description="When, in seconds since the epoch.")
    seconds: float = Field(description="How long it took.")
    summary: Summary
    checks: list[Checked]


class Engine(Part):
    """A local model's engine."""

    name: str
    state: str = Field(description="asleep, loading, awake, leaving, refused or failed.")
    since: float | None = None
    reason: str = ""
    pool: str
    need_mib: int | None = None
    load_seconds: float | None = None
    idle_seconds: float | None = None
    idle_limit_seconds: float | None = None
    connections: int = 0
    models: list[str] = []


class Holder(Part):
    """Who holds memory of a pool."""

    name: str
    mib: int


class Pool(Part):
    """A memory that engines take from: a card's, or the host's."""

    name: str
    total_mib: int = 0
    used_mib: int = 0
    reserve_mib: int = 0
    engines: list[Holder] = []
    error: str | None = None


class Hour(Part):
    """What was asked in one hour."""

    start: float
    requests: int
    failed: int


class ModelUse(Part):
    """What was asked of one model."""

    model: str
    requests: int
    failed: int
    tokens: int
    spend: float


class Usage(Part):
    """Requests and spend of the last day, those of the self-test model left out."""

    requests: int
    failed: int
    tokens: int
    spend: float
    hours: list[Hour]
    models: list[ModelUse]


class Key(Part):
    """A key by its alias."""

    alias: str
    expires: float | None = None


class Keys(Part):
    """Keys that somebody should look at, as `gatehouse keys check` found them."""

    written: float
    total: int | None = None
    expired: list[Key] = []
    expiring: list[Key] = []
    unlimited: list[Key] = []


class Action(Part):
    """A line of the audit log."""

    at: float
    who: str
    action: str
    result: str


class Actions(Part):
    """The audit log in short: how many lines of each result, and the last ones."""

    counts: dict[str, int]
    last: list[Action]


class Timer(Part):
    """A timer of ours and how what it starts ended last."""

    unit: str
    last: float | None
    next: float | None
    result: str = Field(
        description="ok, problem found, failed, running, not yet; off: it will not run again."
    )


class Job(Part):
    """A result that another command keeps: that of smoke, probe, inventory or knowledge."""

    name: str
    written: float
    ok: bool | None = None
    words: str = ""


class Space(Part):
    """A resource of the host."""

    name: Literal["memory", "disk"]
    total_mib: int
    used_mib: int
    where: str = ""


class Backups(Part):
    """What is known of backups and of drills; null: it never happened."""

    limit_seconds: float = Field(description="How old the last good one may be.")
    good: float | None = Field(default=None, description="When the last good one was made.")
    seconds: float | None = Field(default=None, description="How long that took.")
    dump_bytes: int | None = Field(default=None, description="Size of its dump.")
    ok: bool | None = Field(default=None, description="Whether the last try was good.")
    error: str = Field(default="", description="Why it was not.")
    snapshots: int | None = None
    bytes: int | None = Field(default=None, description="What the repository takes.")
    verified: float | None = Field(default=None, description="When it was last read.")
    whole: bool | None = Field(default=None, description="Whether it could be.")
    drilled: float | None = Field(default=None, description="When one last came back.")
    drill_seconds: float | None = Field(default=None, description="How long that took.")
    drill_ok: bool | None = Field(default=None, description="Whether the last drill was good.")
    drill_error: str = Field(default="", description="Why it was not.")


class Told(Part):
    """What the alerts' unit last did."""

    to: str = Field(description="Where alerts go, without what is secret in it.")
    last: float | None = None
    firing: int = 0
    trouble: str | None = None


class Document(Part):
    """What the page, the metrics and the alerts are made of.

    A part that is null could not be read; `troubles` says why, by the part's name.
    """

    version: Literal[1] = 1
    host: str
    gatehouse: str = Field(description="Version of Gatehouse.")
    release: str | None = Field(default=None, description="Id of the release that runs.")
    release_since: float | None = None
    gathered: float = Field(description="When, in seconds since the epoch.")
    seconds: float = Field(description="How long it took.")
    interval_seconds: int
    status: Status | None = None
    engines: list[Engine] | None = None
    pools: list[Pool] = []
    spaces: list[Space] = []
    usage: Usage | None = None
    keys: Keys | None = None
    actions: Actions | None = None
    timers: list[Timer] | None = None
    jobs: list[Job] = []
    backups: Backups | None = Field(default=None, description="null: they are switched off.")
    alerts: Told | None = None
    troubles: dict[str, str] = {}

    def stale(self, now: float) -> bool:
        """Tell whether the collector has missed its time again and again."""
        return now - self.gathered > STALE_AFTER * self.interval_seconds


class Missing(Exception):  # noqa: N818 - a state of affairs
    """There is no document that can be read; the message says why and what to do."""


def read(file: Path = FILE) -> Document:
    """Give the document; raises `Missing`."""
    return parse(raw(file), file)


def raw(file: Path = FILE) -> bytes:
    """Give its bytes; raises `Missing`."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise Missing(
            f"nothing was gathered yet: systemctl status gatehouse-collect ({file} is missing)"
        ) from None
    except OSError as error:
        raise Missing(f"{file} cannot be read: {error.strerror}") from None


def parse(content: bytes, file: Path = FILE) -> Document:
    """Read the document's bytes; raises `Missing`."""
    try:
        return Document.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = "/".join(map(str, first["loc"])) or "its beginning"
        raise Missing(
            f"{file} is damaged or of another version, at {place}: {first['msg']}; "
            "systemctl start gatehouse-collect writes it anew"
        ) from None


def write(document: Document, file: Path = FILE) -> None:
    """Replace the document in one step, readable for the folder's group."""
    handle, new = tempfile.mkstemp(dir=file.parent, prefix=".status-")
    try:
        with os.fdopen(handle, "w") as target:
            json.dump(document.model_dump(mode="json"), target, separators=(",", ":"))
        os.chown(new, -1, file.parent.stat().st_gid)
        Path(new).chmod(0o640)
        Path(new).replace(file)
    except BaseException:
        Path(new).unlink(missing_ok=True)
        raise
