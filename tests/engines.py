"""A host with engines for tests: real files, a real lock, a simulated card, and no systemd."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from gatehouse.engines.host import Host
from gatehouse.engines.paths import Paths
from gatehouse.engines.state import States
from gatehouse.engines.units import Unit

ENGINE: dict[str, Any] = {
    "name": "chat-a",
    "kind": "llamacpp",
    "port": 18084,
    "backend": "127.0.0.1:18080",
    "health": "/health",
    "container": None,
    "device": "gpu",
    "gpu_index": 0,
    "memory_mib": 4000,
    "file": None,
    "idle_seconds": 600,
    "load_seconds": 300,
    "drain_seconds": 0,
    "retry_seconds": 30,
    "boot": "never",
    "sources": [],
    "models": ["chat-a"],
}


class FakeUnits:
    """systemd for tests: a unit lives while its file is there, and a stop is a note in a folder.

    Everything is in files, so that several processes share it.
    """

    def __init__(self, folder: Path) -> None:
        """Keep the units in this folder."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, name: str, pid: int = 0, active: str = "active") -> None:
        """Let a unit live."""
        (self.folder / name).write_text(f"{active} {pid}")

    def end(self, name: str) -> None:
        """Let a unit be dead."""
        (self.folder / name).unlink(missing_ok=True)

    def used(self, name: str, at: float) -> None:
        """Give a unit a last line in the journal."""
        (self.folder / f"{name}.line").write_text(str(at))

    def stopped(self) -> list[str]:
        """Give the units that were asked to stop, in order."""
        notes = self.folder / "stops"
        return notes.read_text().split() if notes.exists() else []

    def show(self, names: Iterable[str]) -> dict[str, Unit]:
        """See `Units`."""
        found = {}
        for name in names:
            try:
                active, pid = (self.folder / name).read_text().split()
            except FileNotFoundError:
                active, pid = "inactive", "0"
            found[name] = Unit(active, int(pid))
        return found

    def stop(self, name: str) -> None:
        """See `Units`."""
        with (self.folder / "stops").open("a") as notes:
            notes.write(f"{name}\n")

    def last_line(self, name: str) -> float | None:
        """See `Units`."""
        line = self.folder / f"{name}.line"
        return float(line.read_text()) if line.exists() else None


def host_with(
    root: Path,
    patch: pytest.MonkeyPatch,
    *engines: dict[str, Any],
    total_mib: int = 10000,
    foreign_mib: int = 0,
) -> tuple[Host, FakeUnits]:
    """Give a host below a folder with these engines; each is a change of `ENGINE`.

    The test's environment says where they are, so that programs it starts find them too.
    """
    paths = Paths.under(root)
    paths.config.parent.mkdir(parents=True)
    paths.run.mkdir(parents=True)
    paths.measured.mkdir(parents=True)
    paths.config.write_text(
        json.dumps(
            {
                "version": 1,
                "bridge": "172.30.40.1",
                "card": "nvidia",
                "reserve_mib": 0,
                "health_interval_seconds": 0.05,
                "models_dir": str(root / "models"),
                "engines": [{**ENGINE, **engine} for engine in engines],
            }
        )
    )
    card = root / "card.json"
    card.write_text(json.dumps({"total_mib": total_mib, "foreign_mib": foreign_mib}))
    patch.setenv("GATEHOUSE_SIMULATED_CARD", str(card))
    patch.setenv("GATEHOUSE_ROOT", str(root))
    units = FakeUnits(root / "units")
    return Host(paths, units), units


def state_of(host: Host, name: str) -> str | None:
    """Give what an engine is doing, in one word."""
    state = States(host.paths.run).get(name)
    return state.state if state else None
