"""LiteLLM's callbacks in a running gateway: engines that sleep, tool choice, streams."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy
from tests.gateway import Answer, Gateway, question
from tests.lab.conftest import UPSTREAM, start_upstream, stop_upstream
from tests.waiting import wait_for

FIRST, SECOND, BEHIND, FAR = 9201, 9202, 9211, 9203
STATES = "/run/gatehouse/engines"
SERVER = "http://host.docker.internal"
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def engine(name: str, port: int) -> dict[str, object]:
    """Give an engine; what it would run is of no matter, for its states are made up here."""
    return {"name": name, "kind": "openai", "port": port, "command": ["/bin/false"]}


SETTINGS: dict[str, object] = {
    "engines_extra": [engine("chat-first", FIRST), engine("chat-second", SECOND)],
    "models_extra": [
        {
            "name": "chat-first",
            "backend": "hosted_vllm/first",
            "engine": "chat-first",
            "on_cold": "fallback",
            "retries": 0,
        },
        {
            "name": "chat-second",
            "backend": "hosted_vllm/second",
            "engine": "chat-second",
            "cold_wait_seconds": 60,
            "timeout_seconds": 2,
            "retries": 0,
        },
        {
            "name": "far-cloud",
            "backend": "hosted_vllm/far",
            "api_base": f"{SERVER}:{FAR}/v1",
            "tool_choice_auto": True,
        },
    ],
    "models_aliases": {
        "chat-default": ["chat-first"],
        "deepseek-coder": ["far-cloud"],
        "kimi-k2-coding": ["far-cloud"],
    },
    "models_fallbacks": {"chat-first": ["far-cloud"]},
    "models_context_fallbacks": {},
    "litellm_stream_guard": ["far-cloud"],
    "litellm_allowed_fails": 1000,
    "litellm_retries": 0,
    "redis_cache_ttl_seconds": 0,
}
# Answers with what it was asked; a stream breaks off before its end.
MIRROR = f"""
import http.server, json
class Mirror(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send(b"{{}}", "application/json")
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = json.dumps({{key: asked.get(key) for key in ("tool_choice", "stream")}})
        start = {{"id": "x", "created": 1, "model": asked["model"]}}
        message = {{"role": "assistant", "content": said}}
        if asked.get("stream"):
            choice = {{"index": 0, "delta": message}}
            body = start | {{"object": "chat.completion.chunk", "choices": [choice]}}
            self.send(b"data: " + json.dumps(body).encode() + b"\\n\\n", "text/event-stream")
        else:
            choice = {{"index": 0, "message": message, "finish_reason": "stop"}}
            usage = {{"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}
            body = start | {{"object": "chat.completion", "choices": [choice], "usage": usage}}
            self.send(json.dumps(body).encode(), "application/json")
    def send(self, body, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("172.30.40.1", {FAR}), Mirror).serve_forever()
"""


class Engines:
    """The engines' states, made up, and the servers that stand for them."""

    def __init__(self, workstation: Workstation) -> None:
        """Hold the workstation."""
        self._workstation = workstation

    def wake(self, name: str) -> None:
        """Say that an engine is awake."""
        self._workstation.exec(f"touch {STATES}/{name}.awake")

    def wake_when_asked(self, name: str, port: int) -> None:
        """Say so as soon as its server has been asked."""
        self._workstation.exec(
            f"systemd-run --quiet --collect sh -c 'until curl -s {UPSTREAM}:{port}/_calls | "
            f"grep -q chat; do sleep 0.1; done; touch {STATES}/{name}.awake'"
        )

    def reset(self) -> None:
        """Have all asleep, and nothing counted."""
        self._workstation.exec(f"rm -f {STATES}/chat-*")
        for port in (BEHIND, SECOND):
            self.set(port)
            self.curl(port, "/_calls", "-X", "DELETE")

    def set(self, port: int, **mode: object) -> None:
        """Have a server fail, be slow, or work again."""
        self.curl(port, "/_mode", "-X", "POST", "-d", json.dumps(mode))

    def calls(self, port: int) -> int:
        """Give how often a server was asked."""
        return int(json.loads(self.curl(port, "/_calls"))["total"])

    def last_headers(self, port: int) -> dict[str, str]:
        """Give the headers of the last chat that reached a server."""
        routes = json.loads(self.curl(port, "/_calls"))["routes"]
        found: dict[str, str] = routes["POST /v1/chat/completions"]["last_headers"]
        return found

    def curl(self, port: int, path: str, *options: str) -> str:
        """Ask a server."""
        return self._workstation.exec(["curl", "-sfS", *options, f"{UPSTREAM}:{port}{path}"]).stdout


@pytest.fixture(scope="module")
def _servers(workstation: Workstation) -> Iterator[Engines]:
    """Have a gateway with servers in the place of its engines, and afterwards the one before."""
    deploy(workstation, settings=SETTINGS)
    workstation.exec("systemctl stop 'gatehouse-engine-*.socket'")
    # The first engine's port is a socket with a proxy behind it, as a real engine's is.
    workstation.exec(
        "systemd-run --quiet --collect --unit knocked "
        f"--socket-property=ListenStream=172.30.40.1:{FIRST} "
        f"/usr/lib/systemd/systemd-socket-proxyd 172.30.40.1:{BEHIND}"
    )
    workstation.exec("cat >/usr/local/bin/mirror.py", text=MIRROR)
    workstation.exec("systemd-run --quiet --collect --unit mirror python3 /usr/local/bin/mirror.py")
    start_upstream(workstation, BEHIND, "first")
    start_upstream(workstation, SECOND, "second")
    wait_for(
        lambda: workstation.exec(f"curl -sf {UPSTREAM}:{FAR}/", check=False).stdout,
        30,
        "the mirror",
    )
    yield Engines(workstation)
    workstation.exec("systemctl stop knocked.socket knocked.service mirror", check=False)
    workstation.exec(f"rm -f {STATES}/chat-*")
    for port in (BEHIND, SECOND):
        stop_upstream(workstation, port)
    deploy(workstation)


@pytest.fixture
def engines(_servers: Engines) -> Engines:
    """Give the engines, all asleep."""
    _servers.reset()
    return _servers


def ask(gateway: Gateway, model: str, key: str = "{master}", **more: object) -> Answer:
    """Ask a model."""
    body = question(model, str(uuid.uuid4()), **more)
    return gateway.ask("POST", "/v1/chat/completions", body, key, timeout=120)


def said(answer: Answer) -> Any:  # noqa: ANN401 - any JSON
    """Give what a server said."""
    assert answer.status == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def told(answer: Answer) -> tuple[str | None, str | None]:
    """Give what the headers tell of the engine."""
    names = ("x-gatehouse-engine", "x-gatehouse-model")
    return (answer.headers.get(names[0]), answer.headers.get(names[1]))


@pytest.mark.parametrize("model", ["chat-first", "chat-default"])
def test_sleeping_engine_is_answered_for_and_knocked_at(
    gateway: Gateway, engines: Engines, workstation: Workstation, model: str
) -> None:
    """The fallback answers at once, and the engine's socket has started what is behind it."""
    workstation.exec("systemctl stop knocked.service", check=False)
    answer = ask(gateway, model)
    assert "tool_choice" in said(answer), "the fallback did not answer"
    assert told(answer) == ("fallback", model)
    assert answer.json()["model"] == model
    assert engines.calls(BEHIND) == 0
    wait_for(
        lambda: (
            workstation.exec("systemctl is-active knocked.service", check=False).returncode == 0
        ),
        30,
        "the service behind the socket",
    )


def test_awake_engine_answers_itself(gateway: Gateway, engines: Engines) -> None:
    """The next request reaches it, on a connection of its own."""
    engines.wake("chat-first")
    answer = ask(gateway, "chat-default")
    assert str(said(answer)).startswith("first heard")
    assert told(answer) == ("awake", "chat-default")
    assert engines.last_headers(BEHIND)["connection"] == "close"


def test_key_without_the_fallback_waits(gateway: Gateway, engines: Engines) -> None:
    """A key gets no more models by asking for one that sleeps."""
    limits = {"models": ["chat-first"], "key_alias": f"narrow-{uuid.uuid4()}"}
    gateway.ask("POST", "/key/generate", limits, keep={"key": "narrow"})
    answer = ask(gateway, "chat-first", "{narrow}")
    gateway.ask("POST", "/key/delete", {"keys": ["{narrow}"]})
    assert str(said(answer)).startswith("first heard")


def test_failing_engine_is_answered_for(gateway: Gateway, engines: Engines) -> None:
    """The header says so, whoever chose the fallback."""
    engines.wake("chat-first")
    engines.set(BEHIND, fail=True)
    assert told(ask(gateway, "chat-first")) == ("fallback", "chat-first")


@pytest.mark.parametrize("stream", [False, True])
def test_waiting_request_outlasts_its_limit(
    gateway: Gateway, engines: Engines, *, stream: bool
) -> None:
    """While it loads a model that waits may take longer than its limit; awake it may not."""
    engines.set(SECOND, delay_seconds=5)
    engines.wake_when_asked("chat-second", SECOND)
    woken = ask(gateway, "chat-second", stream=stream)
    assert woken.status == 200, woken.text
    assert "second heard" in woken.text or stream
    assert told(woken) == ("woken", "chat-second")
    awake = ask(gateway, "chat-second", stream=stream)
    assert awake.status == 408, awake.text


def test_health_check_leaves_engines_alone(gateway: Gateway, engines: Engines) -> None:
    """GET /health asks every model, but no engine: asleep it stays, awake it is known to be."""
    report = gateway.ask("GET", "/health", timeout=120).json()
    unhealthy = [each["model"] for each in report["unhealthy_endpoints"]]
    servers = [model for model in unhealthy if model != "openai/selftest-failing"]
    assert sorted(servers) == ["hosted_vllm/first", "hosted_vllm/second"]
    engines.wake("chat-first")
    report = gateway.ask("GET", "/health", timeout=120).json()
    assert "hosted_vllm/first" in [each["model"] for each in report["healthy_endpoints"]]
    assert (engines.calls(BEHIND), engines.calls(SECOND)) == (0, 0)


@pytest.mark.parametrize("model", ["far-cloud", "chat-first"])
def test_required_tool_choice_becomes_auto(gateway: Gateway, engines: Engines, model: str) -> None:
    """Asked for by name, and as the fallback of a server that fails."""
    engines.wake("chat-first")
    engines.set(BEHIND, fail=True)
    answer = ask(gateway, model, tools=TOOLS, tool_choice="required")
    assert json.loads(said(answer))["tool_choice"] == "auto"


def test_garbled_stream_is_mended(gateway: Gateway, engines: Engines) -> None:
    """The server is asked in one piece; the client gets a stream with an end."""
    answer = ask(gateway, "far-cloud", stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    choices = [each["choices"][0] for each in map(json.loads, events)]
    assert choices[-1]["finish_reason"] == "stop"
    content = "".join(choice["delta"].get("content") or "" for choice in choices)
    assert not json.loads(content)["stream"]


def test_nobody_asks_engines_unasked(gateway: Gateway, engines: Engines) -> None:
    """Listing and describing models asks no server for its own list."""
    for path in ("/v1/models", "/v1/model/info", "/model_group/info"):
        assert gateway.ask("GET", path).status == 200
    assert (engines.calls(BEHIND), engines.calls(SECOND)) == (0, 0)
