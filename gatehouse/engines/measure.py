"""What an engine that runs needs, for its next start."""

import os
import time
from dataclasses import replace

from gatehouse.engines import measured
from gatehouse.engines.config import Engine
from gatehouse.engines.errors import EngineError, say
from gatehouse.engines.host import Host
from gatehouse.engines.measured import Measured
from gatehouse.engines.state import AWAKE, LEAVING, LOADING


def main(arguments: list[str]) -> int:
    """Measure once more before a stop; nothing that happens here may keep the engine from it."""
    (name,) = arguments
    try:
        before_stop(Host(), name, died="MAINPID" not in os.environ)
    except (EngineError, OSError) as error:
        say(f"{name} was not measured: {error}")
    return 0


def before_stop(host: Host, name: str, *, died: bool = False) -> None:
    """Say that the engine is about to go, so that others wait for it, and measure it once more.

    systemd calls this after a death too, and tells no MAINPID then.
    """
    engine = host.config.engine(name)
    if died:
        # First of all: until its proxy is gone, clients are handed to nobody.
        host.units.stop(engine.service)
    state = host.states.get(name)
    if state and state.state == AWAKE:
        leaving = replace(state, state=LEAVING, since=host.now(), reason="is being stopped")
        host.states.put(name, leaving)
    before = measured.read(host.paths.measured, name)
    if state and state.state != LOADING and before:
        measure(host, engine, before.load_seconds, before.memory_mib)


def measure(host: Host, engine: Engine, load_seconds: float, at_least: int = 0) -> int:
    """Record what an engine holds now, or held before in this run if that was more; give it."""
    meter = host.meter(engine)
    pids = host.pids(engine, host.states.get(engine.name))
    memory = max(at_least, meter.need(engine, pids, meter.read(engine.gpu_index)))
    config = None
    if engine.container and (container := host.docker.container(engine.container)):
        config = container.config
    measured.record(
        host.paths.measured,
        engine.name,
        Measured(memory, round(load_seconds, 3), time.time(), engine.memory_mib, config),
    )
    return memory
