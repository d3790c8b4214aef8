"""The books of a fault: each answered request has a row, or LiteLLM has said that it lost it."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from gatehouse.faults.faults import Fault

_OK = 200
# What LiteLLM 1.108 says, at its level ERROR, of rows that it gives up: one with its request,
_NAMED = re.compile(r"dropping spend log row Postgres rejected\. request_id=([\w-]+)")
# and these of nobody by name; without a number, of one.
_DROPPED = (
    re.compile(r"dropped the (\d+) oldest spend logs"),
    re.compile(r"(\d+) spend log rows could not be written or parked in Redis and will be lost"),
    re.compile(r"dropping (\d+) spend log rows without per-row isolation"),
    re.compile(r"dropping spend log row Postgres rejected"),
    re.compile(r"Error in tracking cost callback"),
    re.compile(r"update_database failed\. Spend log insertion"),
)
HEAD = [
    *("fault", "answered", "else a client saw", "slowest"),
    *("rows", "said lost", "lost silently", "said besides", "healed"),
]


@dataclass(frozen=True)
class Said:
    """What LiteLLM's log says of lost rows: of which requests, and how many more of nobody."""

    named: frozenset[str] = frozenset()
    others: int = 0

    def since(self, before: "Said") -> "Said":
        """Give what has been said since then; a log that was full begins again."""
        return Said(self.named - before.named, max(0, self.others - before.others))


def said_lost(log: Iterable[str]) -> Said:
    """Read which rows LiteLLM's log reports as lost."""
    named, others = set(), 0
    for line in log:
        if match := _NAMED.search(line):
            named.add(match[1])
            continue
        for pattern in _DROPPED:
            if match := pattern.search(line):
                others += int(match[1]) if pattern.groups else 1
                break
    return Said(frozenset(named), others)


@dataclass(frozen=True)
class Outcome:
    """What came of a fault: the client's requests, which have a row, what the log says.

    `broken`: why it could not be made; then there is nothing else.
    """

    fault: Fault
    answers: list[dict[str, object]]
    written: frozenset[str]
    said: Said
    healed: float | None
    broken: str = ""

    @property
    def answered(self) -> int:
        """Requests with a whole answer."""
        return sum(each["id"] is not None for each in self.answers)

    @property
    def rows(self) -> int:
        """Answered requests with a row."""
        return len(self._ids & self.written)

    @property
    def reported(self) -> int:
        """Answered requests without a row that LiteLLM names as lost, or that it has counted so.

        Where it counts it does not say whose they are: no more than are missing can be meant.
        """
        named = len(self._missing & self.said.named)
        return named + min(self.said.others, len(self._missing) - named)

    @property
    def silent(self) -> int:
        """Answered requests without a row, of which it says nothing."""
        return self.answered - self.rows - self.reported

    @property
    def besides(self) -> int:
        """Losses that it tells of beside those: then some may be meant that nobody had asked for.

        So many of those that are reported may be lost silently in truth.
        """
        return self.said.others + len(self.said.named) - self.reported

    @property
    def _ids(self) -> frozenset[str]:
        return frozenset(str(each["id"]) for each in self.answers if each["id"] is not None)

    @property
    def _missing(self) -> frozenset[str]:
        return self._ids - self.written

    @property
    def well(self) -> bool:
        """Whether it healed, and nothing is lost silently but what is known to be."""
        return self.healed is not None and (self.silent == 0 or self.fault.loses)

    def row(self) -> list[str]:
        """Give the line of the table."""
        if self.broken:
            return [self.fault.name, *[""] * (len(HEAD) - 2), "could not be made"]
        bad = Counter(
            str(each["status"] if each["status"] not in {0, _OK} else each["words"])
            for each in self.answers
            if each["id"] is None
        )
        saw = ", ".join(f"{count} x {word}" for word, count in bad.most_common(3))
        slowest = max((float(str(each["seconds"])) for each in self.answers), default=0.0)
        return [
            self.fault.name,
            f"{self.answered}/{len(self.answers)}",
            saw,
            f"{slowest:.1f} s",
            str(self.rows),
            str(self.reported),
            str(self.silent),
            str(self.besides),
            "no" if self.healed is None else f"{self.healed:.0f} s",
        ]
