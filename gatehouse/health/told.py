"""What the alerts' unit remembers: who failed since when, and what was told.

It is in the unit's own state directory, so that a reboot tells nobody twice.
"""

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field

from gatehouse.health.document import Part, Told

NAME = "gatehouse-alerts"
FOLDER = Path("/var/lib/private") / NAME


class Known(Part):
    """A check that does not hold, and whether somebody was told."""

    since: float
    component: str
    expected: str
    found: str
    fix: str
    severity: str
    told: bool = False


class Memory(Part):
    """Everything that is remembered between two runs."""

    known: dict[str, Known] = Field(default_factory=dict)
    last: float | None = None
    trouble: str | None = None


def remember(folder: Path) -> Memory:
    """Give what was remembered; what cannot be read is nothing."""
    try:
        return Memory.model_validate_json((folder / "told.json").read_bytes())
    except (OSError, ValueError):
        return Memory()


def keep(folder: Path, memory: Memory) -> None:
    """Write it down in one step."""
    new = folder / "told.json.new"
    with new.open("w") as file:
        json.dump(memory.model_dump(), file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / "told.json")


def read(to: str) -> Told:
    """Give what was told so far, for the page."""
    memory = remember(FOLDER)
    firing = sum(each.told for each in memory.known.values())
    return Told(to=without_secrets(to), last=memory.last, firing=firing, trouble=memory.trouble)


def without_secrets(url: str) -> str:
    """Give only what tells people where it goes: a webhook's path and query let anybody post."""
    if url == "secret":
        return "the address in /etc/gatehouse/secrets/alerts_url"
    if url.startswith("mailto:"):
        return url.removeprefix("mailto:")
    return urlsplit(url).hostname or "a webhook"
