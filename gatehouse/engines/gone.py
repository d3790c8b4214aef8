"""What is left to do when an engine has ended, however it ended."""

import os
from collections.abc import Mapping

from gatehouse.engines import measured
from gatehouse.engines.config import Engine
from gatehouse.engines.host import Host
from gatehouse.engines.state import AWAKE, FAILED, LEAVING, LOADING, REFUSED, State


def main(arguments: list[str]) -> int:
    """Clean up after an engine."""
    (name,) = arguments
    host = Host()
    gone(host, host.config.engine(name), os.environ)
    return 0


def gone(host: Host, engine: Engine, environment: Mapping[str, str]) -> None:
    """Free what the engine held and say what became of it.

    `environment` is systemd's: SERVICE_RESULT, EXIT_CODE and EXIT_STATUS.
    """
    state = host.states.get(engine.name)
    try:
        _kill(host, engine)
    finally:
        # After its end, never before: until then others must not count on its memory.
        _settle(host, engine, state, environment)


def _kill(host: Host, engine: Engine) -> None:
    """End a container whose `docker start` was killed: that client is not the engine."""
    if engine.container is None:
        return
    container = host.docker.container(engine.container)
    if container and container.running:
        host.docker.kill(engine.container)


def _settle(
    host: Host, engine: Engine, state: State | None, environment: Mapping[str, str]
) -> None:
    was = state.state if state else None
    if was in (REFUSED, FAILED):
        return  # it was not let start: the reason stands there already
    if _was_stopped(environment) or was in (AWAKE, LEAVING):
        host.states.drop(engine.name)
        # A proxy that is still there has lost its engine, which ended by itself: it goes too, so
        # that the next connection starts both anew.
        if (unit := host.units.show([engine.service]).get(engine.service)) and unit.pid:
            host.units.stop(engine.service)
    else:
        measured.forget(host.paths.measured, engine.name)
        reason = _reason(engine, was, state.reason if state else "", environment)
        host.states.put(engine.name, State(FAILED, host.now(), reason=reason))


def _was_stopped(environment: Mapping[str, str]) -> bool:
    """Say whether somebody stopped it; SIGTERM may have come before we caught it."""
    result = environment.get("SERVICE_RESULT", "success")
    asked = environment.get("EXIT_STATUS", "TERM") in ("TERM", "143")
    return result == "success" or (result == "signal" and asked)


def _reason(engine: Engine, was: str | None, seen: str, environment: Mapping[str, str]) -> str:
    code, status = environment.get("EXIT_CODE", ""), environment.get("EXIT_STATUS", "")
    if environment.get("SERVICE_RESULT") == "timeout":
        what = f"was not ready after {engine.load_seconds} s (load_seconds)"
        what += f": {seen}" if seen else ""
    elif was != LOADING:
        what = "could not be started"
    elif code == "killed":
        what = f"was killed by signal {status} while loading"
    elif code == "exited":
        what = f"ended with exit code {status} while loading"
    else:
        what = f"did not load ({environment.get('SERVICE_RESULT')})"
    return f"{what}; see `journalctl -u {engine.server}`"
