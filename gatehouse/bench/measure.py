"""One measurement: a load, and what the processes used meanwhile."""

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

from gatehouse.bench.contestants import CHAT, FOLDER, UNIT, Contestant, body
from gatehouse.bench.load import Job, Result
from gatehouse.lab.common import LabError
from gatehouse.lab.workstation import Workstation

SLACK_SECONDS = 120
MIB = 1024 * 1024
# A connection may be lost when a worker is replaced; more is no measurement.
MOST_ERRORS = 0.01

_ENGINE = "curl -sS --fail --max-time 20 --unix-socket /var/run/docker.sock"
_SERVICES = ("gatehouse-postgres-1", "gatehouse-redis-1")


@dataclass(frozen=True)
class Used:
    """CPU seconds of each process or container and of the whole machine so far; memory now."""

    at: float
    cpu_seconds: dict[str, float]
    machine_seconds: float
    memory_mib: float


@dataclass(frozen=True)
class Sample:
    """What the client saw, the contestant's memory, and CPU milliseconds a request by process.

    `others_cores`: how many cores were busy with what is no part of the benchmark.
    """

    load: Result
    memory_mib: float
    cpu_ms: dict[str, float]
    others_cores: float


def sample(
    workstation: Workstation,
    who: Contestant,
    key_file: str | None,
    *,
    connections: int,
    seconds: float,
) -> Sample:
    """Load one contestant for some seconds; raises `LabError` when it does not answer well."""
    job = Job(
        host=who.host,
        port=who.port,
        path=CHAT,
        body=body(),
        key_file=key_file,
        connections=connections,
        seconds=seconds,
        warm_seconds=max(1.0, seconds / 5),
    )
    before = _used(workstation, who)
    done = workstation.exec(
        ["python3", f"{FOLDER}/load.py"],
        text=json.dumps(asdict(job)),
        timeout_seconds=seconds + SLACK_SECONDS,
    )
    after = _used(workstation, who)
    load = Result(**json.loads(done.stdout))
    failed = sum(load.errors.values())
    if failed > MOST_ERRORS * load.requests:
        raise LabError(
            f"{who.name} answered {failed} of {load.requests} requests badly ({load.errors}): run "
            "again with --keep and look at its log in the workstation"
        )
    cpu = {name: after.cpu_seconds[name] - spent for name, spent in before.cpu_seconds.items()}
    cpu["client"] = load.client_cpu_seconds
    each = {name: spent / load.requests * 1000 for name, spent in cpu.items()}
    others = after.machine_seconds - before.machine_seconds - sum(cpu.values())
    return Sample(load, after.memory_mib, each, max(0.0, others / (after.at - before.at)))


def _used(workstation: Workstation, who: Contestant) -> Used:
    containers = [*_SERVICES, *([who.container] if who.container else [])]
    asking = "; echo; ".join(
        f"{_ENGINE} 'http://localhost/containers/{name}/stats?stream=false&one-shot=true'"
        for name in containers
    )
    pid = f"$(systemctl show -p MainPID --value {UNIT})"
    lines = workstation.exec(
        f"set -e; getconf CLK_TCK; head -n 1 /proc/stat; cut -d ' ' -f 14,15 /proc/{pid}/stat; "
        f"{asking}"
    ).stdout.splitlines()
    tick = 1 / int(lines[0])
    # user, nice, system, idle, iowait, irq, softirq: all but the fourth and fifth are work.
    whole = [int(word) * tick for word in lines[1].split()[1:8]]
    stats = [json.loads(line) for line in lines[3:] if line.strip()]
    cpu = {"upstream": sum(map(int, lines[2].split())) * tick}
    for name, stat in zip(containers, stats, strict=True):
        role = who.name if name == who.container else name.split("-")[1]
        cpu[role] = stat["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
    memory = _memory_mib(stats[-1]["memory_stats"]) if who.container else 0.0
    return Used(time.monotonic(), cpu, sum(whole) - whole[3] - whole[4], memory)


def _memory_mib(stats: dict[str, Any]) -> float:
    """Count memory as `docker stats` does: without the part of the page cache that can go."""
    inner = stats["stats"]
    inactive = inner.get("total_inactive_file", inner.get("inactive_file", 0))
    return float(stats["usage"] - inactive) / MIB
