"""Where the time of a pyinfra run went, read from the lines that it printed and when they came.

The lines are pyinfra's own (3.10), so nothing is hooked into the run that is measured.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# The first line that starts so ends the phase, which began where the phase before it ended.
_PHASES = (
    ("--> Loading config", "start Python, import pyinfra"),
    ("--> Connecting", "read the inventory, check the settings"),
    ("--> Preparing", "connect over SSH"),
    ("--> Beginning", "ask what the host is, render"),
    ("--> Results", "operations"),
)
_LEAVING = "show the results, disconnect, end"
_OPERATION = "--> Starting operation: "
_TOTAL = re.compile(r"\s*Grand total((?:\s+(?:\d+|-)){4})\s*$")


@dataclass(frozen=True)
class Line:
    """A line and the seconds from the start of the program until it came."""

    seconds: float
    text: str


@dataclass(frozen=True)
class Totals:
    """pyinfra's last row: operations, and what became of them."""

    operations: int
    changed: int
    failed: int
    unchanged: int


def phases(lines: Sequence[Line], end_seconds: float) -> dict[str, float]:
    """Give phase → seconds, in their order; phases that the run did not reach are left out."""
    found: dict[str, float] = {}
    before = 0.0
    for start, name in _PHASES:
        at = next((line.seconds for line in lines if line.text.startswith(start)), None)
        if at is None:
            return found
        found[name] = at - before
        before = at
    found[_LEAVING] = end_seconds - before
    return found


def operations(lines: Sequence[Line]) -> dict[str, float]:
    """Give operation → seconds, in their order."""
    marks = [line for line in lines if line.text.startswith("-->")]
    return {
        line.text.removeprefix(_OPERATION).strip(): following.seconds - line.seconds
        for line, following in pairwise(marks)
        if line.text.startswith(_OPERATION)
    }


def totals(lines: Sequence[Line]) -> Totals | None:
    """Give pyinfra's totals; None when the run did not come so far."""
    for line in reversed(lines):
        if found := _TOTAL.match(line.text):
            return Totals(*(0 if word == "-" else int(word) for word in found[1].split()))
    return None
