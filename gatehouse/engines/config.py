"""The engines of this host, as the deploy wrote them down."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gatehouse.engines.errors import EngineError, UnknownEngineError

VERSION = 1


@dataclass(frozen=True)
class Engine:
    """One model server and the rules for its life."""

    name: str
    kind: str
    port: int
    backend: str
    health: str
    container: str | None
    device: str
    gpu_index: int
    memory_mib: int | None
    file: str | None
    idle_seconds: int
    load_seconds: int
    drain_seconds: int
    retry_seconds: int
    boot: str
    models: tuple[str, ...]

    @property
    def pool(self) -> str:
        """The memory it takes from: `memory` is the host's, `card N` a GPU's."""
        return "memory" if self.device == "cpu" else f"card {self.gpu_index}"

    @property
    def service(self) -> str:
        """The unit that people start and stop and that hands connections on."""
        return f"gatehouse-engine-{self.name}.service"

    @property
    def server(self) -> str:
        """The unit that the model server itself runs in."""
        return f"gatehouse-server-{self.name}.service"


@dataclass(frozen=True)
class Config:
    """All engines of the host and what they share."""

    card: str
    reserve_mib: int
    models_dir: Path
    health_interval_seconds: float
    engines: tuple[Engine, ...]

    def engine(self, name: str) -> Engine:
        """Give the engine of that name, or raise `UnknownEngineError` with the nearest ones."""
        for engine in self.engines:
            if engine.name == name:
                return engine
        raise UnknownEngineError(_unknown(name, [engine.name for engine in self.engines]))


def load(path: Path) -> Config:
    """Read what the deploy wrote; raise `EngineError` when it is missing or not understood."""
    try:
        found = json.loads(path.read_text())
        if found["version"] != VERSION:
            raise EngineError(
                f"{path} has version {found['version']}, expected {VERSION}: deploy again with "
                "`pyinfra inventory deploy.py`"
            )
        return Config(
            card=found["card"],
            reserve_mib=found["reserve_mib"],
            models_dir=Path(found["models_dir"]),
            health_interval_seconds=found["health_interval_seconds"],
            engines=tuple(_engine(entry) for entry in found["engines"]),
        )
    except FileNotFoundError:
        raise EngineError(
            f"{path} is not there: no engine is configured (setting `engines`), or this host was "
            "not deployed yet (`pyinfra inventory deploy.py`)"
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(
            f"{path} is damaged ({error!r}): deploy again with `pyinfra inventory deploy.py`"
        ) from error


def _engine(entry: dict[str, Any]) -> Engine:
    known = {field.name: entry[field.name] for field in fields(Engine)}
    return Engine(**{**known, "models": tuple(known["models"])})


def _unknown(name: str, names: list[str]) -> str:
    # Only a mistake pays for the import.
    from difflib import get_close_matches  # noqa: PLC0415

    near = get_close_matches(name, names, n=3, cutoff=0.4)
    if near:
        return f"there is no engine '{name}' (did you mean {' or '.join(near)}?)"
    known = ", ".join(names) or "none is configured"
    return f"there is no engine '{name}' (there are: {known})"
