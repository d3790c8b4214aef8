"""`gatehouse knowledge`: a list is taken only when it is sane, and compared with what is offered."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gatehouse import audit, state
from gatehouse.tool import here
from gatehouse.tool import knowledge as tool
from gatehouse.tool.knowledge import knowledge
from tests.given import settings
from tests.litellm_api import LiteLLM, play

CLOUD = {
    "model_name": "kimi-k2-1t-cloud",
    "litellm_params": {"model": "ollama_chat/kimi-k2:1t", "api_base": "https://ollama.com"},
    "model_info": {
        "mode": "chat",
        "max_input_tokens": 262144,
        "input_cost_per_token": 1e-6,
        "output_cost_per_token": 2e-6,
    },
}
ENTRY = {
    "max_input_tokens": 262144,
    "max_tokens": 4096,
    "input_cost_per_token": 1e-6,
    "output_cost_per_token": 2e-6,
    "mode": "chat",
    "litellm_provider": "ollama",
}
SPEC = {"sample_spec": {"max_input_tokens": "how many"}, "fallback_generalizations": {"a": []}}


def models(count: int = 60, **more: object) -> dict[str, Any]:
    """Give a list."""
    return {**SPEC, **{f"openai/model-{n}": {"mode": "chat"} for n in range(count)}, **more}


class Mirror(BaseHTTPRequestHandler):
    """Serves what the test puts there."""

    content: bytes = b""
    status = 200
    location: str | None = None

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(self.status)
        if self.location:
            self.send_header("Location", self.location)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def mirror() -> Iterator[type[Mirror]]:
    """Run a mirror on a port of its own."""

    class Own(Mirror):
        url = ""

    server = HTTPServer(("127.0.0.1", 0), Own)
    Own.url = f"http://127.0.0.1:{server.server_port}/prices.json"
    Thread(target=server.serve_forever, daemon=True).start()
    yield Own
    server.shutdown()
    server.server_close()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the host's folders, on a host that asks nobody."""
    monkeypatch.setattr(state, "FOLDER", tmp_path / "state")
    monkeypatch.setattr(tool, "FOLDER", tmp_path / "knowledge")
    monkeypatch.setattr(audit, "FILE", tmp_path / "audit.jsonl")
    monkeypatch.setattr(here, "be_root", lambda _: None)
    monkeypatch.setattr(here, "settings", settings)
    return tmp_path


def run(*arguments: str, code: int = 0, given: str | None = None) -> Result:
    """Run the command."""
    found = CliRunner().invoke(knowledge, arguments, prog_name="gatehouse knowledge", input=given)
    assert found.exit_code == code, found.output
    return found


def bring(content: object, code: int = 0) -> Result:
    """Take a list from standard input."""
    text = content if isinstance(content, str) else json.dumps(content)
    return run("refresh", "--from", "-", given=text, code=code)


def names(place: Path, file: str = "models.json") -> set[str]:
    """Give the models that are known."""
    return set(json.loads((place / "knowledge" / file).read_text()))


def test_nothing_is_fetched_unless_it_is_allowed(place: Path, mirror: Any) -> None:  # noqa: ANN401 - the server's class
    """A private gateway asks nobody: exit code 2, and both ways are named."""
    found = run("refresh", code=2).output
    assert "knowledge_refresh = False" in found
    assert "--from" in found
    assert [entry["result"] for entry in audit.entries()] == ["refused"]


def test_list_is_fetched_where_it_is_allowed(
    place: Path,
    mirror: Any,  # noqa: ANN401 - the server's class
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the setting's address; only what is used is kept, and what happened is recorded."""
    allowed = settings(knowledge_refresh=True, knowledge_url=mirror.url)
    monkeypatch.setattr(here, "settings", lambda: allowed)
    mirror.content = json.dumps(models(extra={"mode": "chat", "secret_field": "x"})).encode()
    document = json.loads(run("refresh", "--json").stdout)
    assert (document["ok"], document["models"], document["added"]) == (True, 61, 61)
    assert names(place) == models(extra={}).keys() - SPEC.keys()
    assert "secret_field" not in (place / "knowledge/models.json").read_text()
    assert state.read("knowledge") is not None
    assert audit.entries()[-1]["source"] == mirror.url


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": 404}, "answered 404"),
        (
            {"status": 302, "location": "https://elsewhere.example.com/"},
            "has moved to https://else",
        ),
        ({"content": b"<html>"}, "is no JSON"),
        ({"content": b" " * (tool.MOST_BYTES + 1)}, "larger than 32 MiB"),
    ],
)
def test_mirror_that_answers_nonsense_is_refused(
    place: Path,
    mirror: Any,  # noqa: ANN401 - the server's class
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    words: str,
) -> None:
    """What is there stays, the reason is said and recorded, and the exit code is 1."""
    bring(models())
    allowed = settings(knowledge_refresh=True, knowledge_url=mirror.url)
    monkeypatch.setattr(here, "settings", lambda: allowed)
    for key, value in change.items():
        setattr(mirror, key, value)
    assert words in run("refresh", code=1).output
    assert len(names(place)) == 60
    kept = state.read("knowledge")
    assert kept is not None
    assert (kept["ok"], kept["models"]) == (False, 60)
    assert audit.entries()[-1]["result"] == "failed"


def test_mirror_that_is_not_there_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server: the setting is named."""
    allowed = settings(knowledge_refresh=True, knowledge_url="http://127.0.0.1:9/prices.json")
    monkeypatch.setattr(here, "settings", lambda: allowed)
    assert "cannot be fetched (knowledge_url)" in run("refresh", code=1).output


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "no list of models"),
        (models(49), "49 models, fewer than 50"),
        ({f"m{n}": "words" for n in range(60)}, "not described as they should be"),
        ({f"m{n}": {"input_cost_per_token": "free"} for n in range(60)}, "not described"),
        ({f"m{n}": {"max_tokens": -1} for n in range(60)}, "not described"),
    ],
)
def test_list_that_is_not_sane_is_refused(place: Path, content: object, words: str) -> None:
    """A file that is something else never becomes what is known."""
    assert words in bring(content, code=1).output
    assert not (place / "knowledge").exists()


def test_single_wrong_model_is_left_out(place: Path) -> None:
    """One mistake among many does not cost the whole list."""
    bring(models(200, wrong={"max_tokens": "many"}))
    assert "wrong" not in names(place)
    assert len(names(place)) == 200


def test_list_that_shrank_is_refused(place: Path) -> None:
    """Less than half of what was known is more likely a mistake."""
    bring(models(200))
    assert "less than half of the 200" in bring(models(90), code=1).output
    assert len(names(place)) == 200


def test_list_before_is_kept(place: Path) -> None:
    """The one before lies beside the new one."""
    bring(models(60))
    assert "1 new, 0 gone" in bring(models(61)).output
    assert len(names(place)) == 61
    assert len(names(place, "models-before.json")) == 60


def test_missing_file_is_refused(place: Path) -> None:
    """Exit code 2 for a file that is not there."""
    assert "nowhere.json" in run("refresh", "--from", "/nowhere.json", code=2).output


@pytest.fixture
def litellm(place: Path, monkeypatch: pytest.MonkeyPatch) -> LiteLLM:
    """Give a gateway that offers a provider's model."""
    found = play(monkeypatch)
    found.models.append(CLOUD)
    return found


def compared(code: int = 0) -> dict[str, dict[str, Any]]:
    """Give what is compared, by name."""
    document = json.loads(run("show", "--json", code=code).stdout)
    return {each["name"]: each for each in document["models"]}


def test_without_a_list_there_is_nothing_to_compare(litellm: LiteLLM) -> None:
    """Exit code 2, and how to get one."""
    assert "refresh --from FILE" in run(code=2).output


@pytest.mark.parametrize(
    ("entry", "state_", "words"),
    [
        (ENTRY, "same", ""),
        (ENTRY | {"max_input_tokens": 300_000}, "same", ""),
        (ENTRY | {"max_input_tokens": 131_072}, "differs", "context_tokens = 262144"),
        (ENTRY | {"input_cost_per_token": 5e-6}, "differs", "the list has 5 $"),
        (ENTRY | {"output_cost_per_token": 5e-6}, "differs", "an answer is counted with 2 $"),
    ],
)
def test_difference_is_told(
    litellm: LiteLLM, entry: dict[str, Any], state_: str, words: str
) -> None:
    """A context that is larger than known, and another price; a smaller context is a choice."""
    bring(models(**{"ollama_chat/kimi-k2:1t": entry}))
    found = compared(int(state_ == "differs"))["kimi-k2-1t-cloud"]
    assert found["state"] == state_
    assert words in found["found"]


def test_model_that_nobody_knows_is_told(litellm: LiteLLM) -> None:
    """Its spend is counted with what LiteLLM has, and that may be nothing."""
    bring(models())
    found = compared()
    assert found["kimi-k2-1t-cloud"]["state"] == "unknown"
    assert found["chat-selftest-builtin"]["state"] == "local"
    assert "kimi-k2-1t-cloud" in run().stdout
