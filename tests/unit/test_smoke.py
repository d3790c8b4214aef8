"""`gatehouse smoke`, with a LiteLLM that does what the test says."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gatehouse import state
from gatehouse.tool import here
from gatehouse.tool.smoke import ALIAS, smoke
from tests.given import settings
from tests.litellm_api import LiteLLM, Reply, play

REFUSED: Reply = (500, {"error": {"message": "it is broken"}}, {})
RERANK = {
    "model_name": "rerank-bge-v2-m3",
    "litellm_params": {"model": "hosted_vllm/rerank-bge-v2-m3"},
    "model_info": {"mode": "rerank"},
}


@pytest.fixture
def litellm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LiteLLM:
    """Give the gateway of a host with the shipped settings."""
    monkeypatch.setattr(state, "FOLDER", tmp_path)
    monkeypatch.setattr(here, "settings", settings)
    return play(monkeypatch)


def run(*arguments: str, code: int = 0) -> Result:
    """Run the command."""
    found = CliRunner().invoke(smoke, arguments, prog_name="gatehouse smoke")
    assert found.exit_code == code, found.output
    return found


def steps(code: int = 0, *arguments: str) -> dict[str, dict[str, Any]]:
    """Give the steps by name."""
    document = json.loads(run("--json", *arguments, code=code).stdout)
    return {each["name"]: each for each in document["steps"]}


def states(found: dict[str, dict[str, Any]], word: str) -> set[str]:
    """Give the steps that ended so."""
    return {name for name, each in found.items() if each["state"] == word}


def test_every_step_is_done_and_the_key_is_gone(litellm: LiteLLM) -> None:
    """All that this host offers works; what it does not offer is skipped with the way to get it."""
    found = steps()
    assert states(found, "skipped") == {"rerank"}
    assert "rerank-bge-v2-m3" in found["rerank"]["fix"]
    assert not states(found, "failed")
    assert not litellm.keys
    assert found["stream"]["found"].endswith("2 pieces")


@pytest.mark.parametrize(
    ("path", "failing"),
    [
        ("/key/generate", {"key"}),
        ("/v1/models", {"models"}),
        ("/v1/embeddings", {"embedding"}),
        ("/v1/chat/completions", {"completion", "stream", "cache", "fallback"}),
    ],
)
def test_failing_step_is_named(litellm: LiteLLM, path: str, failing: set[str]) -> None:
    """What fails is said to fail with LiteLLM's words, and nothing else is; the key still goes."""
    litellm.changed[path] = lambda _: REFUSED
    found = steps(1)
    assert states(found, "failed") == failing
    assert not litellm.keys
    last = run(code=1).stdout.splitlines()[-1]
    assert all(name in last for name in failing)
    if path != "/v1/chat/completions":
        assert "it is broken" in found[min(failing)]["found"]


def test_cache_that_does_not_keep_is_a_failure(
    litellm: LiteLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that is never found again is not a working cache."""
    monkeypatch.setattr("gatehouse.tool.smoke._CACHED_SECONDS", 0.2)
    monkeypatch.setattr(litellm, "cached", NoMemory())
    assert states(steps(1), "failed") == {"cache"}


def test_memory_of_a_worker_is_no_cache(litellm: LiteLLM) -> None:
    """What is found without Redis is found by one worker only."""
    litellm.changed["/cache/ping"] = lambda _: (503, {"error": {"message": "Unhealthy"}}, {})
    found = steps(1)
    assert states(found, "failed") == {"cache"}
    assert "Redis" in found["cache"]["found"]


class NoMemory(set[str]):
    """A set that forgets."""

    def add(self, element: str) -> None:
        """Forget it."""


def test_stream_that_breaks_off_is_a_failure(litellm: LiteLLM) -> None:
    """Without the end of the stream it is not whole."""

    def broken(body: dict[str, Any]) -> Reply | None:
        piece = '{"choices": [{"delta": {"content": "The"}}]}'
        return (200, f"data: {piece}\n\n", {}) if body.get("stream") else None

    litellm.changed["/v1/chat/completions"] = broken
    found = steps(1)
    assert states(found, "failed") == {"stream"}
    assert "1 pieces came, and the end of the stream never" in found["stream"]["found"]


def test_fallback_that_nobody_asked_is_a_failure(litellm: LiteLLM) -> None:
    """When the failing model answers by itself, fallbacks are not proven."""

    def unfailing(body: dict[str, Any]) -> Reply | None:
        answer = {"choices": [{"message": {"content": "I work."}}]}
        return (200, answer, {}) if body["model"] == "chat-selftest-failing" else None

    litellm.changed["/v1/chat/completions"] = unfailing
    assert states(steps(1), "failed") == {"fallback"}


def test_answer_of_a_fallback_is_no_completion(litellm: LiteLLM) -> None:
    """What another model said proves nothing about the one that was asked."""
    headers = {"x-litellm-attempted-fallbacks": "1"}
    litellm.changed["/v1/embeddings"] = lambda _: (200, {"data": [{"embedding": [1]}]}, headers)
    assert states(steps(1), "failed") == {"embedding"}


def test_sleeping_reranker_is_not_woken(litellm: LiteLLM) -> None:
    """A model whose engine sleeps is skipped, and the way to try it is said."""
    litellm.models.append(RERANK)
    found = steps()
    assert found["rerank"]["fix"] == "gatehouse smoke --wake"
    assert not [path for path, _ in litellm.asked if path == "/v1/rerank"]


def test_leftover_key_is_removed_first(litellm: LiteLLM) -> None:
    """What a killed run left behind is in nobody's way."""
    litellm.keys.add(ALIAS)
    steps()
    assert not litellm.keys


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_removes_its_key(litellm: LiteLLM, number: signal.Signals) -> None:
    """Ctrl+C and `systemctl stop` end it, and the key is gone."""

    def interrupt(_: dict[str, Any]) -> Reply | None:
        assert litellm.keys == {ALIAS}
        os.kill(os.getpid(), number)
        return None

    litellm.changed["/v1/embeddings"] = interrupt
    # Whoever runs the tests in the background ignores Ctrl+C, and so would they.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        found = CliRunner().invoke(smoke)
    finally:
        signal.signal(signal.SIGINT, before)
    assert found.exit_code == 1
    assert not litellm.keys
    assert "/v1/rerank" not in [path for path, _ in litellm.asked]


def test_second_run_at_once_is_refused(litellm: LiteLLM) -> None:
    """Two would share the one key."""
    outputs = []

    def again(_: dict[str, Any]) -> Reply | None:
        outputs.append(CliRunner().invoke(smoke))
        return None

    litellm.changed["/v1/embeddings"] = again
    run()
    assert [each.exit_code for each in outputs] == [2]
    assert "another gatehouse smoke runs" in outputs[0].output


def test_record_is_kept(litellm: LiteLLM) -> None:
    """Only --record writes it down, and it is the document."""
    run()
    assert state.read("smoke") is None
    printed = json.loads(run("--json", "--record").stdout)
    kept = state.read("smoke")
    assert kept is not None
    assert {key: kept[key] for key in printed} == printed


def test_cache_that_is_off_is_skipped(litellm: LiteLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cache there is nothing to find again, and that is no failure."""
    monkeypatch.setattr(here, "settings", lambda: settings(redis_cache_ttl_seconds=0))
    found = steps()
    assert found["cache"]["state"] == "skipped"
    assert "redis_cache_ttl_seconds" in found["cache"]["fix"]
