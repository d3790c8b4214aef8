"""LiteLLM with model servers that fail, are full, or listen in."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from gatehouse.lab.workstation import Workstation
from tests import routes
from tests.deploying import deploy
from tests.gateway import Answer, Gateway, question
from tests.lab.conftest import UPSTREAM, start_upstream, stop_upstream, upstream
from tests.waiting import wait_for

LOCAL, CLOUD = 9101, 9102
SERVER = "http://host.docker.internal"
SETTINGS: dict[str, object] = {
    "models_extra": [
        {
            "name": "chat-near-vllm",
            "backend": "hosted_vllm/near",
            "api_base": f"{SERVER}:{LOCAL}/v1",
            "retries": 1,
            "timeout_seconds": 20,
            "context_tokens": 8192,
        },
        {
            "name": "far-cloud",
            "backend": "hosted_vllm/far",
            "api_base": f"{SERVER}:{CLOUD}/v1",
            "context_tokens": 65536,
        },
        {
            "name": "embed-near-vllm",
            "backend": "hosted_vllm/near",
            "api_base": f"{SERVER}:{LOCAL}/v1",
        },
        {
            "name": "rerank-near-vllm",
            "backend": "hosted_vllm/near",
            "api_base": f"{SERVER}:{LOCAL}",
        },
    ],
    "models_aliases": {
        "chat-default": ["chat-near-vllm"],
        "rerank-default": ["rerank-near-vllm"],
        "embeddings-default": ["embed-near-vllm"],
    },
    # The tests ask for the alias, which takes them over from its model.
    "models_fallbacks": {"chat-near-vllm": ["far-cloud"]},
    "models_context_fallbacks": {"chat-near-vllm": ["far-cloud"]},
    # A server that fails often is asked again all the same: each test begins anew.
    "litellm_allowed_fails": 1000,
    "litellm_retries": 1,
}
# All that LiteLLM's code has, as JSON; its own description leaves some out.
EVERY_ROUTE = """docker exec gatehouse-litellm-1 python3 -c '
from litellm.proxy.proxy_server import app
def walk(routes, prefix=""):
    for each in routes:
        if hasattr(each, "original_router"):
            yield from walk(each.original_router.routes, prefix + each.include_context.prefix)
        for method in getattr(each, "methods", None) or ():
            yield method, prefix + each.path
import json
print(json.dumps(sorted(set(walk(app.routes)))))
' | tail -n 1"""


class Models:
    """The two model servers inside the workstation, and what they were asked."""

    def __init__(self, workstation: Workstation) -> None:
        """Hold the workstation that they run on."""
        self._workstation = workstation

    def set(self, port: int, **mode: object) -> None:
        """Have a server fail, be slow, or work again."""
        self._curl(port, "/_mode", "-X", "POST", "-d", json.dumps(mode))

    def calls(self, port: int) -> dict[str, Any]:
        """Give what a server was asked since it was last told to forget it."""
        found: dict[str, Any] = json.loads(self._curl(port, "/_calls"))
        return found

    def reset(self) -> None:
        """Have both work, and forget."""
        for port in (LOCAL, CLOUD):
            self.set(port)
            self._curl(port, "/_calls", "-X", "DELETE")

    def _curl(self, port: int, path: str, *options: str) -> str:
        return self._workstation.exec(["curl", "-sfS", *options, f"{UPSTREAM}:{port}{path}"]).stdout


@pytest.fixture(scope="module")
def _servers(workstation: Workstation) -> Iterator[Models]:
    """Have a gateway with two model servers behind it, and afterwards the one from before."""
    with upstream(workstation, LOCAL, "near"), upstream(workstation, CLOUD, "far"):
        deploy(workstation, settings=SETTINGS)
        yield Models(workstation)
    deploy(workstation)


@pytest.fixture
def models(_servers: Models) -> Models:
    """Give the servers, both in order and with nothing counted."""
    _servers.reset()
    return _servers


def ask(gateway: Gateway, text: str = "", **more: object) -> Answer:
    """Ask the nearer model something that nobody has asked before."""
    body = question("chat-default", f"{text} {uuid.uuid4()}")
    return gateway.ask("POST", "/v1/chat/completions", body, timeout=120, **more)


def said(answer: Answer) -> str:
    """Give the first word of an answer: the name of the server that gave it."""
    assert answer.status == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"]).split()[0]


def test_model_answers_from_its_server(gateway: Gateway, models: Models) -> None:
    """While all is well the nearer server answers, and the other is not asked."""
    assert said(ask(gateway)) == "near"
    assert models.calls(CLOUD)["total"] == 0


@pytest.mark.parametrize("status", [500, 429])
def test_fallback_answers_when_a_server_fails(
    gateway: Gateway, models: Models, status: int
) -> None:
    """A client of a model whose server fails gets its answer from the fallback."""
    models.set(LOCAL, fail=True, status=status)
    assert said(ask(gateway)) == "far"
    assert models.calls(LOCAL)["total"] >= 1


def test_failure_is_retried(gateway: Gateway, models: Models) -> None:
    """A failing server is asked once more before somebody else is."""
    models.set(LOCAL, fail=True, status=500)
    ask(gateway)
    assert models.calls(LOCAL)["total"] == 2


def test_fallback_answers_when_a_server_is_gone(
    gateway: Gateway, models: Models, workstation: Workstation
) -> None:
    """A server that does not run at all is no reason for the client to notice."""
    stop_upstream(workstation, LOCAL)
    try:
        assert said(ask(gateway)) == "far"
    finally:
        start_upstream(workstation, LOCAL, "near")


def test_context_fallback_answers_what_the_server_finds_too_long(
    gateway: Gateway, models: Models
) -> None:
    """A question that the server refuses for its length is answered by the larger model."""
    models.set(LOCAL, context_error=True)
    assert said(ask(gateway)) == "far"


def test_context_fallback_answers_what_is_known_to_be_too_long(
    gateway: Gateway, models: Models
) -> None:
    """A question longer than the model's context goes to the larger model at once."""
    assert said(ask(gateway, "word " * 10_000)) == "far"
    assert models.calls(LOCAL)["total"] == 0


def test_no_fallback_left_is_an_error(gateway: Gateway, models: Models) -> None:
    """Where nobody can answer the client learns that, and is not told where the servers are."""
    for port in (LOCAL, CLOUD):
        models.set(port, fail=True, status=500)
    answer = ask(gateway)
    assert answer.status >= 500
    assert "host.docker.internal" not in answer.text


def test_clients_headers_stay_here(gateway: Gateway, models: Models) -> None:
    """What a client sends in headers is not passed on to servers and clouds."""
    ask(gateway, headers={"X-Client-Secret": "canary-in-a-header", "Cookie": "canary=1"})
    headers = models.calls(LOCAL)["routes"]["POST /v1/chat/completions"]["last_headers"]
    assert "x-client-secret" not in headers
    assert "cookie" not in headers
    assert "canary" not in json.dumps(headers)


def test_same_question_reaches_the_server_once(gateway: Gateway, models: Models) -> None:
    """The second answer comes from the cache: the server is not asked again."""
    body = question("chat-default", f"once {uuid.uuid4()}")
    first = gateway.ask("POST", "/v1/chat/completions", body)

    def cached() -> bool:
        second = gateway.ask("POST", "/v1/chat/completions", body)
        assert said(second) == said(first)
        return "x-litellm-cache-key" in second.headers

    wait_for(cached, 20, "an answer from the cache")
    asked = models.calls(LOCAL)["total"]
    assert gateway.ask("POST", "/v1/chat/completions", body).status == 200
    assert models.calls(LOCAL)["total"] == asked


def test_stream_embedding_and_rerank_pass_through(gateway: Gateway, models: Models) -> None:
    """Streams, vectors and rankings come from the server that the model names."""
    text = str(uuid.uuid4())
    stream = gateway.ask(
        "POST", "/v1/chat/completions", question("chat-default", text, stream=True)
    )
    assert "near" in stream.text
    assert stream.text.rstrip().endswith("data: [DONE]")
    vector = gateway.ask("POST", "/v1/embeddings", {"model": "embeddings-default", "input": text})
    assert len(vector.json()["data"][0]["embedding"]) > 1
    ranking = gateway.ask(
        "POST",
        "/v1/rerank",
        {"model": "rerank-default", "query": "red fox", "documents": ["a cat", "the red fox"]},
    )
    assert ranking.json()["results"][0]["index"] == 1
    routes_asked = set(models.calls(LOCAL)["routes"])
    assert {"POST /v1/chat/completions", "POST /v1/embeddings", "POST /rerank"} <= routes_asked


def test_undescribed_routes_want_a_key_too(gateway: Gateway, workstation: Workstation) -> None:
    """The routes that LiteLLM has but does not describe refuse like the others."""
    every = {(method, path) for method, path in json.loads(workstation.exec(EVERY_ROUTE).stdout)}
    assert len(every) > 500, "this is not the whole list"
    paths = gateway.ask("GET", "/openapi.json").json()["paths"]
    described = {(name.upper(), routes.filled(path)) for path in paths for name in paths[path]}
    hidden = [(name, path) for name, path in every if (name, routes.filled(path)) not in described]
    wrong = [
        problem
        for key in ("", "sk-none-00000000000000000000")
        for problem in routes.open_to(gateway, hidden, key)
    ]
    assert not wrong, "\n".join(wrong)
