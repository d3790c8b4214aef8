"""A card that is a file, for tests: what engines say they need is what they use."""

import json
from pathlib import Path

from gatehouse.engines.config import Config, Engine
from gatehouse.engines.meter import Card
from gatehouse.engines.state import LIVE, LOADING, States

_FOREIGN = 0


class SimulatedMeter:
    """Stands in for every memory: `{"total_mib": 10000, "foreign_mib": 0}`."""

    def __init__(self, path: Path, config: Config, run: Path) -> None:
        """Read the card from a file and the engines' use from their states."""
        self._path = path
        self._engines = config.engines
        self._states = States(run)

    def read(self, gpu_index: int) -> Card:
        """Give the card of that number; all have the same size, with the same foreign use."""
        card = json.loads(self._path.read_text())
        by_pid = {_FOREIGN: foreign} if (foreign := card.get("foreign_mib", 0)) else {}
        for index, engine in enumerate(self._engines, start=1):
            state = self._states.get(engine.name)
            # One that waits for memory has been promised none, and has none.
            there = state and state.state in LIVE and (state.need_mib or state.state != LOADING)
            if there and engine.gpu_index == gpu_index:
                by_pid[-index] = engine.memory_mib or 0
        return Card(card["total_mib"], sum(by_pid.values()), by_pid)

    def pids(self, engine: Engine, pids: frozenset[int]) -> frozenset[int]:  # noqa: ARG002
        """Give the engine's place in the list, made negative: no process has such an id."""
        return frozenset({-1 - self._engines.index(engine)})

    def need(self, engine: Engine, pids: frozenset[int], card: Card) -> int:  # noqa: ARG002
        """Give what the settings say."""
        return engine.memory_mib or 0
