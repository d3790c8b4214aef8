"""What a memory really has free: one interface for a card, the host's memory and a simulation."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gatehouse.engines.config import Config, Engine
from gatehouse.engines.errors import EngineError

SIMULATED = "GATEHOUSE_SIMULATED_CARD"


@dataclass(frozen=True)
class Card:
    """A memory, what of it is in use, and by which processes, in MiB."""

    total_mib: int
    used_mib: int
    by_pid: Mapping[int, int]


class Meter(Protocol):
    """Reads one kind of memory."""

    def read(self, gpu_index: int) -> Card:
        """Read what is in use now."""

    def pids(self, engine: Engine, pids: frozenset[int]) -> frozenset[int]:
        """Give the keys that an engine has in `by_pid`; a real meter's are its process ids."""

    def need(self, engine: Engine, pids: frozenset[int], card: Card) -> int:
        """Give what to set aside for a next run of an engine that runs as these processes."""


class ByProcess:
    """What real meters have in common: memory belongs to processes."""

    def pids(self, engine: Engine, pids: frozenset[int]) -> frozenset[int]:  # noqa: ARG002
        """Give the processes themselves."""
        return pids

    def need(self, engine: Engine, pids: frozenset[int], card: Card) -> int:
        """Give what they hold on the card."""
        return sum(card.by_pid.get(pid, 0) for pid in self.pids(engine, pids))


def meter_for(engine: Engine, config: Config, run: Path) -> Meter:
    """Give the meter of the memory that an engine takes from."""
    # Each is imported only where it is used: the binding for cards is the dearest import of all.
    if simulated := os.environ.get(SIMULATED):
        from gatehouse.engines.simulated import SimulatedMeter  # noqa: PLC0415

        return SimulatedMeter(Path(simulated), config, run)
    if engine.device == "cpu":
        from gatehouse.engines.memory import MemoryMeter  # noqa: PLC0415

        return MemoryMeter()
    if config.card == "none":
        raise EngineError(
            f"{engine.name} wants a GPU, and this host has none that the deploy could use: set its "
            "device to cpu, or see the setting gpu_mode"
        )
    from gatehouse.engines.nvml import NvmlMeter  # noqa: PLC0415

    return NvmlMeter()
