"""The program that answers for an engine that may not start, on sockets as systemd passes them."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from gatehouse.engines.host import Host
from gatehouse.engines.state import FAILED, REFUSED, State
from tests.engines import host_with
from tests.waiting import wait_for


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    """Give two sockets that listen, as the unit has them."""
    found = [socket.create_server(("127.0.0.1", 0), backlog=128) for _ in range(2)]
    yield found
    for each in found:
        each.close()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Give a host whose engine was refused."""
    found, _ = host_with(tmp_path, monkeypatch, {})
    found.states.put("chat-a", State(REFUSED, time.time(), reason="needs 6000 MiB"))
    return found


def refuse(listeners: list[socket.socket]) -> subprocess.Popen[bytes]:
    """Start the program with the sockets as descriptors 3 and 4."""
    numbers = [each.fileno() for each in listeners]
    # As systemd does it: the sockets become 3 and 4, wherever they were before.
    place = (
        "import os, sys\n"
        f"high = [os.dup2(number, 100 + index) for index, number in enumerate({numbers})]\n"
        "for index, number in enumerate(high): os.dup2(number, 3 + index)\n"
        "os.execv(sys.executable, [sys.executable, '-I', '-m', 'gatehouse.engines', "
        "'refuse', 'chat-a'])\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", place],
        pass_fds=numbers,
        env={**os.environ, "LISTEN_FDS": str(len(listeners))},
    )


def ask(port: int, body: bytes = b"{}") -> tuple[int, dict[str, str], dict[str, Any]]:
    """Send a request and give status, headers and body of the answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/v1/chat/completions", body)
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), json.loads(answer.read())


def test_the_reason_reaches_clients_on_both_sockets_and_then_it_ends(
    host: Host, listeners: list[socket.socket]
) -> None:
    """Clients get OpenAI's form of an error with the reason; a second after the last one it ends."""
    with refuse(listeners) as program:
        for listener in listeners:
            status, headers, body = ask(listener.getsockname()[1])
            assert status == 503
            assert headers["Content-Type"] == "application/json"
            assert headers["Connection"] == "close"
            assert int(headers["Retry-After"]) > 0
            assert body["error"]["type"] == "engine_unavailable"
            assert body["error"]["code"] == "refused"
            assert "chat-a" in body["error"]["message"]
            assert "needs 6000 MiB" in body["error"]["message"]
        last = time.monotonic()
        assert program.wait(10) == 0
        assert 0.5 < time.monotonic() - last < 5


def test_ten_that_waited_are_all_answered(host: Host, listeners: list[socket.socket]) -> None:
    """Everybody who was in the queue before the program came gets the answer, one slow client or not."""
    port = listeners[0].getsockname()[1]
    with ThreadPoolExecutor(10) as pool, socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(b"POST / HTTP/1.1\r\nContent-Le")
        asked = [pool.submit(ask, port) for _ in range(10)]
        begin = time.monotonic()
        with refuse(listeners) as program:
            assert [each.result()[0] for each in asked] == [503] * 10
            assert time.monotonic() - begin < 2.5
            assert slow.recv(100).startswith(b"HTTP/1.1 503")
            slow.close()
            assert program.wait(10) == 0


def test_a_large_request_is_read_before_it_is_refused(
    host: Host, listeners: list[socket.socket]
) -> None:
    """A client that sends an image is not met with a reset: it gets to read the answer."""
    with refuse(listeners):
        for _ in range(5):
            status, _, body = ask(listeners[0].getsockname()[1], b"x" * 8 * 2**20)
            assert (status, body["error"]["code"]) == (503, "refused")


def test_a_failure_says_when_it_is_worth_another_try(
    host: Host, listeners: list[socket.socket]
) -> None:
    """Retry-After is what is left of the engine's pause after a failure."""
    host.states.put("chat-a", State(FAILED, time.time() - 10, reason="ended with exit code 3"))
    with refuse(listeners):
        _, headers, body = ask(listeners[0].getsockname()[1])
    assert 15 <= int(headers["Retry-After"]) <= 20
    assert body["error"]["code"] == "failed"
    assert "exit code 3" in body["error"]["message"]


def test_a_client_that_says_nothing_or_goes_does_not_keep_it(
    host: Host, listeners: list[socket.socket]
) -> None:
    """Silent and vanished clients are given up after a few seconds."""
    address = listeners[0].getsockname()
    with socket.create_connection(address), refuse(listeners) as program:
        socket.create_connection(address).close()
        assert program.wait(15) == 0


def test_a_client_that_hammers_does_not_keep_it_for_ever(
    host: Host, listeners: list[socket.socket]
) -> None:
    """After a few seconds it ends all the same: who is in the queue then starts the engine anew."""
    done = threading.Event()
    statuses: list[int] = []

    def hammer() -> None:
        while not done.is_set():
            try:
                statuses.append(ask(listeners[0].getsockname()[1])[0])
            except OSError:  # the test is over: the sockets are closed
                return

    hammering = threading.Thread(target=hammer, daemon=True)
    with refuse(listeners) as program:
        begin = time.monotonic()
        hammering.start()
        assert program.wait(15) == 0
        assert 4 < time.monotonic() - begin < 10
    assert len(statuses) > 20
    assert set(statuses) == {503}
    # Whoever is in the queue now is answered by the next one: nobody was cut.
    with refuse(listeners):
        seen = len(statuses)
        wait_for(lambda: len(statuses) > seen, 10, "the one in the queue")
        done.set()
        hammering.join(10)
    assert set(statuses) == {503}


def test_it_goes_when_the_engine_is_awake(host: Host, listeners: list[socket.socket]) -> None:
    """Once connections can be handed on nobody is refused any more."""
    begin = time.monotonic()
    with refuse(listeners) as program:
        host.states.put("chat-a", State("awake", time.time()))
        assert program.wait(10) == 0
    assert time.monotonic() - begin < 1
