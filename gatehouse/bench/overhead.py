"""What one request costs on its way: the model server alone, then each gateway before it."""

from collections.abc import Mapping

from gatehouse.bench.contestants import MASTER, Contestant
from gatehouse.bench.measure import Sample, sample
from gatehouse.bench.table import Report, Spread, table
from gatehouse.lab.progress import Progress
from gatehouse.lab.workstation import Workstation

NAMES = ("upstream", "stock", "gateway")
_SHOWN = {
    "upstream": "model server alone",
    "stock": "through LiteLLM's stock start",
    "gateway": "through the gateway",
}


def run(
    workstation: Workstation,
    everybody: Mapping[str, Contestant],
    progress: Progress,
    *,
    rounds: int,
    seconds: float,
) -> Report:
    """Measure with one connection, so that nobody waits for anybody."""
    found: dict[str, list[Sample]] = {name: [] for name in NAMES}
    for number in range(rounds):
        for name in NAMES:
            with progress.step(f"round {number + 1} of {rounds}: one connection, {name}"):
                key = None if name == "upstream" else MASTER
                found[name].append(
                    sample(workstation, everybody[name], key, connections=1, seconds=seconds)
                )
    p50 = {name: Spread.of(s.load.p50_ms for s in found[name]) for name in NAMES}
    p99 = {name: Spread.of(s.load.p99_ms for s in found[name]) for name in NAMES}
    title = (
        f"Overhead: one connection, {seconds:g} s each, median of {rounds} rounds (lowest-highest)"
    )
    rows = [
        (
            _SHOWN[name],
            p50[name].text(2),
            p99[name].text(2),
            f"{p50[name].middle - p50['upstream'].middle:.2f}",
        )
        for name in NAMES
    ]
    shown = table(("", "p50 ms", "p99 ms", "added p50 ms"), rows)
    return Report(f"{title}\n\n{shown}", held=True)
