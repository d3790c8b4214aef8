"""`python -m gatehouse.bench.card`: admission and its ledger against a real NVIDIA card.

Processes of our own allocate real memory on the card, one as an engine and one as somebody else,
and what the ledger says is held against what nvidia-smi says and what was allocated. Then two
engines ask at the same time for memory that is enough for one. Nothing but free memory is touched,
and it is given back in the end. Run it on the host itself: in a container NVML knows processes by
other ids.

Exit code 0: everything holds; 1: something does not; 2: it could not be measured.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from gatehouse.bench.cuda import CardError, holding
from gatehouse.bench.table import Spread, table
from gatehouse.engines.admit import admit
from gatehouse.engines.errors import EngineError
from gatehouse.engines.host import Host
from gatehouse.engines.ledger import Ledger
from gatehouse.engines.nvml import NvmlMeter
from gatehouse.engines.paths import Paths
from gatehouse.engines.state import AWAKE, State
from gatehouse.engines.units import Unit

HELD, LEFT, RIGHT = "chat-held-bench", "chat-left-bench", "chat-right-bench"
RESERVE_MIB = 512
# What CUDA itself takes for a process, and what two readings may differ by.
CONTEXT_MIB, TOLERANCE_MIB = 1024, 64
_SECONDS = 60.0


@dataclass(frozen=True)
class Statement:
    """One line of the result."""

    what: str
    measured: str
    expected: str
    holds: bool


class Running:
    """Stands for systemd: every unit is there, as it is while its start asks for admission."""

    def show(self, names: Iterable[str]) -> dict[str, Unit]:
        """Give every unit as active, without a process of its own."""
        return {name: Unit("active", 0) for name in names}

    def stop(self, name: str) -> None:
        """Never called: nobody is evicted here."""
        raise CardError(f"{name} was to be stopped")

    def last_line(self, name: str) -> float | None:  # noqa: ARG002 - there is no journal of it
        """Give no time."""
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the whole, or one of the processes that it consists of."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        match words:
            case ["admit", root, name]:
                return ask(Path(root), name)
        parser = argparse.ArgumentParser(prog="python -m gatehouse.bench.card")
        parser.add_argument("--gpu", type=int, default=0, help="number of the card, as nvidia-smi")
        parser.add_argument("--mib", type=int, default=0, help="memory of the engine that is held")
        parser.add_argument("--rounds", type=int, default=20, help="pairs of starts at one time")
        options = parser.parse_args(words)
        return bench(options.gpu, options.mib, options.rounds)
    except (CardError, EngineError) as error:
        sys.stderr.write(f"cannot measure: {error}\n")
        return 2


def bench(gpu: int, mib: int, rounds: int) -> int:
    """Measure and print; gives the exit code."""
    before = NvmlMeter().read(gpu)
    free = before.total_mib - before.used_mib
    mib = mib or min(1024, free // 8)
    wanted = 3 * mib + 2 * CONTEXT_MIB + RESERVE_MIB
    if free < wanted:
        raise CardError(f"card {gpu} has {free} MiB free, {wanted} needed: try --mib {mib // 2}")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as holders:
        root = Path(folder)
        ours = holders.enter_context(holding(gpu, mib))
        holders.enter_context(holding(gpu, 2 * mib))
        # Two that fit one by one and not together.
        room = NvmlMeter().read(gpu)
        need = (room.total_mib - room.used_mib - RESERVE_MIB) * 6 // 10
        host = prepare(root, gpu, {HELD: mib, LEFT: need, RIGHT: need})
        host.states.put(HELD, State(AWAKE, time.time(), mib, pid=ours))
        seen = host.ledger(host.config.engine(LEFT))
        total, used = by_smi(gpu)
        statements = compare(seen, total, used, mib, before.used_mib)
        statements += together(root, host, rounds)
    sys.stdout.write(f"card {gpu}: {total} MiB, {before.used_mib} MiB in use before\n\n")
    rows = [(s.what, s.measured, s.expected, "yes" if s.holds else "NO") for s in statements]
    sys.stdout.write(table(("", "measured", "expected", "holds"), rows) + "\n")
    return 0 if all(statement.holds for statement in statements) else 1


def compare(seen: Ledger, total: int, used: int, mib: int, before: int) -> list[Statement]:
    """Hold the ledger against nvidia-smi's `total` and `used`, and what was allocated (MiB)."""
    (claim,) = seen.claims
    if not claim.used_mib:
        raise CardError(
            "NVML does not name the process that holds memory for us: run this on the host, not in "
            "a container, and not on a card that is divided (MIG)"
        )
    foreign = before + 2 * mib
    free = total - used - RESERVE_MIB
    return [
        _near("total, by nvidia-smi", seen.total_mib, total),
        _near("in use, by nvidia-smi", seen.used_mib, used),
        _above("held by the engine", claim.used_mib, mib),
        _above("held by others", seen.foreign_mib, foreign),
        _near("free for engines, by nvidia-smi", seen.free_now_mib, free),
    ]


def _near(what: str, measured: int, expected: int) -> Statement:
    holds = abs(measured - expected) <= TOLERANCE_MIB
    return Statement(what, f"{measured} MiB", f"{expected} MiB +- {TOLERANCE_MIB}", holds)


def _above(what: str, measured: int, allocated: int) -> Statement:
    """State that it is what was allocated, and what CUDA takes for a process on top."""
    holds = allocated <= measured <= allocated + CONTEXT_MIB
    return Statement(what, f"{measured} MiB", f"{allocated} MiB, CUDA's own on top", holds)


def together(root: Path, host: Host, rounds: int) -> list[Statement]:
    """Let two engines ask at the same time for what is enough for one, again and again."""
    one_each = 0
    refusals: list[float] = []
    wholes: list[float] = []
    for _ in range(rounds):
        begin = time.monotonic()
        asking = [
            subprocess.Popen([*_ourselves(), "admit", str(root), name], stdout=subprocess.PIPE)
            for name in (LEFT, RIGHT)
        ]
        answers = [json.loads(process.communicate(timeout=_SECONDS)[0]) for process in asking]
        wholes.append(time.monotonic() - begin)
        one_each += sum(answer["admitted"] for answer in answers) == 1
        refusals += [answer["seconds"] for answer in answers if not answer["admitted"]]
        for name in (LEFT, RIGHT):
            host.states.drop(name)
    refused = Spread.of(value * 1000 for value in refusals or [0.0])
    whole = Spread.of(value * 1000 for value in wholes)
    return [
        Statement(
            "two at once into memory for one",
            f"{one_each} of {rounds} times one",
            "one, every time",
            one_each == rounds,
        ),
        Statement(
            "a refusal, with the wait for the other",
            f"{refused.text()} ms",
            "below 1000 ms",
            bool(refusals) and max(refused.values) < 1000,  # noqa: PLR2004 - as it is printed
        ),
        Statement("both, with the start of Python", f"{whole.text()} ms", "(no limit)", holds=True),
    ]


def ask(root: Path, name: str) -> int:
    """Ask for admission and print the answer, as a process of its own."""
    host = Host(Paths.under(root), Running())
    begin = time.monotonic()
    reason = ""
    try:
        admit(host, name)
    except EngineError as error:
        reason = str(error)
    seconds = time.monotonic() - begin
    sys.stdout.write(
        json.dumps({"admitted": not reason, "seconds": seconds, "reason": reason}) + "\n"
    )
    return 0


def prepare(root: Path, gpu: int, needs: dict[str, int]) -> Host:
    """Write the configuration of these engines (name -> MiB) below `root`."""
    paths = Paths.under(root)
    paths.config.parent.mkdir(parents=True)
    paths.run.mkdir(parents=True)
    engine: dict[str, object] = {
        "kind": "llamacpp",
        "backend": "127.0.0.1:9",
        "health": "/health",
        # Without a container nothing of Docker's is needed.
        "container": None,
        "device": "gpu",
        "gpu_index": gpu,
        "file": None,
        "idle_seconds": 60,
        "load_seconds": 60,
        "drain_seconds": 0,
        "retry_seconds": 0,
        "boot": "never",
        "sources": [],
        "models": [],
    }
    config = {
        "version": 1,
        "bridge": "127.0.0.1",
        "card": "nvidia",
        "reserve_mib": RESERVE_MIB,
        "health_interval_seconds": 0.05,
        "models_dir": str(root),
        # Ports 1 to 3: nobody is connected there.
        "engines": [
            engine | {"name": name, "memory_mib": mib, "port": port}
            for port, (name, mib) in enumerate(needs.items(), start=1)
        ],
    }
    paths.config.write_text(json.dumps(config))
    return Host(paths, Running())


def by_smi(gpu: int) -> tuple[int, int]:
    """Give what nvidia-smi says is there and is not free, in MiB."""
    command = ["nvidia-smi", f"--id={gpu}", "--format=csv,noheader,nounits"]
    command.append("--query-gpu=memory.total,memory.free")
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        total, free = (int(word) for word in said.stdout.split(","))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise CardError(f"nvidia-smi does not say what memory card {gpu} has: {error}") from error
    return total, total - free


def _ourselves() -> list[str]:
    return [sys.executable, "-m", "gatehouse.bench.card"]


if __name__ == "__main__":
    sys.exit(main())
