"""LiteLLM's API as far as commands use it, played in this process: no network, no waiting."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from gatehouse.tool import here

Reply = tuple[int, dict[str, Any] | str, dict[str, str]]
BUILTIN = {
    "model_name": "chat-selftest-builtin",
    "litellm_params": {"model": "openai/selftest", "mock_response": "The gateway works."},
    "model_info": {"mode": "chat", "max_input_tokens": 8192},
}
EMBED = {
    "model_name": "embed-selftest-builtin",
    "litellm_params": {"model": "openai/selftest-embedding", "mock_response": [0.5, 1.0]},
    "model_info": {"mode": "embedding", "max_input_tokens": 8192},
}
FAILING = {
    "model_name": "chat-selftest-failing",
    "litellm_params": {"model": "openai/selftest-failing", "mock_response": "an error"},
    "model_info": {"mode": "chat"},
}


@dataclass
class LiteLLM:
    """A gateway with three models; `changed` answers before it does."""

    models: list[dict[str, Any]] = field(default_factory=lambda: [BUILTIN, EMBED, FAILING])
    aliases: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    changed: dict[str, Callable[[dict[str, Any]], Reply | None]] = field(default_factory=dict)
    cached: set[str] = field(default_factory=set)

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer as LiteLLM would."""
        path = request.url.path
        body = json.loads(request.content) if request.content else {}
        self.asked.append((path, body))
        found = self.changed[path](body) if path in self.changed else None
        status, content, headers = found or getattr(self, path.strip("/").replace("/", "_"))(body)
        if isinstance(content, str):
            return httpx.Response(status, text=content, headers=headers)
        return httpx.Response(status, json=content, headers=headers)

    def key_generate(self, body: dict[str, Any]) -> Reply:
        """Make a key."""
        self.keys.add(body["key_alias"])
        return 200, {"key": "sk-made-up"}, {}

    def key_delete(self, body: dict[str, Any]) -> Reply:
        """Remove a key."""
        if not self.keys & set(body["key_aliases"]):
            return 404, {"error": {"message": "no such key"}}, {}
        self.keys -= set(body["key_aliases"])
        return 200, {"deleted_keys": body["key_aliases"]}, {}

    def v1_models(self, _: dict[str, Any]) -> Reply:
        """List the names."""
        names = [*(model["model_name"] for model in self.models), *self.aliases]
        return 200, {"data": [{"id": name} for name in names]}, {}

    def v1_model_info(self, _: dict[str, Any]) -> Reply:
        """Describe the models."""
        return 200, {"data": self.models}, {}

    def v1_chat_completions(self, body: dict[str, Any]) -> Reply:
        """Say the built-in model's words."""
        headers = {"x-litellm-attempted-fallbacks": "0"}
        if body["model"] == "chat-selftest-failing":
            headers["x-litellm-attempted-fallbacks"] = "1"
        if "cache" not in body:
            question = json.dumps(body)
            if question in self.cached:
                headers["x-litellm-cache-key"] = "found"
            self.cached.add(question)
        if body.get("stream"):
            parts = [{"choices": [{"delta": {"content": word}}]} for word in ("The", " gateway")]
            lines = [": ping", *(f"data: {json.dumps(part)}" for part in parts), "data: [DONE]"]
            return 200, "\n\n".join(lines) + "\n\n", headers
        return 200, {"choices": [{"message": {"content": "The gateway works."}}]}, headers

    def cache_ping(self, _: dict[str, Any]) -> Reply:
        """Say that Redis answers."""
        return 200, {"status": "healthy"}, {}

    def v1_embeddings(self, _: dict[str, Any]) -> Reply:
        """Give two numbers."""
        return 200, {"data": [{"embedding": [0.5, 1.0]}]}, {}

    def v1_rerank(self, body: dict[str, Any]) -> Reply:
        """Give the documents as they came."""
        results = [{"index": n, "relevance_score": 0.5} for n in range(len(body["documents"]))]
        return 200, {"results": results}, {}


def play(monkeypatch: pytest.MonkeyPatch) -> LiteLLM:
    """Have commands talk to a LiteLLM of this process, as root of a host."""
    litellm = LiteLLM()
    real = httpx.Client

    def client(**options: Any) -> httpx.Client:  # noqa: ANN401 - httpx's
        return real(**options, transport=httpx.MockTransport(litellm.answer))

    monkeypatch.setattr(here.httpx, "Client", client)
    monkeypatch.setattr(here, "secret", lambda _: here.SecretStr("sk-master"))
    monkeypatch.setattr(here, "be_root", lambda _: None)
    return litellm
