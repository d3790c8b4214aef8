"""What `gatehouse engine` shows, as plain values."""

from dataclasses import asdict
from typing import Any

from gatehouse.engines import measured
from gatehouse.engines.config import Engine
from gatehouse.engines.errors import EngineError
from gatehouse.engines.host import Host
from gatehouse.engines.ledger import Evict, Ledger, Refuse, decide
from gatehouse.engines.state import AWAKE, LIVE
from gatehouse.engines.units import Unit

Fact = Any
_UNKNOWN = Unit("inactive", 0)


def engines(host: Host) -> list[dict[str, Fact]]:
    """Give one row for each engine."""
    counts = host.connections()
    units = host.units.show(engine.server for engine in host.config.engines)
    rows: list[dict[str, Fact]] = []
    for engine in host.config.engines:
        state = host.states.get(engine.name)
        if state and state.state in LIVE and units.get(engine.server, _UNKNOWN).dead:
            state = None  # left over from something that was killed
        seen = measured.read(host.paths.measured, engine.name)
        idle = None
        if state and state.state == AWAKE and not counts.get(engine.port):
            last = max(state.since, host.units.last_line(engine.server) or 0.0)
            idle = max(0.0, round(host.now() - last, 1))
        rows.append(
            {
                "name": engine.name,
                "state": state.state if state else "asleep",
                "since": state.since if state else None,
                "reason": state.reason if state else "",
                "port": engine.port,
                "pool": engine.pool,
                "need_mib": state.need_mib
                if state and state.state in LIVE and state.need_mib
                else host.need(engine),
                "measured_mib": seen.memory_mib if seen else None,
                "load_seconds": seen.load_seconds if seen else None,
                "idle_seconds": idle,
                "idle_limit_seconds": engine.idle_seconds,
                "connections": counts.get(engine.port, 0),
                "models": list(engine.models),
            }
        )
    return rows


def pools(host: Host) -> list[dict[str, Fact]]:
    """Give one ledger for each memory that an engine takes from."""
    samples: dict[str, Engine] = {}
    for engine in host.config.engines:
        samples.setdefault(engine.pool, engine)
    return [_pool(host, sample) for sample in samples.values()]


def _pool(host: Host, sample: Engine) -> dict[str, Fact]:
    try:
        ledger = host.ledger_of(sample)
    except EngineError as error:
        return {"pool": sample.pool, "error": str(error)}
    if any(claim.evictable for claim in ledger.claims):
        ledger = host.with_last_use(ledger)
    there = {claim.name for claim in ledger.claims}
    return {
        "pool": sample.pool,
        "total_mib": ledger.total_mib,
        "used_mib": ledger.used_mib,
        "foreign_mib": ledger.foreign_mib,
        "reserve_mib": ledger.reserve_mib,
        "free_mib": max(0, ledger.free_mib),
        "engines": [
            {**asdict(claim), "mib": claim.mib, "doing": claim.doing} for claim in ledger.claims
        ],
        "others": [asdict(process) for process in ledger.others],
        "asleep": [
            _asleep(host, engine, ledger)
            for engine in host.config.engines
            if engine.pool == sample.pool and engine.name not in there
        ],
    }


def _asleep(host: Host, engine: Engine, ledger: Ledger) -> dict[str, Fact]:
    need = host.need(engine)
    most = max(0, ledger.total_mib - ledger.reserve_mib - ledger.foreign_mib)
    decision = decide(ledger, most if need is None else need)
    found: dict[str, Fact] = {"name": engine.name, "need_mib": need, "evicts": [], "reason": ""}
    if isinstance(decision, Refuse):
        return {**found, "decision": "refused", "reason": decision.reason}
    if isinstance(decision, Evict):
        return {**found, "decision": "evicts", "evicts": list(decision.stop)}
    return {**found, "decision": "fits"}
