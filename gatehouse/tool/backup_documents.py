"""What `gatehouse backup`, `restore` and `drill` print with --json."""

from pydantic import BaseModel, Field


class Snapshot(BaseModel):
    """One snapshot: database, configuration and secrets of one moment."""

    id: str = Field(description="restic's short id, for `gatehouse restore`")
    made: str = Field(description="when, ISO 8601")
    tags: list[str] = Field(
        description="gatehouse: a regular one; before-restore: what was there before a restore; "
        "machine-…: which host made it"
    )
    of_another: bool = Field(description="whether another host made it")


class BackupList(BaseModel):
    """What `gatehouse backup list` shows."""

    repository: str = Field(description="where they are")
    bytes: int | None = Field(description="what the repository takes, when it was last measured")
    snapshots: list[Snapshot] = Field(description="the oldest first")


class BackupMade(BaseModel):
    """What `gatehouse backup now` has made."""

    snapshot: str = Field(description="restic's short id")
    seconds: float = Field(description="how long the snapshot took, from the dump on")
    dump_bytes: int = Field(description="size of the database's dump")
    added_bytes: int = Field(description="what the repository has grown by, before it is packed")
    rows: dict[str, int] = Field(description="rows in the dump, by what they are")


class BackupVerified(BaseModel):
    """What `gatehouse backup verify` has read."""

    part: int | None = Field(description="the part of seven that was read; null: all data")
    seconds: float = Field(description="how long it took")


class BackupPruned(BaseModel):
    """What `gatehouse backup prune` has left."""

    snapshots: int = Field(description="how many are left")
    bytes: int = Field(description="what the repository takes now")


class Restored(BaseModel):
    """What `gatehouse restore` has done."""

    snapshot: str = Field(description="restic's short id")
    seconds: float = Field(description="how long it took")
    data_seconds: float = Field(
        description="how long it took to fetch the data and to have them in force"
    )
    downtime_seconds: float = Field(description="how long nobody was served")
    rows: dict[str, int] = Field(description="rows that came back, by what they are")
    secrets: list[str] = Field(description="secrets that came back with it")
    saved: str | None = Field(description="the snapshot of what was there before")


class DrillDone(BaseModel):
    """What `gatehouse drill` has found."""

    snapshot: str = Field(description="restic's short id")
    made: float = Field(description="when it was made, in seconds since the epoch")
    seconds: float = Field(description="how long it took to have the data back")
    rows: dict[str, int] = Field(description="rows that came back, the same as in the manifest")
    credentials: int = Field(description="stored credentials that the saved salt key opens")
