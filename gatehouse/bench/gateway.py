"""The gateway as provisioned against LiteLLM's stock start: throughput, latency, memory, CPU."""

from collections import defaultdict
from collections.abc import Mapping
from itertools import product

from gatehouse.bench.contestants import MASTER, VIRTUAL, Contestant
from gatehouse.bench.measure import Sample, sample
from gatehouse.bench.table import Report, Spread, ratio, table
from gatehouse.lab.progress import Progress
from gatehouse.lab.workstation import Workstation

KEYS = {"master key": MASTER, "virtual key": VIRTUAL}
RIVALS = ("stock", "gateway")
LEAST_SPEEDUP = 2.0
MOST_P99 = 0.5

Samples = dict[tuple[str, str], list[Sample]]


def run(  # noqa: PLR0913 - what a person may choose on the command line
    workstation: Workstation,
    everybody: Mapping[str, Contestant],
    progress: Progress,
    *,
    rounds: int,
    seconds: float,
    connections: int,
) -> Report:
    """Measure both in turns; held when the aims were reached with each kind of key."""
    found: Samples = defaultdict(list)
    for number in range(rounds):
        # In turns, the other one first in every second round: noise of the machine hits both.
        order = RIVALS if number % 2 == 0 else RIVALS[::-1]
        for name, (key, path) in product(order, KEYS.items()):
            with progress.step(f"round {number + 1} of {rounds}: {name}, {key}"):
                found[name, key].append(
                    sample(
                        workstation,
                        everybody[name],
                        path,
                        connections=connections,
                        seconds=seconds,
                    )
                )
    aims = [_aim(found, key) for key in KEYS]
    text = (
        f"Gateway against LiteLLM's stock start: {connections} connections, {seconds:g} s each, "
        f"median of {rounds} rounds (lowest-highest)\n\n{_speed(found)}\n\n"
        f"CPU milliseconds a request by process, and the cores that other work took meanwhile\n\n"
        f"{_cpu(found)}\n\n"
    )
    return Report(text + "\n".join(aim.text for aim in aims), all(aim.held for aim in aims))


def _spreads(samples: list[Sample]) -> dict[str, Spread]:
    return {
        "requests/s": Spread.of(each.load.per_second for each in samples),
        "p50 ms": Spread.of(each.load.p50_ms for each in samples),
        "p99 ms": Spread.of(each.load.p99_ms for each in samples),
        "memory MiB": Spread.of(each.memory_mib for each in samples),
    }


def _speed(found: Samples) -> str:
    rows = []
    for key in KEYS:
        stock, gateway = (_spreads(found[name, key]) for name in RIVALS)
        for name, spreads in zip(RIVALS, (stock, gateway), strict=True):
            errors = sum(sum(each.load.errors.values()) for each in found[name, key])
            cells = [spread.text(0) for spread in spreads.values()]
            rows.append([f"{key}, {name}", *cells, str(errors)])
        ratios = [f"{ratio(gateway[what], stock[what]):.2f} x" for what in stock]
        rows.append([f"{key}, ratio", *ratios, ""])
    return table(("", *_spreads(found["stock", "master key"]), "errors"), rows)


def _cpu(found: Samples) -> str:
    roles = ("LiteLLM", "postgres", "redis", "upstream", "client")
    rows = []
    for key in KEYS:
        for name in RIVALS:
            spent = [{**each.cpu_ms, "LiteLLM": each.cpu_ms[name]} for each in found[name, key]]
            middles = [Spread.of(each[role] for each in spent).middle for role in roles]
            others = Spread.of(each.others_cores for each in found[name, key])
            cells = [f"{middle:.2f}" for middle in [*middles, sum(middles)]]
            rows.append([f"{key}, {name}", *cells, others.text()])
    return table(("", *roles, "sum", "other work, cores"), rows)


def _aim(found: Samples, key: str) -> Report:
    stock, gateway = (_spreads(found[name, key]) for name in RIVALS)
    speedup = ratio(gateway["requests/s"], stock["requests/s"])
    p99 = ratio(gateway["p99 ms"], stock["p99 ms"])
    held = speedup >= LEAST_SPEEDUP and p99 <= MOST_P99
    return Report(
        f"  {key}: the aim is at least {LEAST_SPEEDUP:g} x the requests/s (found {speedup:.2f} x) "
        f"at no more than {MOST_P99:g} x the p99 (found {p99:.2f} x): "
        f"{'reached' if held else 'NOT reached'}",
        held,
    )
