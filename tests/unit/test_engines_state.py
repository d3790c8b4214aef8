"""States, the lock, what was measured, and the configuration."""

import json
import threading
import time
from pathlib import Path

import pytest

from gatehouse.engines import measured
from gatehouse.engines.config import Engine, load
from gatehouse.engines.errors import EngineError, UnknownEngineError
from gatehouse.engines.measured import Measured
from gatehouse.engines.state import AWAKE, FAILED, LEAVING, LOADING, State, States, locked
from tests.engines import ENGINE, host_with


def engine(**change: object) -> Engine:
    """Give an engine with some values changed."""
    values = {**ENGINE, **change}
    values.pop("sources")
    return Engine(**{**values, "models": ()})


def test_a_state_is_read_as_it_was_written_and_everybody_may(tmp_path: Path) -> None:
    """The file has the agreed keys, and anybody may read it."""
    states = States(tmp_path)
    state = State(LOADING, 12.5, 4000, "why")
    states.put("chat-a", state)
    assert states.get("chat-a") == state
    path = tmp_path / "chat-a.json"
    assert path.stat().st_mode & 0o777 == 0o644
    found = json.loads(path.read_text())
    assert {key: found[key] for key in ("state", "since", "need_mib", "reason")} == {
        "state": "loading",
        "since": 12.5,
        "need_mib": 4000,
        "reason": "why",
    }


def test_the_mark_is_there_exactly_while_awake(tmp_path: Path) -> None:
    """Connections are handed on while `NAME.awake` is there, so no other state leaves it."""
    states = States(tmp_path)
    for state in (LOADING, AWAKE, LEAVING, AWAKE, FAILED):
        states.put("chat-a", State(state, 1.0))
        assert (tmp_path / "chat-a.awake").exists() == (state == AWAKE)
    states.put("chat-a", State(AWAKE, 1.0))
    states.drop("chat-a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"state": "awake"}', '{"state": 1, "since": "x"}']
)
def test_a_damaged_state_is_no_state(tmp_path: Path, text: str) -> None:
    """What cannot be read means asleep."""
    (tmp_path / "chat-a.json").write_text(text)
    assert States(tmp_path).get("chat-a") is None


def test_readers_never_see_half_a_state(tmp_path: Path) -> None:
    """A state is replaced as a whole under a reader that looks all the time."""
    states = States(tmp_path)
    states.put("chat-a", State(LOADING, 0.0, reason="x" * 20000))
    done = threading.Event()
    seen: list[State | None] = []

    def look() -> None:
        while not done.is_set():
            seen.append(states.get("chat-a"))

    reader = threading.Thread(target=look)
    reader.start()
    for at in range(300):
        states.put("chat-a", State(LOADING, float(at), reason="x" * (at * 100)))
    done.set()
    reader.join()
    assert seen
    assert None not in seen


def test_a_wish_to_try_at_once_counts_once(tmp_path: Path) -> None:
    """`NAME.force` is used up by the start that it was made for."""
    states = States(tmp_path)
    assert not states.take_force("chat-a")
    states.ask_force("chat-a")
    assert states.take_force("chat-a")
    assert not states.take_force("chat-a")


def test_a_lock_that_is_held_too_long_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Nobody waits for ever for the lock, and it is free as soon as its holder is done."""
    path = tmp_path / "lock"
    with locked(path):
        begin = time.monotonic()
        with pytest.raises(EngineError, match=str(path)), locked(path, 0.1):
            pass
        assert time.monotonic() - begin < 2
    with locked(path, 0.1):
        pass


def test_the_need_is_what_was_measured_then_the_setting_then_the_file(tmp_path: Path) -> None:
    """The best that is known counts; a card's unknown need is nobody's guess."""
    seen = Measured(3000, 1.0, 1.0, given=4000)
    assert measured.need(engine(), seen, tmp_path) == 3000
    assert measured.need(engine(), None, tmp_path) == 4000
    (tmp_path / "x.gguf").write_bytes(b"\0" * 10 * 2**20)
    assert measured.need(engine(memory_mib=None, file="x.gguf"), None, tmp_path) == 12 + 512
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "model").write_bytes(b"\0" * 20 * 2**20)
    assert measured.need(engine(memory_mib=None, file="x"), None, tmp_path) == 24 + 512
    assert measured.need(engine(memory_mib=None), None, tmp_path) is None
    assert measured.need(engine(memory_mib=None, device="cpu"), None, tmp_path) == 0


def test_a_changed_engine_is_not_judged_by_what_it_was(tmp_path: Path) -> None:
    """A new setting or a new container configuration makes the setting count again."""
    seen = Measured(9000, 1.0, 1.0, given=9000, config="old")
    assert measured.need(engine(memory_mib=5000), seen, tmp_path) == 5000
    seen = Measured(9000, 1.0, 1.0, given=5000, config="old")
    assert measured.need(engine(memory_mib=5000), seen, tmp_path, "new") == 5000
    assert measured.need(engine(memory_mib=5000), seen, tmp_path, "old") == 9000
    assert measured.need(engine(memory_mib=5000), seen, tmp_path) == 9000


def test_one_that_loads_later_needs_what_it_was_given(tmp_path: Path) -> None:
    """Ollama holds next to nothing while none of its models is loaded."""
    seen = Measured(100, 1.0, 1.0, given=4000)
    assert measured.need(engine(kind="ollama"), seen, tmp_path) == 4000


def test_what_was_measured_is_kept(tmp_path: Path) -> None:
    """The figures are in the agreed file, with the agreed keys."""
    measured.record(tmp_path / "new", "chat-a", Measured(3000, 1.5, 99.0, 4000, "x"))
    found = json.loads((tmp_path / "new/chat-a.json").read_text())
    assert (found["memory_mib"], found["load_seconds"], found["at"]) == (3000, 1.5, 99.0)
    assert measured.read(tmp_path / "new", "chat-a") == Measured(3000, 1.5, 99.0, 4000, "x")
    measured.forget(tmp_path / "new", "chat-a")
    assert measured.read(tmp_path / "new", "chat-a") is None


def test_an_unknown_engine_is_answered_with_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typing mistake is met with the name that was probably meant."""
    host, _ = host_with(tmp_path, monkeypatch, {"name": "chat-hermes"}, {"name": "embed-arctic"})
    with pytest.raises(UnknownEngineError, match=r"did you mean chat-hermes\?"):
        host.config.engine("chat-hermse")


def test_a_missing_damaged_or_newer_configuration_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every one of these is mended by a deploy, and says so."""
    host, _ = host_with(tmp_path, monkeypatch, {})
    path = host.paths.config
    for text in ('{"version": 2}', "{", '{"version": 1}'):
        path.write_text(text)
        with pytest.raises(EngineError, match=r"pyinfra inventory deploy\.py"):
            load(path)
    path.unlink()
    with pytest.raises(EngineError, match="is not there"):
        load(path)
