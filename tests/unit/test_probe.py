"""`gatehouse probe`, with models that can do what the test says."""

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gatehouse import state
from gatehouse.tool import here, served
from gatehouse.tool.probe import ProbeDocument, Value, changed, png, probe
from tests.given import settings
from tests.litellm_api import LiteLLM, Reply, play

HERMES = "chat-hermes-3-llama-3.1-8b"
ENGINE = {
    "model_name": HERMES,
    "litellm_params": {"model": f"hosted_vllm/{HERMES}"},
    "model_info": {"mode": "chat", "max_input_tokens": 4096},
}
CLOUD = {
    "model_name": "kimi-k2-1t-cloud",
    "litellm_params": {"model": "ollama_chat/kimi-k2:1t", "api_base": "https://ollama.com"},
    "model_info": {"mode": "chat", "max_input_tokens": 262144},
}
SERVER = {
    "model_name": "chat-mine-vllm",
    "litellm_params": {
        "model": "hosted_vllm/mine",
        "api_base": "http://host.docker.internal:8000/v1",
    },
    "model_info": {"mode": "chat", "max_input_tokens": 2048},
}
CHAT = "/v1/chat/completions"


@pytest.fixture
def litellm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LiteLLM:
    """Give a gateway with an engine that sleeps, a provider and a server of the operator's."""
    monkeypatch.setattr(state, "FOLDER", tmp_path)
    monkeypatch.setattr(here, "settings", lambda: settings(models_enable=[HERMES]))
    monkeypatch.setattr(served, "awake", lambda _: set())
    found = play(monkeypatch)
    found.models = [*found.models, ENGINE, CLOUD, SERVER]
    return found


def run(*arguments: str, code: int = 0) -> Result:
    """Run the command."""
    found = CliRunner().invoke(probe, arguments, prog_name="gatehouse probe")
    assert found.exit_code == code, found.output
    return found


def look(*arguments: str, code: int = 0) -> ProbeDocument:
    """Run the command and read its document."""
    return ProbeDocument.model_validate_json(run("--json", *arguments, code=code).stdout)


def can(document: ProbeDocument, name: str) -> dict[str, Value]:
    """Give what a model can do."""
    return {each.name: each.value for each in of(document, name).capabilities}


def of(document: ProbeDocument, name: str) -> Any:  # noqa: ANN401 - a probed model
    """Give a model."""
    return next(each for each in document.models if each.name == name)


def changes(document: ProbeDocument, name: str) -> dict[str, str | None]:
    """Give what has changed of a model."""
    return {each.name: each.change for each in of(document, name).capabilities}


def able(body: dict[str, Any]) -> Reply | None:
    """Do all that can be asked of a model."""
    if body.get("stream"):
        return None
    message: dict[str, Any] = {"content": "OK"}
    content = body["messages"][0]["content"]
    if "tools" in body:
        message = {"content": None, "tool_calls": [{"function": {"name": "get_weather"}}]}
    if "response_format" in body:
        message = {"content": '{"sum": 5}'}
    if isinstance(content, list):
        message = {"content": " and ".join(seen(content[1]["image_url"]["url"]))}
    return 200, {"choices": [{"message": message}]}, {}


def seen(url: str) -> list[str]:
    """Look at a picture: the colours of its first and last pixel."""
    data = base64.b64decode(url.partition(",")[2])
    begin = data.index(b"IDAT") + 4
    pixels = zlib.decompressobj().decompress(data[begin:])
    names = {
        (220, 20, 20): "Red",
        (20, 160, 20): "Green",
        (20, 20, 220): "Blue",
        (240, 220, 20): "Yellow",
        (0, 0, 0): "Black",
    }
    return [names[tuple(pixels[1:4])], names[tuple(pixels[-3:])]]


def test_what_a_model_can_do_is_found_out(litellm: LiteLLM) -> None:
    """A model that can do everything is seen to, and one that only talks is seen to only talk."""
    litellm.changed[CHAT] = lambda body: able(body) if body["model"] == "chat-mine-vllm" else None
    found = look()
    everything = dict.fromkeys(("chat", "stream", "tools", "json", "vision"), True)
    assert can(found, "chat-mine-vllm") == {**everything, "context": 2048}
    talks = {"chat": True, "stream": True, "tools": False, "json": False, "vision": False}
    assert can(found, "chat-selftest-builtin") == {**talks, "context": 8192}
    assert can(found, "embed-selftest-builtin") == {"embedding": 2, "context": 8192}


def test_sleeping_engine_and_provider_are_left_alone(litellm: LiteLLM) -> None:
    """Nothing wakes and nothing costs without being asked for; each says how."""
    found = look()
    assert "--wake" in of(found, HERMES).skipped
    assert "--cloud" in of(found, "kimi-k2-1t-cloud").skipped
    asked = {body.get("model") for _, body in litellm.asked}
    assert not {HERMES, "kimi-k2-1t-cloud", "chat-selftest-failing"} & asked


def test_awake_engine_is_asked(litellm: LiteLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is awake anyway answers."""
    monkeypatch.setattr(served, "awake", lambda _: {HERMES})
    found = look()
    assert of(found, HERMES).skipped is None
    assert can(found, HERMES)["chat"] is True


def test_options_ask_more(litellm: LiteLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """--wake loads the engine first, --cloud asks the provider; named models are asked alone."""
    woken: list[str] = []
    monkeypatch.setattr(served, "wake", woken.append)
    found = look("--wake", "--cloud", HERMES, "kimi-k2-1t-cloud")
    assert woken == [HERMES]
    assert {each.name for each in found.models if each.skipped is None} == {
        HERMES,
        "kimi-k2-1t-cloud",
    }


def test_change_since_the_record_is_told(litellm: LiteLLM) -> None:
    """New, lost, the same and another number; the first time there is nothing to compare."""
    litellm.models.remove(SERVER)
    litellm.changed[CHAT] = able
    assert set(changes(look("--record"), "chat-selftest-builtin").values()) == {None}
    litellm.changed[CHAT] = lambda body: None if "tools" in body else able(body)
    litellm.changed["/v1/embeddings"] = lambda _: (200, {"data": [{"embedding": [1, 2, 3]}]}, {})
    found = look("--record", code=1)
    assert changes(found, "chat-selftest-builtin") == {
        "chat": "same",
        "stream": "same",
        "tools": "lost",
        "json": "same",
        "vision": "same",
        "context": "same",
    }
    assert changes(found, "embed-selftest-builtin")["embedding"] == "changed"
    litellm.changed[CHAT] = able
    assert changes(look(), "chat-selftest-builtin")["tools"] == "new"
    assert "yes (new)" in run().stdout


def test_what_is_asked_later_is_still_known(litellm: LiteLLM) -> None:
    """A model that is not asked this time keeps what was found before, with its time."""
    first = look("--record", "--cloud")
    again = look("--record")
    kept = of(again, "kimi-k2-1t-cloud")
    assert kept.skipped
    assert can(again, "kimi-k2-1t-cloud") == can(first, "kimi-k2-1t-cloud")
    assert kept.capabilities[0].checked == of(first, "kimi-k2-1t-cloud").capabilities[0].checked


@pytest.mark.parametrize("status", [429, 503])
def test_busy_model_has_not_lost_anything(litellm: LiteLLM, status: int) -> None:
    """Who cannot answer now is not known to be unable, and the last known value stays."""
    look("--record")
    busy: Reply = (status, {"error": {"message": "too busy"}}, {})
    litellm.changed[CHAT] = lambda body: busy if body["model"] == "chat-mine-vllm" else None
    found = of(look(code=1), "chat-mine-vllm")
    chat = found.capabilities[0]
    assert (chat.value, chat.last, chat.change) == (None, True, None)
    assert "too busy" in chat.found
    assert [each.seconds for each in found.capabilities[1:]] == [None] * 5
    assert sum(body.get("model") == "chat-mine-vllm" for _, body in litellm.asked[-40:]) >= 1


def test_refusal_is_inability(litellm: LiteLLM) -> None:
    """A server that answers 400 or 500 to a picture does not see."""
    refused: Reply = (500, {"error": {"message": "image input is not supported"}}, {})

    def blind(body: dict[str, Any]) -> Reply | None:
        return refused if isinstance(body["messages"][0]["content"], list) else able(body)

    litellm.changed[CHAT] = blind
    found = look()
    vision = {each.name: each for each in of(found, "chat-mine-vllm").capabilities}["vision"]
    assert vision.value is False
    assert "image input is not supported" in vision.found


def test_answer_of_another_model_proves_nothing(litellm: LiteLLM) -> None:
    """Fallbacks are switched off for it, and one that answers all the same is not believed."""
    headers = {"x-litellm-attempted-fallbacks": "1"}
    litellm.changed[CHAT] = lambda _: (200, {"choices": [{"message": {"content": "OK"}}]}, headers)
    assert can(look(code=1), "chat-mine-vllm")["chat"] is None
    bodies = [body for path, body in litellm.asked if path == CHAT]
    assert all(body["disable_fallbacks"] for body in bodies)


@pytest.mark.parametrize(
    ("name", "words"),
    [("chat-hermes-3-llama-8b", f"did you mean {HERMES}"), ("chat-default", "is an alias")],
)
def test_unknown_model_is_refused(litellm: LiteLLM, name: str, words: str) -> None:
    """A name that nobody has is exit code 2, and close ones are told."""
    assert words in " ".join(run(name, code=2).output.replace("'", "").split())


@pytest.mark.parametrize(
    ("before", "now", "change"),
    [
        (None, True, "new"),
        (None, False, None),
        (False, True, "new"),
        (True, False, "lost"),
        (1024, False, "lost"),
        (True, None, None),
        (768, 1024, "changed"),
        (1024, 1024, "same"),
        (False, False, "same"),
    ],
)
def test_change_is_told_apart(before: Value, now: Value, change: str | None) -> None:
    """What was not found out is no change; a number may change."""
    assert changed(before, now) == change


def test_picture_is_a_png() -> None:
    """A picture of two colours, small enough for any model."""
    data = png((220, 20, 20), (0, 0, 0))
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(data) < 1000
    assert seen("," + base64.b64encode(data).decode()) == ["Red", "Black"]


def test_record_that_cannot_be_read_is_none(litellm: LiteLLM) -> None:
    """A malformed file counts as no record."""
    (state.FOLDER / "probe.json").write_text(json.dumps({"models": [{"name": 3}]}))
    assert look().since is None
