"""What `gatehouse engine … --json` and `gatehouse models list --json` print, for their schemas.

The commands print plain values, because they start in a tenth of the time without pydantic; tests
hold the values against these.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class EngineRow(_Row):
    """One engine."""

    name: str
    state: str = Field(description="asleep, loading, awake, leaving, refused or failed.")
    since: float | None = Field(description="In this state since, seconds since the epoch.")
    reason: str = Field(description="Why it was refused or failed; else empty.")
    port: int
    pool: str = Field(description="The memory that it takes from: a card, or the host's.")
    need_mib: int | None = Field(description="None: all there is, as nobody has measured it yet.")
    measured_mib: int | None = Field(description="Most that it was seen to take.")
    load_seconds: float | None = Field(description="How long it last took to load.")
    idle_seconds: float | None = Field(description="How long nobody has used it, while awake.")
    idle_limit_seconds: float = Field(description="After this long it is stopped.")
    connections: int
    models: list[str] = Field(description="Names that clients ask for.")


class Claim(_Row):
    """What one engine holds of a memory, or has been promised."""

    name: str
    state: str
    need_mib: int
    used_mib: int
    connections: int
    always: bool = Field(description="It is never stopped for another.")
    last_use: float = Field(description="Seconds since the epoch.")
    mib: int = Field(description="What cannot be given to another.")
    doing: str


class Foreign(_Row):
    """A process of somebody else that holds memory."""

    pid: int
    name: str
    mib: int


class Sleeper(_Row):
    """What would happen if an engine that sleeps were asked now."""

    name: str
    need_mib: int | None
    decision: Literal["fits", "evicts", "refused"]
    evicts: list[str] = Field(description="Engines that would be stopped for it.")
    reason: str = Field(description="Why it would be refused; else empty.")


class Pool(_Row):
    """A memory and who holds it."""

    pool: str
    total_mib: int
    used_mib: int
    foreign_mib: int
    reserve_mib: int = Field(description="Kept free (gpu_reserve_mib).")
    free_mib: int
    engines: list[Claim]
    others: list[Foreign]
    asleep: list[Sleeper]


class BrokenPool(_Row):
    """A memory that could not be measured."""

    pool: str
    error: str


class ModelFile(_Row):
    """A file that an engine loads."""

    file: str = Field(description="Below models_dir.")
    state: str
    size: int | None = Field(description="Bytes.")
    verified: str | None = Field(description="When its checksum was last right, ISO 8601.")
    licence: str | None
    repository: str | None
    sha256: str | None
    engines: list[str]


class EngineList(RootModel[list[EngineRow]]):
    """What `gatehouse engine list --json` prints."""


class EnginePlan(RootModel[list[Pool | BrokenPool]]):
    """What `gatehouse engine plan --json` prints."""


class ModelsList(RootModel[list[ModelFile]]):
    """What `gatehouse models list --json` prints."""
