"""What an engine was seen to need in its last run."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from gatehouse.engines.config import Engine
from gatehouse.engines.state import write

# These load models after they are up, so that what they hold at one moment is not their need.
LAZY = ("ollama", "openai")


@dataclass(frozen=True)
class Measured:
    """The most memory of a run, how long it took to load, and what it was a run of.

    `given` (the setting's memory) and `config` (Compose's hash of the service) say whether the
    figure is still about the same engine: one with a smaller context must not be refused for ever
    because of what it needed before.
    """

    memory_mib: int
    load_seconds: float
    at: float
    given: int | None = None
    config: str | None = None


def read(folder: Path, name: str) -> Measured | None:
    """Give the figures of the last run, if there are any."""
    try:
        found = json.loads((folder / f"{name}.json").read_text())
        return Measured(
            memory_mib=int(found["memory_mib"]),
            load_seconds=float(found["load_seconds"]),
            at=float(found["at"]),
            given=found.get("given"),
            config=found.get("config"),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def record(folder: Path, name: str, measured: Measured) -> None:
    """Keep the figures for the next start."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    write(folder / f"{name}.json", asdict(measured))


def forget(folder: Path, name: str) -> None:
    """Drop the figures: a start with them failed, and too little memory may have been why."""
    (folder / f"{name}.json").unlink(missing_ok=True)


def need(
    engine: Engine, measured: Measured | None, models_dir: Path, config: str | None = None
) -> int | None:
    """Give the memory to set aside for a start, in MiB; None when nobody can know it yet."""
    given = engine.memory_mib
    if measured and measured.memory_mib > 0:
        changed = measured.given != given or (config and config != measured.config)
        if not changed or given is None:
            lazy = engine.kind in LAZY
            return max(measured.memory_mib, given or 0) if lazy else measured.memory_mib
    if given is not None:
        return given
    if engine.file:
        size = _size(models_dir / engine.file)
        if size is None:
            return None
        # The weights as they are on disk, a fifth for context and buffers, half a GiB for the rest.
        return round(size * 1.2 / 2**20) + 512
    return 0 if engine.device == "cpu" else None


def _size(path: Path) -> int | None:
    """Give the size of a file, or of all files of a folder; None when it cannot be read."""
    try:
        if not path.is_dir():
            return path.stat().st_size
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    except OSError:
        return None
