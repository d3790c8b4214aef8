"""Who is connected to an engine's port: what makes it busy."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))

# ESTABLISHED, and CLOSE_WAIT: a client that has said all it wanted still waits for its answer.
_OPEN = ("01", "08")


def parse(lines: Iterable[str]) -> Counter[int]:
    """Count the open connections per local port in the kernel's table."""
    found: Counter[int] = Counter()
    for line in lines:
        fields = line.split(maxsplit=4)
        # The first line is a heading, whose fourth word is no state.
        if len(fields) > 3 and fields[3] in _OPEN:  # noqa: PLR2004
            found[int(fields[1].rpartition(":")[2], 16)] += 1
    return found


def by_port() -> Mapping[int, int]:
    """Count the open connections of this host per local port, those not yet accepted too."""
    found: Counter[int] = Counter()
    for table in TABLES:
        try:
            with table.open() as lines:
                found += parse(lines)
        except FileNotFoundError:
            continue  # a kernel without IPv6
    return found
