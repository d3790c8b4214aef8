"""An engine becomes ready, is measured, and is cleaned up after."""

import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from gatehouse.engines import measured
from gatehouse.engines.container import ready_to_start
from gatehouse.engines.errors import EngineError, RefusedError
from gatehouse.engines.gone import gone
from gatehouse.engines.host import Host
from gatehouse.engines.measure import before_stop
from gatehouse.engines.measured import Measured
from gatehouse.engines.memory import MemoryMeter
from gatehouse.engines.ready import ready
from gatehouse.engines.state import AWAKE, FAILED, LEAVING, LOADING, REFUSED, State
from tests.engines import host_with, state_of
from tests.waiting import wait_for

FAILURE = {"SERVICE_RESULT": "exit-code", "EXIT_CODE": "exited", "EXIT_STATUS": "3"}


class Loading(BaseHTTPRequestHandler):
    """Answers 503 twice, then 200, as llama.cpp does while it loads."""

    asked = 0

    def do_GET(self) -> None:
        """Answer a question about health."""
        type(self).asked += 1
        self.send_response(503 if self.asked < 3 else 200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    """Give the address of an engine that loads."""
    Loading.asked = 0
    with HTTPServer(("127.0.0.1", 0), Loading) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{found.server_port}"
        found.shutdown()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Give a process that lives."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as found:
        yield found
        found.kill()


def test_ready_waits_through_503_and_marks_awake(
    server: str, process: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third answer is 200: awake, measured, and the measured need counts from then on."""
    host, units = host_with(tmp_path, monkeypatch, {"backend": server})
    host.states.put("chat-a", State(LOADING, 1.0, 5000))
    units.run("gatehouse-server-chat-a.service", process.pid)
    assert ready(host, host.config.engine("chat-a"), process.pid) == 0
    assert Loading.asked == 3
    state = host.states.get("chat-a")
    assert state is not None
    assert (state.state, state.need_mib, state.pid) == (AWAKE, 4000, process.pid)
    assert host.states.is_awake("chat-a")
    seen = measured.read(host.paths.measured, "chat-a")
    assert seen is not None
    assert seen.memory_mib == 4000
    assert 0.1 < seen.load_seconds < 5


def test_ready_ends_at_once_when_the_engine_dies(
    process: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody answers, the process ends: the wait is over within a moment, and it never was awake."""
    host, _ = host_with(tmp_path, monkeypatch, {"backend": "127.0.0.1:1"})
    host.states.put("chat-a", State(LOADING, 1.0, 5000))
    killer = threading.Timer(0.3, process.kill)
    killer.start()
    begin = time.monotonic()
    assert ready(host, host.config.engine("chat-a"), process.pid) == 1
    assert 0.2 < time.monotonic() - begin < 2
    assert state_of(host, "chat-a") == LOADING
    process.wait()
    assert ready(host, host.config.engine("chat-a"), process.pid) == 1
    assert ready(host, host.config.engine("chat-a"), 0) == 1


def test_ready_that_is_ended_by_its_time_tells_what_it_saw(
    process: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended by SIGTERM, as systemd does, it leaves what the engine answered last to the failure."""
    host, _ = host_with(tmp_path, monkeypatch, {"backend": "127.0.0.1:1"})
    host.states.put("chat-a", State(LOADING, 1.0, 5000))
    waiter = subprocess.Popen(
        [sys.executable, "-m", "gatehouse.engines", "ready", "chat-a", str(process.pid)]
    )
    caught = f"/proc/{waiter.pid}/status"
    wait_for(lambda: _catches(caught, signal.SIGTERM), 10, "it to wait")
    waiter.terminate()
    assert waiter.wait(10) == 0
    gone(host, host.config.engine("chat-a"), {"SERVICE_RESULT": "timeout"})
    state = host.states.get("chat-a")
    assert state is not None
    assert state.state == FAILED
    assert "not ready after 300 s (load_seconds)" in state.reason
    assert "http://127.0.0.1:1/health did not answer" in state.reason


def _catches(path: str, number: int) -> bool:
    line = next(line for line in Path(path).read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def test_one_that_ends_while_loading_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason has the exit code and where the log is; what was measured before is dropped."""
    host, units = host_with(tmp_path, monkeypatch, {})
    host.states.put("chat-a", State(LOADING, 1.0, 4000))
    measured.record(host.paths.measured, "chat-a", Measured(100, 1.0, 1.0, 4000))
    gone(host, host.config.engine("chat-a"), FAILURE)
    state = host.states.get("chat-a")
    assert state is not None
    assert (state.state, state.reason) == (
        FAILED,
        "ended with exit code 3 while loading; see `journalctl -u gatehouse-server-chat-a.service`",
    )
    assert measured.read(host.paths.measured, "chat-a") is None
    assert units.stopped() == []


@pytest.mark.parametrize("kept", [REFUSED, FAILED])
def test_one_that_was_not_let_start_keeps_its_reason(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unit of a refused start fails too, and that is no new failure."""
    host, _ = host_with(tmp_path, monkeypatch, {})
    state = State(kept, 1.0, reason="why")
    host.states.put("chat-a", state)
    gone(host, host.config.engine("chat-a"), FAILURE)
    assert host.states.get("chat-a") == state


@pytest.mark.parametrize("was", [LOADING, AWAKE, LEAVING])
@pytest.mark.parametrize(
    "environment",
    [
        {"SERVICE_RESULT": "success"},
        {"SERVICE_RESULT": "signal"},
        {"SERVICE_RESULT": "signal", "EXIT_CODE": "killed", "EXIT_STATUS": "TERM"},
    ],
)
def test_one_that_was_stopped_is_asleep(
    was: str, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop in any state is no failure."""
    host, units = host_with(tmp_path, monkeypatch, {})
    host.states.put("chat-a", State(was, 1.0, 4000))
    gone(host, host.config.engine("chat-a"), environment)
    assert state_of(host, "chat-a") is None
    assert not host.states.is_awake("chat-a")
    assert units.stopped() == []


@pytest.mark.parametrize("result", ["success", "signal"])
def test_one_that_ends_by_itself_takes_its_proxy_with_it(
    result: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy whose engine has gone is stopped, so that the next request starts both."""
    host, units = host_with(tmp_path, monkeypatch, {})
    host.states.put("chat-a", State(AWAKE, 1.0, 4000))
    units.run("gatehouse-engine-chat-a.service", 4711)
    before_stop(host, "chat-a", died=True)
    assert units.stopped() == ["gatehouse-engine-chat-a.service"]
    gone(host, host.config.engine("chat-a"), {"SERVICE_RESULT": result})
    assert units.stopped() == ["gatehouse-engine-chat-a.service"] * 2
    assert state_of(host, "chat-a") is None


def test_one_that_is_about_to_stop_says_so_and_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the beginning of a stop on nobody is handed on; the most memory of the run is kept."""
    host, _ = host_with(tmp_path, monkeypatch, {})
    host.states.put("chat-a", State(AWAKE, 1.0, 4000))
    measured.record(host.paths.measured, "chat-a", Measured(4500, 2.5, 1.0, 4000))
    before_stop(host, "chat-a")
    assert state_of(host, "chat-a") == LEAVING
    assert not host.states.is_awake("chat-a")
    seen = measured.read(host.paths.measured, "chat-a")
    assert seen is not None
    assert (seen.memory_mib, seen.load_seconds) == (4500, 2.5)


def test_the_memory_of_a_process_is_found(process: subprocess.Popen[bytes]) -> None:
    """What /proc says about this process agrees with what it did: it holds 64 MiB more."""
    before = MemoryMeter().read(0)
    held = bytearray(os.urandom(1)) * (64 * 2**20)
    after = MemoryMeter().read(0)
    assert before.total_mib == after.total_mib > after.used_mib > 0
    assert 60 <= after.by_pid[os.getpid()] - before.by_pid[os.getpid()] <= 80
    assert process.pid in after.by_pid
    assert len(held) == 64 * 2**20


class Daemon(BaseHTTPRequestHandler):
    """As much of Docker's API as engines use."""

    containers: dict[str, dict[str, object]]
    networks: set[str]
    killed: list[str]

    def do_GET(self) -> None:
        """Tell about a container or a network."""
        _, kind, name, *_ = self.path.split("/")
        found: object = self.containers.get(name) if kind == "containers" else {"Id": name}
        if kind == "networks" and name not in self.networks:
            found = None
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(json.dumps(found or {"message": "no such thing"}).encode())

    def do_POST(self) -> None:
        """Kill a container."""
        name = self.path.split("/")[2]
        self.killed.append(name)
        self.containers[name] = container(running=False)
        self.send_response(204)
        self.end_headers()

    def address_string(self) -> str:
        """Give a name: a Unix socket has no address."""
        return "local"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def container(*, running: bool, network: str = "net-1") -> dict[str, object]:
    """Give what Docker says about a container."""
    return {
        "State": {"Pid": 4711 if running else 0, "Running": running},
        "Config": {"Labels": {"com.docker.compose.config-hash": "abc"}},
        "NetworkSettings": {"Networks": {"engines": {"NetworkID": network}}},
    }


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Give a host with one engine in a container, and a daemon that knows it."""
    host, _ = host_with(tmp_path, monkeypatch, {"container": "gatehouse-chat-a-1"})
    Daemon.containers = {"gatehouse-chat-a-1": container(running=False)}
    Daemon.networks, Daemon.killed = {"net-1"}, []
    host.paths.docker.parent.mkdir(parents=True)
    with socketserver.UnixStreamServer(str(host.paths.docker), Daemon) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield host
        found.shutdown()


def test_ready_leaves_the_address_alone_until_the_container_runs(
    server: str, process: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question to an address that nobody has yet would be answered a second late."""
    host, _ = host_with(tmp_path, monkeypatch, {"backend": server, "container": "gatehouse-a-1"})
    host.states.put("chat-a", State(LOADING, 1.0, 5000))
    asked_before = []

    class Starting(Daemon):
        def do_GET(self) -> None:
            asked_before.append(Loading.asked)
            running = len(asked_before) >= 4
            self.containers = {"gatehouse-a-1": container(running=running)}
            super().do_GET()

    host.paths.docker.parent.mkdir(parents=True)
    with socketserver.UnixStreamServer(str(host.paths.docker), Starting) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        assert ready(host, host.config.engine("chat-a"), process.pid) == 0
        found.shutdown()
    assert asked_before[:4] == [0, 0, 0, 0]
    assert Loading.asked == 3


def test_a_container_that_outlived_its_unit_is_killed(daemon: Host) -> None:
    """The client of Docker was killed, the container was not: it goes before its memory is free."""
    Daemon.containers["gatehouse-chat-a-1"] = container(running=True)
    daemon.states.put("chat-a", State(AWAKE, 1.0, 4000))
    gone(daemon, daemon.config.engine("chat-a"), {"SERVICE_RESULT": "signal"})
    assert Daemon.killed == ["gatehouse-chat-a-1"]
    assert state_of(daemon, "chat-a") is None


def test_a_container_that_is_fit_is_left_alone(daemon: Host) -> None:
    """It is there and so is its network: only its configuration's hash is taken from it."""
    assert ready_to_start(daemon, daemon.config.engine("chat-a")) == "abc"


@pytest.mark.parametrize("missing", ["container", "network"])
def test_a_container_that_cannot_start_is_made_anew(
    missing: str, daemon: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compose makes it from the release; what it says is the reason when it cannot."""
    if missing == "container":
        Daemon.containers.clear()
    else:
        Daemon.networks.clear()
    programs = tmp_path / "bin"
    programs.mkdir()
    docker = programs / "docker"
    docker.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/asked\necho "no such image" >&2\nexit 1\n'
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with pytest.raises(RefusedError, match="no such image"):
        ready_to_start(daemon, daemon.config.engine("chat-a"))
    release = daemon.paths.release.resolve()
    assert (tmp_path / "asked").read_text().split() == (
        f"compose --project-directory {release} -f {release}/compose.yaml --profile engines "
        "create --no-build --force-recreate chat-a"
    ).split()


def test_a_daemon_that_is_away_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Docker the error says so, and how to look."""
    host, _ = host_with(tmp_path, monkeypatch, {"container": "gatehouse-chat-a-1"})
    with pytest.raises(EngineError, match="systemctl status docker"):
        ready_to_start(host, host.config.engine("chat-a"))
