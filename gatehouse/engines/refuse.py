"""The answer to connections of an engine that may not start: 503 with the reason, then gone.

It gets the sockets from systemd and has no rights at all.
"""

import os
import selectors
import socket
import time

from gatehouse.engines.answer import Exchange, response
from gatehouse.engines.config import Engine
from gatehouse.engines.host import Host
from gatehouse.engines.signals import unwind_when_stopped
from gatehouse.engines.state import FAILED, States

_FIRST_DESCRIPTOR = 3
# systemd gives up on a socket that starts its service 20 times in 2 s: stay for a moment, so that a
# client that tries again and again meets us, and not a new start each time.
LINGER_SECONDS = 1.0
# But not for ever, or the engine would never be tried again under a client that hammers.
LIFE_SECONDS = 5.0
MOST = 256
_LOOK_SECONDS = 0.2


def main(arguments: list[str]) -> int:
    """Refuse all connections on the sockets that systemd passes."""
    (name,) = arguments
    unwind_when_stopped()
    host = Host()
    engine = host.config.engine(name)
    count = int(os.environ.get("LISTEN_FDS", "0"))
    listeners = [socket.socket(fileno=_FIRST_DESCRIPTOR + index) for index in range(count)]
    serve(listeners, engine, host.states)
    return 0


def serve(listeners: list[socket.socket], engine: Engine, states: States) -> None:
    """Answer everybody, many at once, until nobody came for a moment or the engine is awake."""
    selector = selectors.DefaultSelector()
    for listener in listeners:
        listener.settimeout(0)
        selector.register(listener, selectors.EVENT_READ)
    open_: set[Exchange] = set()
    begin = last = time.monotonic()
    while True:
        now = time.monotonic()
        if not open_ and (
            now - last > LINGER_SECONDS
            or now - begin > LIFE_SECONDS
            or states.is_awake(engine.name)
        ):
            return
        for key, _ in selector.select(_LOOK_SECONDS):
            if isinstance(key.data, Exchange):
                key.data.step()
            # Past our time the rest waits in the socket's queue, for a new start of the engine.
            elif len(open_) < MOST and (taken := _accept(key.fileobj, engine, states)):
                open_.add(taken)
                selector.register(taken.client, selectors.EVENT_READ, taken)
        for done in [each for each in open_ if each.is_over()]:
            open_.remove(done)
            selector.unregister(done.client)
            done.client.close()
            last = time.monotonic()
        # A listener that we do not take from would wake us without end.
        _listen(selector, listeners, now - begin <= LIFE_SECONDS and len(open_) < MOST)


def _listen(
    selector: selectors.BaseSelector,
    listeners: list[socket.socket],
    wanted: bool,  # noqa: FBT001
) -> None:
    for listener in listeners:
        if wanted and listener not in selector.get_map():
            selector.register(listener, selectors.EVENT_READ)
        elif not wanted and listener in selector.get_map():
            selector.unregister(listener)


def _accept(listener: object, engine: Engine, states: States) -> Exchange | None:
    assert isinstance(listener, socket.socket)  # noqa: S101 - only sockets are registered
    try:
        client, _ = listener.accept()
    except OSError:
        return None  # gone again before we looked
    client.settimeout(0)
    return Exchange(client, refusal(engine, states))


def refusal(engine: Engine, states: States) -> bytes:
    """Give the answer for a client, from what the engine's state says now."""
    state = states.get(engine.name)
    code, retry = "refused", int(LIFE_SECONDS)
    if state and state.state == FAILED:
        code = "failed"
        retry = max(1, round(engine.retry_seconds - (time.time() - state.since)))
    reason = (
        state.reason
        if state and state.reason
        else (f"does not run; `systemctl status {engine.server}` says why")
    )
    return response(f"the engine {engine.name} is not available: {reason}", code, retry)
