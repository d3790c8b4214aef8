"""Whether an engine may start: asked by its unit before the start, answered at once."""

import time

from gatehouse.engines.config import Engine
from gatehouse.engines.errors import EngineError, RefusedError
from gatehouse.engines.host import Host
from gatehouse.engines.ledger import Admit, Evict, Refuse, decide
from gatehouse.engines.signals import unwind_when_stopped
from gatehouse.engines.state import FAILED, LIVE, LOADING, REFUSED, State, locked

# How often an engine may turn out to be busy after all before we stop looking for another.
_ROUNDS = 5
_DRAIN_LOOK_SECONDS = 0.25


def main(arguments: list[str]) -> int:
    """Let an engine start, or raise `EngineError`."""
    (name,) = arguments
    # A stop while we wait must not leave another engine's proxy frozen: unwind, do not just die.
    unwind_when_stopped()
    admit(Host(), name)
    return 0


def admit(host: Host, name: str) -> None:
    """Reserve memory for an engine and make room for it; raise `EngineError` when it may not start.

    What it raises stands in the engine's state too, for those who were waiting for the engine.
    """
    engine = host.config.engine(name)
    _respect_failure(host, engine)
    try:
        waits = _admit(host, engine)
        if waits:
            from gatehouse.engines.evict import wait_gone  # noqa: PLC0415 - most starts need none

            wait_gone(host, waits)
    except EngineError as error:
        host.states.put(name, State(REFUSED, host.now(), reason=str(error)))
        raise


def _respect_failure(host: Host, engine: Engine) -> None:
    """Do not try again at once what has just failed: each try costs a load, and clients hammer."""
    forced = host.states.take_force(engine.name)
    state = host.states.get(engine.name)
    if state and state.state in LIVE:
        host.states.drop(engine.name)  # of a run whose clean-up never came
    if forced or state is None or state.state != FAILED:
        return
    ago = host.now() - state.since
    if 0 <= ago < engine.retry_seconds:
        # The state stays as it is: it holds the time of the failure.
        raise RefusedError(
            f"failed to load {ago:.0f} s ago; see `journalctl -u {engine.server}`; tries again "
            f"after {engine.retry_seconds - ago:.0f} s, or now with `sudo gatehouse engine start "
            f"{engine.name}`"
        )


def _admit(host: Host, engine: Engine) -> tuple[str, ...]:
    """Reserve and give the engines that have to be gone first."""
    if engine.file and not (host.config.models_dir / engine.file).exists():
        raise RefusedError(
            f"the model {host.config.models_dir / engine.file} is not there: run "
            f"`gatehouse models pull {engine.name}`"
        )
    # Before the lock: to make a container anew takes seconds.
    from gatehouse.engines.container import ready_to_start  # noqa: PLC0415

    config = ready_to_start(host, engine) if engine.container else None
    need = host.need(engine, config)
    end = time.monotonic() + engine.drain_seconds
    while True:
        with locked(host.paths.lock):
            found = _reserve(host, engine, need)
            if not isinstance(found, Refuse):
                return found
            if found.hopeless or time.monotonic() >= end:
                raise RefusedError(found.reason)
            # Waiting holds nothing: two that wait for each other's memory would wait for ever.
            waiting = State(LOADING, host.now(), reason=f"waits for memory: {found.reason}")
            host.states.put(engine.name, waiting)
        time.sleep(min(_DRAIN_LOOK_SECONDS, max(0.0, end - time.monotonic())))


def _reserve(host: Host, engine: Engine, known: int | None) -> tuple[str, ...] | Refuse:
    """Under the lock: promise the memory, after telling others to go where that is needed."""
    for _ in range(_ROUNDS):
        ledger = host.ledger(engine)
        # What nobody knows yet is all that can be had: the first run is alone, and is measured.
        need = known
        if need is None:
            need = max(0, ledger.total_mib - ledger.reserve_mib - ledger.foreign_mib)
        decision = decide(ledger, need)
        if isinstance(decision, Evict) and len(decision.candidates) > len(decision.stop):
            decision = decide(host.with_last_use(ledger), need)
        if isinstance(decision, Refuse):
            return decision
        waits: tuple[str, ...]
        if isinstance(decision, Admit):
            waits = decision.after
        else:
            from gatehouse.engines.evict import evict  # noqa: PLC0415 - most starts need none

            if not evict(host, [host.config.engine(name) for name in decision.stop]):
                continue
            waits = (*decision.stop, *(claim.name for claim in ledger.leaving))
        host.states.put(engine.name, State(LOADING, host.now(), need))
        return waits
    return Refuse("the engines that could make room get requests all the time", hopeless=False)
