"""Admission: files, lock and processes are real, the card is simulated."""

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from gatehouse.engines import measured
from gatehouse.engines.admit import admit
from gatehouse.engines.errors import EngineError, RefusedError
from gatehouse.engines.host import Host
from gatehouse.engines.measured import Measured
from gatehouse.engines.state import AWAKE, FAILED, LEAVING, LOADING, REFUSED, State
from tests.engines import FakeUnits, host_with, state_of

A = {"name": "chat-a", "port": 18084, "memory_mib": 6000}
B = {"name": "chat-b", "port": 18085, "memory_mib": 6000}
C = {"name": "chat-c", "port": 18086, "memory_mib": 2000}


def awake(host: Host, units: FakeUnits, name: str, since: float = 1.0) -> None:
    """Let an engine be loaded, with a unit that runs."""
    engine = host.config.engine(name)
    host.states.put(name, State(AWAKE, since, engine.memory_mib or 0))
    units.run(engine.server)


def in_processes(host: Host, *names: str) -> list[str | None]:
    """Admit engines at the same moment, a process each; give their states afterwards."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(len(names))
    processes = [context.Process(target=_admit_at, args=(barrier, host, name)) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode in (0, 1)
    return [state_of(host, name) for name in names]


def _admit_at(barrier: Barrier, host: Host, name: str) -> None:
    barrier.wait(10)
    try:
        admit(host, name)
    except EngineError:
        sys.exit(1)


def test_an_engine_that_fits_gets_its_memory_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state says loading and how much was set aside."""
    host, _ = host_with(tmp_path, monkeypatch, A)
    admit(host, "chat-a")
    state = host.states.get("chat-a")
    assert state is not None
    assert (state.state, state.need_mib) == (LOADING, 6000)
    assert abs(state.since - time.time()) < 5


def test_two_starts_at_once_never_get_the_same_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two engines that do not fit together exactly one is admitted, however often it is tried."""
    host, units = host_with(tmp_path, monkeypatch, A, B)
    for name in ("chat-a", "chat-b"):
        units.run(host.config.engine(name).server, active="activating")
    for _ in range(15):
        assert sorted(map(str, in_processes(host, "chat-a", "chat-b"))) == [LOADING, REFUSED]
        host.states.drop("chat-a")
        host.states.drop("chat-b")


def test_many_starts_at_once_fill_the_card_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight engines of 3000 MiB on a card of 10000: three load, five are refused."""
    names = [f"chat-{letter}" for letter in "abcdefgh"]
    entries = [{"name": name, "port": 18084, "memory_mib": 3000} for name in names]
    host, units = host_with(tmp_path, monkeypatch, *entries)
    for name in names:
        units.run(host.config.engine(name).server, active="activating")
    assert sorted(map(str, in_processes(host, *names))) == [LOADING] * 3 + [REFUSED] * 5


def test_a_refusal_comes_within_a_second_and_is_kept_for_the_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is the error and stands in the state."""
    host, _ = host_with(tmp_path, monkeypatch, A, foreign_mib=5000)
    begin = time.monotonic()
    with pytest.raises(RefusedError, match="needs 6000 MiB, 5000 MiB free of 10000"):
        admit(host, "chat-a")
    assert time.monotonic() - begin < 1
    state = host.states.get("chat-a")
    assert state is not None
    assert state.state == REFUSED
    assert "other programs 5000" in state.reason


def test_what_was_measured_counts_instead_of_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine whose setting is too high for the card fits by what it was seen to need."""
    host, _ = host_with(tmp_path, monkeypatch, A, foreign_mib=5000)
    measured.record(host.paths.measured, "chat-a", Measured(4500, 1.0, 1.0, given=6000))
    admit(host, "chat-a")
    state = host.states.get("chat-a")
    assert state is not None
    assert state.need_mib == 4500


def test_a_state_of_a_dead_unit_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was killed without a clean-up does not block the card."""
    host, units = host_with(tmp_path, monkeypatch, A, B)
    (tmp_path / "card.json").write_text('{"total_mib": 13000}')
    host.states.put("chat-a", State(LOADING, 1.0, 9000))
    units.run("gatehouse-server-chat-a.service")
    with pytest.raises(RefusedError):
        admit(host, "chat-b")
    units.end("gatehouse-server-chat-a.service")
    admit(host, "chat-b")


def test_a_missing_model_file_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is tried without the file."""
    host, _ = host_with(tmp_path, monkeypatch, {**A, "file": "x.gguf"})
    with pytest.raises(RefusedError, match="run `gatehouse models pull chat-a`"):
        admit(host, "chat-a")
    assert state_of(host, "chat-a") == REFUSED


def test_a_card_that_is_not_there_names_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU engine on a host without a card is refused in words."""
    host, _ = host_with(tmp_path, monkeypatch, A)
    monkeypatch.delenv("GATEHOUSE_SIMULATED_CARD")
    text = host.paths.config.read_text().replace('"card": "nvidia"', '"card": "none"')
    host.paths.config.write_text(text)
    with pytest.raises(EngineError, match="gpu_mode"):
        admit(host, "chat-a")


def test_what_just_failed_is_not_tried_again_until_its_pause_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure is kept with its time through every refused try; a person may insist, once."""
    host, _ = host_with(tmp_path, monkeypatch, A)
    failed = State(FAILED, time.time() - 10, reason="ended with exit code 1")
    host.states.put("chat-a", failed)
    with pytest.raises(RefusedError, match=r"failed to load 1\d s ago; see `journalctl -u"):
        admit(host, "chat-a")
    assert host.states.get("chat-a") == failed
    host.states.ask_force("chat-a")
    admit(host, "chat-a")
    assert state_of(host, "chat-a") == LOADING
    host.states.put("chat-a", State(FAILED, time.time() - 31))
    admit(host, "chat-a")
    assert state_of(host, "chat-a") == LOADING


def test_an_unknown_need_takes_what_is_free_and_never_starts_beside_a_busy_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run of an engine that nobody knows is alone on the card, and is measured."""
    host, units = host_with(tmp_path, monkeypatch, {**A, "memory_mib": None}, C, foreign_mib=1000)
    admit(host, "chat-a")
    state = host.states.get("chat-a")
    assert state is not None
    assert state.need_mib == 9000
    host.states.put("chat-c", State(LOADING, 1.0, 2000))
    units.run(host.config.engine("chat-c").server)
    with pytest.raises(RefusedError):
        admit(host, "chat-a")


def test_who_may_drain_waits_for_memory_and_holds_none_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With drain_seconds an engine gets the memory as soon as a busy one has gone."""
    host, units = host_with(tmp_path, monkeypatch, A, {**B, "drain_seconds": 20})
    host.states.put("chat-a", State(LOADING, 1.0, 6000))
    units.run(host.config.engine("chat-a").server)
    context = multiprocessing.get_context("fork")
    waiter = context.Process(target=_admit_at, args=(context.Barrier(1), host, "chat-b"))
    waiter.start()
    _until(lambda: state_of(host, "chat-b") == LOADING)
    waiting = host.states.get("chat-b")
    assert waiting is not None
    assert waiting.need_mib == 0
    assert "waits for memory" in waiting.reason
    host.states.drop("chat-a")
    waiter.join(10)
    admitted = host.states.get("chat-b")
    assert admitted is not None
    assert (waiter.exitcode, admitted.need_mib) == (0, 6000)


def test_a_start_waits_for_a_leaving_engine_that_holds_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The promise is made at once, the start comes when the other is gone; a small one goes ahead."""
    host, units = host_with(tmp_path, monkeypatch, A, B, C)
    awake(host, units, "chat-a")
    host.states.put("chat-a", State(LEAVING, 5.0, 6000))
    admit(host, "chat-c")
    units.run(host.config.engine("chat-c").server)
    context = multiprocessing.get_context("fork")
    waiter = context.Process(target=_admit_at, args=(context.Barrier(1), host, "chat-b"))
    waiter.start()
    _until(lambda: state_of(host, "chat-b") == LOADING)
    waiter.join(0.5)
    assert waiter.is_alive()
    units.run(host.config.engine("chat-b").server)
    assert host.ledger_of(host.config.engine("chat-a")).free_mib == 2000
    host.states.drop("chat-a")
    waiter.join(10)
    assert waiter.exitcode == 0


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_admission_loads_no_large_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cold start waits for this program: what it imports would be most of its time."""
    host_with(tmp_path, monkeypatch, A)
    command = [
        *(sys.executable, "-I", "-X", "importtime"),
        *("-m", "gatehouse.engines", "admit", "chat-a"),
    ]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in said.splitlines()}
    assert "gatehouse" in loaded
    large = {"pydantic", "click", "rich", "httpx", "jinja2", "starlette", "asyncio"}
    assert loaded & large == set()
