"""Eviction: the proxies and the connections are real."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gatehouse.engines import connections, processes
from gatehouse.engines.admit import admit
from gatehouse.engines.errors import RefusedError
from gatehouse.engines.evict import evict, wait_gone
from gatehouse.engines.host import Host
from gatehouse.engines.state import AWAKE, LEAVING, LOADING, State
from tests.engines import FakeUnits, host_with, state_of
from tests.waiting import wait_for


class Proxy:
    """A process that accepts on a port, as systemd's proxy does; the queue belongs to the test."""

    def __init__(self) -> None:
        """Listen and start it."""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        accepting = (
            "import socket, sys\n"
            "listener, taken = socket.socket(fileno=int(sys.argv[1])), []\n"
            "print('ready', flush=True)\n"
            "while True: taken.append(listener.accept())\n"
        )
        number = self.listener.fileno()
        self.process = subprocess.Popen(
            [sys.executable, "-c", accepting, str(number)],
            pass_fds=[number],
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout
        self.process.stdout.readline()

    def connect(self) -> socket.socket:
        """Become its client."""
        return socket.create_connection(("127.0.0.1", self.port))

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        self.listener.close()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """Give a proxy that runs."""
    with closing(Proxy()) as found:
        yield found


@pytest.fixture
def other() -> Iterator[Proxy]:
    """Give a second one."""
    with closing(Proxy()) as found:
        yield found


def awake_behind(
    proxies: list[Proxy], root: Path, patch: pytest.MonkeyPatch
) -> tuple[Host, FakeUnits]:
    """Give a host with an awake engine of 4000 MiB behind each proxy, and one that wants 6000."""
    names = ["chat-a", "chat-b"][: len(proxies)]
    entries = [
        {"name": name, "port": proxy.port} for name, proxy in zip(names, proxies, strict=True)
    ]
    wants = {"name": "chat-new", "port": 1, "memory_mib": 6000}
    host, units = host_with(
        root, patch, *entries, wants, total_mib=1000 + 4000 * len(proxies) + 1000
    )
    for name, proxy in zip(names, proxies, strict=True):
        engine = host.config.engine(name)
        host.states.put(name, State(AWAKE, 1.0, 4000))
        units.run(engine.server)
        units.run(engine.service, proxy.process.pid)
    return host, units


def leave(host: Host, name: str) -> threading.Thread:
    """Be the unit of an engine that goes when it is told to."""

    def clean_up() -> None:
        wait_for(lambda: state_of(host, name) == LEAVING, 10, f"{name} to be told")
        host.states.drop(name)

    thread = threading.Thread(target=clean_up)
    thread.start()
    return thread


def test_connections_are_counted_per_local_port(proxy: Proxy) -> None:
    """Accepted ones count, waiting ones count, closed ones do not, and neither do the clients' ends."""
    assert connections.by_port().get(proxy.port, 0) == 0
    first, second = proxy.connect(), proxy.connect()
    wait_for(lambda: connections.by_port().get(proxy.port) == 2, 5, "two connections")
    assert connections.by_port().get(first.getsockname()[1]) == 1
    second.close()
    # The proxy keeps its end open: somebody who has said all may still wait for an answer.
    assert connections.by_port().get(proxy.port) == 2
    proxy.close()
    wait_for(lambda: not connections.by_port().get(proxy.port), 5, "no connection")
    first.close()


def test_connections_over_ipv6_are_counted() -> None:
    """The second table of the kernel is read too."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("::1", port)):
            assert connections.by_port().get(port) == 1


def test_a_foreign_line_of_the_table_is_not_counted() -> None:
    """The heading, listening sockets and sockets in TIME_WAIT make nobody busy."""
    lines = [
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt",
        "   0: 0100007F:1F94 00000000:0000 0A 00000000:00000000 00:00000000 00000000",
        "   1: 0100007F:1F94 0100007F:B0C2 06 00000000:00000000 03:00000000 00000000",
        "   2: 0100007F:1F94 0100007F:B0C4 01 00000000:00000000 00:00000000 00000000",
    ]
    assert connections.parse(lines) == {8084: 1}


def test_an_idle_engine_makes_room(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server is asked to stop, its proxy is killed, and the start waits until it is gone."""
    host, units = awake_behind([proxy], tmp_path, monkeypatch)
    clean_up = leave(host, "chat-a")
    admit(host, "chat-new")
    clean_up.join()
    assert units.stopped() == ["gatehouse-server-chat-a.service"]
    assert proxy.process.wait(5) == -signal.SIGKILL
    assert (state_of(host, "chat-a"), state_of(host, "chat-new")) == (None, LOADING)


def test_who_came_before_the_kill_waits_in_the_queue(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that connects while the proxy is frozen is not cut: the queue outlives the proxy."""
    host, _ = awake_behind([proxy], tmp_path, monkeypatch)
    clients: list[socket.socket] = []
    stop = host.units.stop

    def connect_then_stop(name: str) -> None:
        clients.append(proxy.connect())
        stop(name)

    monkeypatch.setattr(host.units, "stop", connect_then_stop)
    assert evict(host, [host.config.engine("chat-a")])
    proxy.process.wait(5)
    proxy.listener.settimeout(5)
    taken, _ = proxy.listener.accept()
    clients[0].sendall(b"still here")
    assert taken.recv(10) == b"still here"
    taken.close()
    clients[0].close()


def test_a_busy_engine_is_left_alone(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client is connected: the start is refused, and the proxy has not even been frozen."""
    host, units = awake_behind([proxy], tmp_path, monkeypatch)
    busy = r"chat-a 4000 \(busy, 1 connection\)"
    with proxy.connect(), pytest.raises(RefusedError, match=busy):
        admit(host, "chat-new")
    assert proxy.process.poll() is None
    assert units.stopped() == []


def test_an_engine_that_turns_out_to_be_busy_goes_on(
    proxy: Proxy, other: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two to be evicted got a client meanwhile: neither goes, and both proxies run again."""
    host, units = awake_behind([proxy, other], tmp_path, monkeypatch)
    with other.connect():
        engines = [host.config.engine(name) for name in ("chat-a", "chat-b")]
        assert not evict(host, engines)
    for each in (proxy, other):
        wait_for(lambda each=each: not processes.is_stopped(each.process.pid), 5, "a proxy to run")
        with each.connect() as client:
            client.sendall(b"x")
    assert units.stopped() == []
    assert (state_of(host, "chat-a"), state_of(host, "chat-b")) == (AWAKE, AWAKE)


def test_the_one_unused_for_longest_goes_by_the_journal(
    proxy: Proxy, other: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last line that an engine wrote is its last use."""
    host, units = awake_behind([proxy, other], tmp_path, monkeypatch)
    units.used("gatehouse-server-chat-a.service", 200.0)
    units.used("gatehouse-server-chat-b.service", 100.0)
    clean_up = leave(host, "chat-b")
    admit(host, "chat-new")
    clean_up.join()
    assert units.stopped() == ["gatehouse-server-chat-b.service"]
    assert proxy.process.poll() is None


def test_one_that_does_not_go_is_a_refusal_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for ever for an engine that does not leave, and it is told again."""
    host, units = host_with(tmp_path, monkeypatch, {})
    host.states.put("chat-a", State(LEAVING, 1.0, 4000))
    units.run("gatehouse-server-chat-a.service")
    with pytest.raises(RefusedError, match=r"chat-a was told to make room and is not gone"):
        wait_gone(host, ("chat-a",), 1.5)
    assert units.stopped() == ["gatehouse-server-chat-a.service"]


def test_one_whose_unit_is_dead_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clean-up that never came does not hold the next one up."""
    host, _ = host_with(tmp_path, monkeypatch, {})
    host.states.put("chat-a", State(LEAVING, 1.0, 4000))
    begin = time.monotonic()
    wait_gone(host, ("chat-a",))
    assert time.monotonic() - begin < 5


def test_a_process_that_stands_still_is_seen() -> None:
    """SIGSTOP takes a moment; only what has arrived counts."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        assert not processes.is_stopped(process.pid)
        os.kill(process.pid, signal.SIGSTOP)
        wait_for(lambda: processes.is_stopped(process.pid), 5, "it to stand still")
        process.kill()
