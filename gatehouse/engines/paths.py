"""Where the files of the engines are on the host."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """The places that the programs for engines read and write."""

    release: Path
    run: Path
    measured: Path
    docker: Path

    @property
    def config(self) -> Path:
        """What the deploy rendered about the engines."""
        return self.release / "engines" / "engines.json"

    @property
    def lock(self) -> Path:
        """The one lock under which memory is given out."""
        return self.run.parent / "engines.lock"

    @classmethod
    def under(cls, root: Path) -> "Paths":
        """Give the same places below another root, as tests have it."""
        return cls(
            release=root / "opt/gatehouse/current",
            run=root / "run/gatehouse/engines",
            measured=root / "var/lib/gatehouse/engines",
            docker=root / "var/run/docker.sock",
        )

    @classmethod
    def of_host(cls) -> "Paths":
        """Give the places on this host; `GATEHOUSE_ROOT` moves them all."""
        return cls.under(Path(os.environ.get("GATEHOUSE_ROOT", "/")))
