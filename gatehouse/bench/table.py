"""Medians of repeated measurements, and tables of them for a terminal."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Spread:
    """What repeated measurements gave, at least one."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Take the values."""
        return cls(tuple(values))

    @property
    def middle(self) -> float:
        """The median."""
        return median(self.values)

    def text(self, digits: int = 1) -> str:
        """Give `median (lowest-highest)`, or the one value."""
        middle = f"{self.middle:.{digits}f}"
        if len(self.values) == 1:
            return middle
        return f"{middle} ({min(self.values):.{digits}f}-{max(self.values):.{digits}f})"


@dataclass(frozen=True)
class Report:
    """Tables for a person, and whether what they were measured against was reached."""

    text: str
    held: bool


def ratio(one: Spread, other: Spread) -> float:
    """Give how many times the median of `one` is that of `other`; 0 where that is 0."""
    return one.middle / other.middle if other.middle else 0.0


def table(head: Sequence[str], rows: Sequence[Sequence[str]], indent: int = 2) -> str:
    """Align the columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for row in (head, ["-" * width for width in widths], *rows):
        cells = [
            f"{cell:<{width}}" if column == 0 else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(" " * indent + "  ".join(cells).rstrip())
    return "\n".join(lines)
