"""systemd, as far as engines need it."""

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from gatehouse.engines.errors import EngineError

DEAD = ("inactive", "failed")
_SECONDS = 20


@dataclass(frozen=True)
class Unit:
    """What systemd says about a unit."""

    active: str
    pid: int

    @property
    def dead(self) -> bool:
        """Whether nothing of it runs, starts or stops."""
        return self.active in DEAD


class Units(Protocol):
    """What is asked of systemd; tests put something simpler here."""

    def show(self, names: Iterable[str]) -> dict[str, Unit]:
        """Give the state of units."""

    def stop(self, name: str) -> None:
        """Ask for a stop and do not wait: the unit's own clean-up may wait for the one who asks."""

    def last_line(self, name: str) -> float | None:
        """Give the time of a unit's last line in the journal, in Unix seconds."""


class Systemd:
    """The real thing, by its own commands."""

    def show(self, names: Iterable[str]) -> dict[str, Unit]:
        """Give the state of units; one call for all."""
        wanted = list(names)
        if not wanted:
            return {}
        command = ["systemctl", "show", "--property=Id,ActiveState,MainPID", "--", *wanted]
        found: dict[str, Unit] = {}
        for block in _run(command).split("\n\n"):
            facts = dict(line.partition("=")[::2] for line in block.splitlines())
            if "Id" in facts:
                found[facts["Id"]] = Unit(facts["ActiveState"], int(facts.get("MainPID") or 0))
        return found

    def stop(self, name: str) -> None:
        """Queue a stop."""
        _run(["systemctl", "stop", "--no-block", "--", name])

    def last_line(self, name: str) -> float | None:
        """Give the time of a unit's last line; None when the journal has none, or no journal is."""
        command = ["journalctl", "--quiet", "--unit", name, "--lines=1", "--output=short-unix"]
        try:
            return float(_run(command).split(maxsplit=1)[0])
        except (EngineError, ValueError, IndexError):
            return None


def _run(command: list[str]) -> str:
    try:
        return subprocess.run(
            command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=_SECONDS
        ).stdout.decode(errors="replace")
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineError(f"systemd does not do its part: {error}") from error
