"""The wait until an engine answers: the end of its unit's start."""

import os
import select
import socket
import time
from contextlib import suppress
from dataclasses import replace

from gatehouse.engines import http1, measured
from gatehouse.engines.config import Engine
from gatehouse.engines.errors import EngineError, say
from gatehouse.engines.host import Host
from gatehouse.engines.measure import measure
from gatehouse.engines.measured import LAZY
from gatehouse.engines.signals import unwind_when_stopped
from gatehouse.engines.state import AWAKE, FAILED, LOADING, State

_ANSWER_SECONDS = 5
_OK = 200


def main(arguments: list[str]) -> int:
    """Wait for an engine; its unit's TimeoutStartSec ends the wait with SIGTERM."""
    name, *pids = arguments
    unwind_when_stopped()
    host = Host()
    return ready(host, host.config.engine(name), int(pids[0]) if pids and pids[0] else 0)


def ready(host: Host, engine: Engine, pid: int) -> int:
    """Wait until the engine answers, then say that it is awake; 1 as soon as its process is gone.

    What it answered last is kept in the state: whoever reads that it took too long wants to know.
    """
    begin = time.monotonic()
    last: int | None = None
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return _died(engine)
    try:
        process = select.poll()
        process.register(descriptor, select.POLLIN)
        while (last := _answer(host, engine)) != _OK:
            if process.poll(host.config.health_interval_seconds * 1000):
                return _died(engine)
            if time.monotonic() - begin > engine.load_seconds:
                return _late(host, engine, last)
    finally:
        os.close(descriptor)
        if last != _OK:
            _remember(host, engine, last)
    _awake(host, engine, time.monotonic() - begin)
    _knock(engine)
    return 0


def _answer(host: Host, engine: Engine) -> int | None:
    """Ask the engine, but no container that does not run yet.

    Nobody has its address then, and the kernel, which asks only once a second who has it, would
    keep us waiting for most of a second after the engine is ready.
    """
    if engine.container:
        try:
            container = host.docker.container(engine.container)
        except (OSError, EngineError):
            pass  # nobody can tell: the engine itself may answer all the same
        else:
            if container is None or not container.running:
                return None
    return http1.status(engine.backend, engine.health, _ANSWER_SECONDS)


def _late(host: Host, engine: Engine, last: int | None) -> int:
    """Give up on an engine that takes longer than its setting allows."""
    seen = f"answered {last}" if last else "did not answer"
    reason = (
        f"was not ready after {engine.load_seconds} s (load_seconds): "
        f"http://{engine.backend}{engine.health} {seen}; see `journalctl -u {engine.server}`"
    )
    measured.forget(host.paths.measured, engine.name)
    host.states.put(engine.name, State(FAILED, host.now(), reason=reason))
    say(f"{engine.name} {reason}")
    return 1


def _knock(engine: Engine) -> None:
    """Connect to its own port once: the proxy counts idle time from the end of a connection only.

    Without this an engine that was started by hand, and that nobody uses, would stay for ever.
    """
    with suppress(OSError), socket.create_connection(("127.0.0.1", engine.port), 1):
        pass


def _awake(host: Host, engine: Engine, load_seconds: float) -> None:
    state = host.states.get(engine.name) or State(LOADING, host.now())
    need, reason = state.need_mib, ""
    try:
        used = measure(host, engine, load_seconds)
    except (EngineError, OSError) as error:
        # It answers, and that is what people wait for.
        say(f"{engine.name} was not measured: {error}")
    else:
        # One that loads its models later keeps what it was promised.
        need = max(used, need) if engine.kind in LAZY else used or need
        if engine.device != "cpu" and not used and engine.kind not in LAZY:
            reason = f"holds no memory of card {engine.gpu_index}: it may run on the CPU"
            say(f"{engine.name} {reason}")
    root = host.root_pid(engine) or None
    host.states.put(engine.name, State(AWAKE, host.now(), need, reason, root))


def _remember(host: Host, engine: Engine, last: int | None) -> None:
    state = host.states.get(engine.name)
    if state and state.state == LOADING:
        seen = f"answered {last}" if last else "did not answer"
        reason = f"http://{engine.backend}{engine.health} {seen}"
        host.states.put(engine.name, replace(state, reason=reason))


def _died(engine: Engine) -> int:
    say(f"{engine.name} ended while it was loading")
    return 1
