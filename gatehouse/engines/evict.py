"""Stopping idle engines without cutting a request."""

import os
import signal
import time
from contextlib import ExitStack, suppress
from dataclasses import replace

from gatehouse.engines import processes
from gatehouse.engines.config import Engine
from gatehouse.engines.errors import RefusedError
from gatehouse.engines.host import Host
from gatehouse.engines.state import LEAVING, State

GONE_SECONDS = 60
_FREEZE_SECONDS = 1
_ASK_SECONDS = 1


class Proxy:
    """The process that holds an engine's connections, frozen for as long as we look.

    A look at the connections is worth nothing while the proxy can accept one right after it. Frozen
    it accepts none: who comes now waits in the socket's queue, which belongs to systemd. Killed
    (not stopped: a stop takes the whole unit's time) it leaves the queue to systemd, which starts
    the engine anew for whoever is in it.
    """

    def __init__(self, pid: int) -> None:
        """Take hold of the process, not of its number, which another could get."""
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)

    def freeze(self) -> bool:
        """Stop it from running and say whether it does."""
        self._send(signal.SIGSTOP)
        end = time.monotonic() + _FREEZE_SECONDS
        while not processes.is_stopped(self.pid):
            if time.monotonic() > end:
                return False
            time.sleep(0.001)
        return True

    def kill(self) -> None:
        """End it."""
        self._send(signal.SIGKILL)

    def release(self) -> None:
        """Let it go on, if it lives."""
        self._send(signal.SIGCONT)
        os.close(self._descriptor)

    def _send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)


def evict(host: Host, engines: list[Engine]) -> bool:
    """Tell idle engines to go, all or none; False when one of them turns out to be busy.

    Call it under the lock, and wait with `wait_gone` without it.
    """
    with ExitStack() as frozen:
        proxies = {}
        units = host.units.show(engine.service for engine in engines)
        for engine in engines:
            unit = units.get(engine.service)
            if unit is None or not unit.pid:
                continue  # started by hand, and its proxy has left: nobody is connected
            try:
                proxies[engine] = Proxy(unit.pid)
            except ProcessLookupError:
                continue
            frozen.callback(proxies[engine].release)
            if not proxies[engine].freeze():
                return False
        counts = host.connections()
        if any(counts.get(engine.port) for engine in engines):
            return False
        for engine in engines:
            _dismiss(host, engine)
            # After the stop is queued: a client in the queue then starts the engine anew behind
            # that stop, instead of finding a proxy without an engine.
            if engine in proxies:
                proxies[engine].kill()
    return True


def _dismiss(host: Host, engine: Engine) -> None:
    state = host.states.get(engine.name) or State(LEAVING, 0)
    host.states.put(
        engine.name,
        replace(state, state=LEAVING, since=host.now(), reason="makes room for another engine"),
    )
    host.units.stop(engine.server)


def wait_gone(host: Host, names: tuple[str, ...], seconds: float = GONE_SECONDS) -> None:
    """Wait until engines that were told to go are gone; raise `RefusedError` when one is not."""
    since = {name: host.states.get(name) for name in names}
    waiting = {
        name: state.since for name, state in since.items() if state and state.state == LEAVING
    }
    end = time.monotonic() + seconds
    ask = time.monotonic() + _ASK_SECONDS
    while waiting := {name: at for name, at in waiting.items() if _is_leaving(host, name, at)}:
        if time.monotonic() > end:
            late = ", ".join(waiting)
            raise RefusedError(
                f"{late} was told to make room and is not gone after {seconds:g} s: "
                f"`systemctl status {host.config.engine(next(iter(waiting))).server}`"
            )
        if time.monotonic() > ask:
            waiting = _remind(host, waiting)
            ask = time.monotonic() + _ASK_SECONDS
        time.sleep(0.02)


def _is_leaving(host: Host, name: str, since: float) -> bool:
    state = host.states.get(name)
    return state is not None and state.state == LEAVING and state.since == since


def _remind(host: Host, waiting: dict[str, float]) -> dict[str, float]:
    """Forget those whose unit is dead, and repeat a stop that was never asked for.

    Both happen when somebody was killed between two steps: a clean-up, or the one who evicted.
    """
    servers = {name: host.config.engine(name).server for name in waiting}
    units = host.units.show(servers.values())
    for name, server in servers.items():
        if (
            server in units
            and units[server].active == "active"
            and _is_leaving(host, name, waiting[name])
        ):
            host.units.stop(server)
    return {
        name: since
        for name, since in waiting.items()
        if servers[name] in units and not units[servers[name]].dead
    }
