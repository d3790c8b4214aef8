"""The host's own memory, for engines that run on the CPU."""

from pathlib import Path

from gatehouse.engines import processes
from gatehouse.engines.config import Engine
from gatehouse.engines.meter import ByProcess, Card

MEMINFO = Path("/proc/meminfo")


class MemoryMeter(ByProcess):
    """Reads /proc.

    The kernel counts the pages of files as available, so the use of a process is what is its own.
    Its need is more: without the pages of a model file in memory an engine crawls.
    """

    def read(self, gpu_index: int) -> Card:  # noqa: ARG002 - there is only one memory
        """Read what is in use now."""
        facts = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        total, available = (_mib(facts[key]) for key in ("MemTotal", "MemAvailable"))
        by_pid = {pid: own for pid in processes.every() if (own := processes.own_mib(pid))}
        return Card(total, total - available, by_pid)

    def need(self, engine: Engine, pids: frozenset[int], card: Card) -> int:  # noqa: ARG002
        """Give all that the processes have in memory, model files too."""
        return processes.resident_mib(pids)


def _mib(text: str) -> int:
    return int(text.split(maxsplit=1)[0]) // 1024
